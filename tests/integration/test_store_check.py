"""Damage in a store: found, named with the way back, and repaired where that can be."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from backend.errors import StoreError
from backend.storage.artifacts import DamagedArtifactError
from backend.storage.check import DRAFT_SECONDS, check_store
from backend.storage.head_registry import ZERO_SHOT, DamagedHeadError, HeadRegistry
from backend.storage.prediction_log import LoggedPrediction, PredictionLog
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding
from tests.support.heads import head_set

KEY = "7.1700000000"
ENCODER, DIM = "e", 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Store:
    store = Store(str(folder))
    for number in range(3):
        store.vectors.add(ENCODER, DIM, [row(number)])
    log = PredictionLog(store)
    log.add(KEY, [LoggedPrediction(3, "v", 0.5, None)])
    registry = HeadRegistry(store)
    for name in ("h1", "h2"):
        registry.save(KEY, head_set(name))
        registry.set_serving(KEY, name)
    return store


def row(number: int, value: float = 1.0) -> NewEmbedding:
    embedding = Embedding.of(np.full(DIM, value), np.ones((9, DIM)))
    return NewEmbedding(f"{number}.jpg", f"key{number}", embedding)


def problems(store: Store, repair: bool = False) -> list[tuple[str, bool]]:
    """Place, and whether something is left to do."""
    return [(problem.place, bool(problem.fix)) for problem in check_store(store, repair)]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def table_of(folder: Path, prefix: str) -> Path:
    (table,) = folder.glob(f"{prefix}*.lance")
    return table


def test_an_intact_store_has_no_problems(store: Store):
    assert problems(store) == []
    assert problems(store, repair=True) == []


@pytest.mark.parametrize("prefix", ["vectors_", "addresses"])
def test_a_table_of_embeddings_that_cannot_be_read_is_begun_anew(
    store: Store, folder: Path, prefix: str
):
    for file in (table_of(folder, prefix) / "data").iterdir():
        truncate(file)
    (found,) = problems(Store(str(folder)))
    assert found == (table_of(folder, prefix).stem, True)
    assert problems(Store(str(folder)), repair=True) == [(found[0], False)]
    again = Store(str(folder))
    assert problems(again) == []
    again.vectors.add(ENCODER, DIM, [row(1)])
    assert again.vectors.keys_of(["1.jpg"]) == {"1.jpg": "key1"}
    assert set(again.vectors.embeddings(ENCODER, DIM, ["key1"])) == {"key1"}
    # Nothing is thrown away.
    assert list((folder / "damaged").iterdir())


def test_a_table_goes_back_to_its_last_intact_version(store: Store, folder: Path):
    table = table_of(folder, "shown")
    before = set((table / "data").iterdir())
    PredictionLog(store).add(KEY, [LoggedPrediction(4, "v", 0.5, None)])
    (last,) = set((table / "data").iterdir()) - before
    truncate(last)
    assert problems(Store(str(folder)), repair=True) == [("shown", False)]
    assert set(PredictionLog(Store(str(folder))).of_tasks(KEY, [3, 4])) == {(3, "v")}


def test_a_log_that_cannot_be_read_is_left_for_a_backup(store: Store, folder: Path):
    for file in (table_of(folder, "shown") / "data").iterdir():
        truncate(file)
    (problem,) = check_store(Store(str(folder)), repair=True)
    assert problem.place == "shown"
    assert "backup" in problem.fix
    assert table_of(folder, "shown").is_dir()


def test_embeddings_that_are_not_finite_are_deleted(store: Store, folder: Path):
    # LanceDB refuses to append them, so the bytes are changed on the disk.
    store.vectors.add(ENCODER, DIM, [row(4, 3.0)])
    one, nan = np.float16(3.0).tobytes() * DIM, np.float16(np.nan).tobytes() * DIM
    for file in (table_of(folder, "vectors_") / "data").iterdir():
        file.write_bytes(file.read_bytes().replace(one, nan))
    (problem,) = check_store(Store(str(folder)), repair=True)
    assert "not finite" in problem.what
    assert not problem.fix
    assert problems(Store(str(folder))) == []
    assert not store.vectors.embeddings(ENCODER, DIM, ["key4"])


def test_damaged_statistics_are_measured_anew(store: Store, folder: Path):
    store.artifacts.write(f"statistics/{KEY}/s", {"n": 1})
    place = f"statistics/{KEY}/s"
    generation = store.generation.current()
    assert problems(store) == [(place, True)]
    assert problems(store, repair=True) == [(place, False)]
    assert store.artifacts.read(place) is None
    assert store.generation.current() != generation


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("renames", '{"controls": {"tags": [{"old": 1, "new": []}]}}'),
        ("renames", '{"controls": 5}'),
        ("renames", "{}"),
        ("labels", '{"tags": null}'),
        ("labels", '{"tags": {"cat": "old"}}'),
        ("trained-on", '{"tasks": 5}'),
        ("former-labels", '{"gone": 5}'),
        ("former-labels", '{"began": 0, "gone": {"tags": {"cat": {"since": "x"}}}}'),
    ],
)
def test_a_file_of_another_shape_is_named_as_its_readers_name_it(
    store: Store, folder: Path, name: str, content: str
):
    path = folder / "projects" / KEY / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    (problem,) = check_store(store)
    assert problem.place == f"projects/{KEY}/{name}.json"
    assert str(path) in problem.what and "elete it" in problem.fix


def test_what_dead_processes_left_is_deleted_and_what_is_being_written_is_not(
    store: Store, folder: Path
):
    old, new = (folder / "projects" / KEY / f"serving.json.{letter * 32}" for letter in "ab")
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (0, time.time() - DRAFT_SECONDS - 60))
    assert problems(store, repair=True) == [(str(old.relative_to(folder)), False)]
    assert not old.exists()
    assert new.exists()


# Heads and the pointer to the one that serves


def test_the_last_intact_head_serves_and_the_log_says_so(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
):
    truncate(folder / "heads" / KEY / "h2.json")
    registry = HeadRegistry(Store(str(folder)))
    assert registry.serving(KEY) == "h1"
    assert "h2" in caplog.text
    assert "ls-clip rollback 7 h1" in caplog.text
    assert set(registry.damage(KEY)) == {"h2"}
    with pytest.raises(DamagedHeadError, match=r"h2\.json"):
        registry.get(KEY, "h2")
    (folder / "heads" / KEY / "h1.json").unlink()
    assert HeadRegistry(Store(str(folder))).serving(KEY) == ZERO_SHOT
    ((place, fix),) = [(p.place, p.fix) for p in check_store(store) if p.place.startswith("heads")]
    assert place == f"heads/{KEY}/h2"
    assert "backup" in fix


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "7", '{"history": [1]}', '{"history": "h1"}', '{"accepted": 1}']
)
def test_a_damaged_pointer_is_read_from_its_copy_and_repaired(
    store: Store, folder: Path, content: str, caplog: pytest.LogCaptureFixture
):
    pointer = folder / "projects" / KEY / "serving.json"
    pointer.write_text(content)
    registry = HeadRegistry(Store(str(folder)))
    assert registry.history(KEY) == [ZERO_SHOT, "h1", "h2"]
    assert "serving.json" in caplog.text
    place = f"projects/{KEY}/serving"
    assert problems(store) == [(place, True)]
    assert problems(store, repair=True) == [(place, False)]
    assert json.loads(pointer.read_text())["history"] == [ZERO_SHOT, "h1", "h2"]


def test_a_pointer_without_an_intact_copy_names_the_file_and_the_way_back(
    store: Store, folder: Path
):
    for name in ("serving", "serving-copy"):
        (folder / "projects" / KEY / f"{name}.json").write_text("[]")
    registry = HeadRegistry(store)
    with pytest.raises(DamagedArtifactError, match=r"serving\.json") as caught:
        registry.serving(KEY)
    assert "ls-clip rollback 7 HEAD" in caught.value.fix
    assert problems(store, repair=True) == [(f"projects/{KEY}/serving", True)]
    registry.set_serving(KEY, "h1", rollback=True)
    assert registry.serving(KEY) == "h1"
    assert problems(store) == []


def test_a_pointer_to_a_head_that_is_gone_is_found(store: Store, folder: Path):
    (folder / "heads" / KEY / "h2.json").unlink()
    assert problems(store) == [(f"projects/{KEY}/serving", True)]
    with pytest.raises(StoreError, match="no head"):
        HeadRegistry(store).set_serving(KEY, "h2")
