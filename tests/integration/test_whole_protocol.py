"""``ls-clip compare-encoders --report``: the whole protocol on real models, as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.cli.protocol_page import protocol_page
from backend.evaluation import label_sets, simulated_project, whole_protocol
from backend.evaluation.comparison import Comparison, compare
from backend.evaluation.label_sets import Photos
from backend.vlpl import neighbours
from tests.support.builders import make_settings
from tests.support.commands import run_command
from tests.support.labelled_folder import make_labelled_folder
from tests.support.openclip import TOWERS, model_folder

LABELS = ["cat", "dog", "boat", "犬"]
IMAGES = 60


def quiet(what: str, done: int, total: int) -> None:
    """Shows no progress."""


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return make_labelled_folder(
        tmp_path / "data", LABELS, lambda number: LABELS[number % 3 :: 2], IMAGES, (64, 64)
    )


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = model_folder(tmp_path_factory.mktemp("models") / "tiny-vit", TOWERS, {})
    return f"local-dir:{folder}"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol with few images, of which some vote."""
    monkeypatch.setattr(whole_protocol, "FROM", 20)
    monkeypatch.setattr(whole_protocol, "SETS", 3)
    monkeypatch.setattr(neighbours, "WEAK_FROM", 25)
    monkeypatch.setattr(label_sets, "SIZES", (1,))
    monkeypatch.setattr(label_sets, "MIN_POSITIVES", 3)
    monkeypatch.setattr(label_sets, "MIN_PHOTOS", 10)


def compared(tmp_path: Path, labelled: Path, *encoders: str) -> Comparison:
    settings = make_settings(tmp_path / "store", precision="float32", batch_size=16)
    return compare(settings, labelled, encoders, ["none", "patches"], quiet, whole_protocol=True)


def test_each_choice_goes_through_it_with_the_labels_that_it_reads(
    small: None, tmp_path: Path, labelled: Path, vit: str
):
    found = compared(tmp_path, labelled, vit, "open_clip:nothing/here")
    assert [one.label for one in found.protocols] == [row["label"] for row in found.measured]
    assert len(found.protocols) == 2
    protocol = found.protocols[1]
    # It cannot read the last one.
    assert (protocol.images, protocol.labels) == (IMAGES, len(LABELS) - 1)
    zero_shot, curve, small_projects = protocol.sections
    assert len(zero_shot.rows) == 7
    assert [row["reviewed"] for row in curve.rows] == [0, 25]
    # The votes of similar images change what is measured.
    assert all(
        row[f"mAP, {simulated_project.Of.PROJECT}"] != row[f"mAP, {simulated_project.Of.NOBODY}"]
        for row in curve.rows
    )
    assert [row["photos"] for row in small_projects.rows] == [*Photos]
    json.dumps(found.as_dict())


def test_only_so_many_images_take_part(
    small: None,
    tmp_path: Path,
    labelled: Path,
    vit: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(whole_protocol, "UP_TO", 30)
    found = compared(tmp_path, labelled, vit)
    assert found.images == IMAGES and {one.images for one in found.protocols} == {30}
    assert whole_protocol.sample(["b", "a"]) == {"a", "b"}
    names = [str(number) for number in range(100)]
    assert len(whole_protocol.sample(names)) == 30
    assert whole_protocol.sample(names) == whole_protocol.sample(names)


def test_the_page_has_tables_and_a_block_without_anything_of_the_folder(
    small: None, tmp_path: Path, labelled: Path, vit: str
):
    found = compared(tmp_path, labelled, vit)
    page = protocol_page(found, ["the summary"])
    assert "the summary" in page
    _, block, rest = page.split("````")
    assert found.machine in block and "25 reviewed: mAP" in block and "with votes" in block
    ids = [one.encoder.replace("tiny-vit", "local") for one in found.protocols]
    assert all(one in block for one in ids)
    for private in (*LABELS, str(tmp_path), "tiny-vit", ".jpg"):
        assert private not in block
    assert rest.count("### What a project gains") == 2


def test_too_few_images_are_said(tmp_path: Path, labelled: Path, vit: str):
    found = compared(tmp_path, labelled, vit)
    assert all(not section.rows for one in found.protocols for section in one.sections)
    page = protocol_page(found, [])
    assert page.count("Too few images or labels") == 6


def test_rare_labels_make_no_small_project(
    small: None, tmp_path: Path, labelled: Path, vit: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(label_sets, "MIN_POSITIVES", IMAGES)
    found = compared(tmp_path, labelled, vit)
    assert all(one.sections[2].rows == [] and not one.sections[2].error for one in found.protocols)


def test_an_experiment_that_fails_costs_no_other(
    small: None, tmp_path: Path, labelled: Path, vit: str, monkeypatch: pytest.MonkeyPatch
):
    def failing(*_: Any) -> Any:
        raise ArithmeticError("all is lost")

    monkeypatch.setattr(whole_protocol, "learning_curve", failing)
    found = compared(tmp_path, labelled, vit)
    page = protocol_page(found, [])
    assert page.count("It failed: ArithmeticError: all is lost") == 2
    assert found.protocols[0].sections[0].rows and found.measured


def test_json_has_no_nan(small: None, tmp_path: Path, labelled: Path, vit: str):
    content = json.loads((labelled / "labels.json").read_text())
    content["images"] = {file: [] for file in content["images"]}
    (labelled / "labels.json").write_text(json.dumps(content))
    json.dumps(compared(tmp_path, labelled, vit).as_dict(), allow_nan=False)


# The command


def test_the_command_writes_the_page_and_nothing_to_the_store(
    tmp_path: Path, labelled: Path, vit: str
):
    page = tmp_path / "page.md"
    given = ("compare-encoders", str(labelled), "--encoders", vit, "--regions", "none")
    done = run_command(*given, "--report", str(page), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "### Encoders compared on labelled images" in done.stdout
    assert str(page) in done.stderr and "To paste into an issue" in page.read_text()
    again = run_command(*given, "--report", str(page), cwd=tmp_path)
    assert again.returncode == 1 and "--report" in again.stderr
    # It is said before anything is measured.
    assert "pass 1" not in again.stderr


@pytest.mark.parametrize("encoders", ["offline", " , "])
def test_a_page_is_not_left_behind_empty(tmp_path: Path, encoders: str):
    page = tmp_path / "page.md"
    done = run_command(
        *("compare-encoders", str(tmp_path), "--encoders", encoders, "--report", str(page)),
        cwd=tmp_path,
    )
    assert done.returncode == 1 and not page.exists()


def test_a_page_in_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path, labelled: Path):
    done = run_command(
        *("compare-encoders", str(labelled), "--encoders", "offline"),
        *("--report", str(tmp_path / "no" / "page.md")),
        cwd=tmp_path,
    )
    assert done.returncode == 1 and "cannot be written" in done.stderr
