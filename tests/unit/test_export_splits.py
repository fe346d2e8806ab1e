"""Splits: shares, near-duplicates together, and the same split for an image for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.errors import SettingsError
from backend.projects.export.near_duplicates import near_groups
from backend.projects.export.splits import (
    Shares,
    Split,
    SplitFile,
    SplitImage,
    split_images,
)

SHARES = Shares(0.5, 0.25, 0.25)
NEAR = 0.95


def direction(degrees: float) -> NDArray[np.float16]:
    """Embeddings on a circle: 18 degrees apart is a cosine of 0.951."""
    radians = np.deg2rad(degrees)
    return np.array([np.cos(radians), np.sin(radians)]).astype(np.float16)


def image(task: int) -> SplitImage:
    return SplitImage(task, f"/data/{task}.jpg", f"key-{task}")


def split(places: Mapping[int, float], before: SplitFile) -> dict[int, Split]:
    """Task -> split, of tasks whose embeddings point so many degrees upwards; remembered."""
    embeddings = {f"key-{task}": direction(degrees) for task, degrees in places.items()}
    found = split_images([image(task) for task in places], embeddings, NEAR, SHARES, before)
    before.write(before.path, found.of)
    return {one.task: of for one, of in found.of.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "splits.csv"


def different(file: Path) -> tuple[int, int]:
    """Two tasks that fall into different splits by their hashes."""
    tasks = {number: SHARES.of(f"key-{number}") for number in range(1, 30)}
    first = 1
    return first, next(number for number in tasks if tasks[number] != tasks[first])


def test_hashes_give_the_shares_and_need_nothing_else(file: Path):
    images = [image(task) for task in range(2000)]
    found = split_images(images, {}, NEAR, Shares.parse("80/10/10"), SplitFile(file))
    counts = Counter(found.of.values())
    assert counts[Split.TRAIN] == pytest.approx(1600, abs=60)
    assert counts[Split.TEST] == pytest.approx(200, abs=45)
    assert split_images(images, {}, NEAR, Shares.parse("8,1,1"), SplitFile(file)) == found


@pytest.mark.parametrize(
    "text", ["", "80", "80/20", "a/b/c", "0/0/0", "-1/1/1", "inf/1/1", "1/1/1/1"]
)
def test_shares_that_are_none_are_refused(text: str):
    with pytest.raises(SettingsError, match="--split"):
        Shares.parse(text)


def test_near_duplicates_are_in_one_split_through_chains_too(file: Path):
    first, other = different(file)
    found = split({first: 0, other: 10, 40: 20, 41: 30, 42: 180}, SplitFile(file))
    assert {found[task] for task in (first, other, 40, 41)} == {SHARES.of(f"key-{first}")}


def test_a_new_image_near_to_two_splits_is_set_aside_and_moves_none(file: Path):
    first, other = different(file)
    before = split({first: 0, other: 30}, SplitFile(file))
    assert before[first] != before[other]
    after = split({first: 0, other: 30, 50: 15, 51: 3, 52: 27}, SplitFile(file))
    assert {task: after[task] for task in before} == before
    assert {after[task] for task in (50, 51, 52)} == {Split.ASIDE}
    # What is set aside stays so, and holds nothing together.
    later = split({first: 0, other: 30, 50: 15, 51: 3, 60: -15}, SplitFile(file))
    assert later == {**before, 50: Split.ASIDE, 51: Split.ASIDE, 60: before[first]}


def test_an_image_keeps_its_split_when_others_go_shares_change_or_it_is_imported_again(file: Path):
    tasks = {task: 90.0 * task for task in range(1, 4)}
    tasks |= {10: 92.0}
    before = split(tasks, SplitFile(file))
    assert before[10] == before[1]
    # The oldest of a group is gone; the encoder is another one, to which all images differ.
    found = split_images(
        [image(10), SplitImage(99, "/data/again.jpg", "key-10"), SplitImage(98, "/data/2.jpg", "")],
        {},
        NEAR,
        Shares(0.0, 0.0, 1.0),
        SplitFile(file),
    )
    assert {one.task: of for one, of in found.of.items()} == {
        10: before[10],
        99: before[10],
        98: before[2],
    }


def test_equal_images_and_the_images_of_one_task_are_in_one_split(file: Path):
    images = [SplitImage(task, f"/data/{task}-{n}.jpg", "") for task in range(40) for n in (1, 2)]
    images += [SplitImage(100 + n, f"/copy/{n}.jpg", "same") for n in range(20)]
    found = split_images(images, {}, NEAR, SHARES, SplitFile(file)).of
    assert all(len({found[one] for one in images if one.task == task}) == 1 for task in range(40))
    assert len({split for one, split in found.items() if one.key == "same"}) == 1
    assert len(set(found.values())) == 3


@pytest.mark.parametrize(
    "content",
    ["image,split\na,train\n", "image,key,split\na,b,nothing\n", 'image,key,split\n"a', "\0"],
)
def test_a_file_with_something_else_is_refused_and_not_written_over(file: Path, content: str):
    file.write_text(content)
    with pytest.raises(SettingsError, match="splits") as caught:
        SplitFile(file)
    assert "--splits" in caught.value.fix
    assert file.read_text() == content


def test_groups_are_those_of_comparing_each_image_with_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.projects.export.near_duplicates.ROWS", 7)
    monkeypatch.setattr("backend.projects.export.near_duplicates.COLUMNS", 5)
    rows = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[50] = rows[3]
    groups = near_groups(rows.astype(np.float16), 0.97)
    near = rows @ rows.T >= 0.97
    reach = np.linalg.matrix_power(near.astype(np.float64), 60) > 0
    assert np.array_equal(groups, reach.argmax(axis=1))
    assert near_groups(rows.astype(np.float16), 1.0)[50] == 3
    assert len(near_groups(np.zeros((0, 4), np.float16), 0.9)) == 0
