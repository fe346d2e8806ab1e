"""Score files as the store keeps them: written once, merged, purged, checked, bounded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from backend.errors import StoreError
from backend.storage.artifacts import Artifacts
from backend.storage.check import check_store
from backend.storage.prediction_log import PredictionLog
from backend.storage.score_files import MERGED_FROM, ControlScores, Part, ScoreFiles
from backend.storage.store import Store

PROJECT, VERSION = "7.1795416973", "clip-vlpl-1"
LABELS = ("cat", "dog")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def files(store: Store) -> ScoreFiles:
    return ScoreFiles(store)


def part(tasks: Sequence[int], value: float = 0.25) -> Part:
    probabilities = np.full((len(tasks), 2), value, dtype=np.float32)
    return {"tags": ControlScores.of(LABELS, (0.5, 0.6), tasks, probabilities)}


def add(files: ScoreFiles, given: Part, version: str = VERSION) -> None:
    files.add(PROJECT, version, lambda: given)


def on_disk(store: Store) -> list[Path]:
    return sorted(Path(store.uri, "scores").rglob("*.safetensors"))


def test_what_is_written_is_read_back_by_ascending_task(files: ScoreFiles):
    add(files, {**part([5, 2, 9]), **{"other": part([2])["tags"]}})
    read = files.read(PROJECT, VERSION)
    assert [*read] == ["tags", "other"]
    scores = read["tags"]
    assert (scores.labels, scores.thresholds) == (LABELS, (0.5, 0.6))
    assert scores.tasks.tolist() == [2, 5, 9] and scores.probabilities.tolist() == [[0.25] * 2] * 3
    assert files.tasks(PROJECT, VERSION) == {"tags": {2, 5, 9}, "other": {2}}
    assert files.read(PROJECT, "another") == {} == files.read("8.1", VERSION)


def test_the_last_scores_of_a_task_count(files: ScoreFiles):
    add(files, part([1, 2, 3]))
    add(files, part([2], 0.75))
    scores = files.read(PROJECT, VERSION)["tags"]
    assert scores.probabilities[:, 0].tolist() == [0.25, 0.75, 0.25]


def test_a_file_a_task_does_not_happen(files: ScoreFiles, store: Store):
    for task in range(1, 40):
        add(files, part([task], task / 64))
    assert len(on_disk(store)) < MERGED_FROM
    scores = files.read(PROJECT, VERSION)["tags"]
    assert scores.tasks.tolist() == [*range(1, 40)]
    assert scores.probabilities[:, 1].tolist() == [task / 64 for task in range(1, 40)]


def test_nothing_to_keep_makes_no_file(files: ScoreFiles, store: Store):
    add(files, {})
    add(files, part([]))
    assert on_disk(store) == []


def test_what_is_kept_is_on_the_same_side_of_the_thresholds_as_what_was_shown():
    random = np.random.default_rng(0)
    shown = random.random((500, 40), dtype=np.float32)
    # Fitted thresholds are probabilities of some task.
    thresholds = [float(shown[number, number]) for number in range(40)]
    thresholds[0], shown[:2, 0] = 0.5, (0.49999, 0.5)
    labels = [f"label {number}" for number in range(40)]
    kept = ControlScores.of(labels, thresholds, range(500), shown).probabilities
    assert kept.dtype == np.float16
    assert np.array_equal(kept >= np.array(thresholds), shown >= np.array(thresholds))
    assert np.abs(kept - shown).max() < 0.0005
    assert ControlScores.of(["a"], [1.0], [1], np.ones((1, 1), "f4")).probabilities == 1.0


def test_a_part_takes_two_bytes_a_probability_and_eight_a_task(files: ScoreFiles, store: Store):
    labels = [f"label {number}" for number in range(80)]
    probabilities = np.random.default_rng(0).random((5000, 80), dtype=np.float32)
    add(files, {"tags": ControlScores.of(labels, [0.5] * 80, range(5000), probabilities)})
    (file,) = on_disk(store)
    assert 5000 * (2 * 80 + 8) < file.stat().st_size < 5000 * (2 * 80 + 8) + 8192


def test_only_some_versions_are_kept(files: ScoreFiles, store: Store):
    for version in ("a", "b", "c"):
        add(files, part([1]), version)
    files.keep(PROJECT, {"c", "b"})
    assert [file.parent.name for file in on_disk(store)] == ["b", "c"]


def test_a_purged_task_leaves_no_score_and_others_stay(files: ScoreFiles, store: Store):
    add(files, part([1, 2]))
    add(files, part([3]))
    add(files, part([4, 5]))
    untouched = on_disk(store)[2].stat().st_mtime_ns
    PredictionLog(store).purge(PROJECT, [2, 3])
    assert files.tasks(PROJECT, VERSION) == {"tags": {1, 4, 5}}
    assert len(on_disk(store)) == 2 and on_disk(store)[1].stat().st_mtime_ns == untouched


def test_a_purged_project_leaves_none(files: ScoreFiles, store: Store):
    add(files, part([1, 2]))
    files.add("71.5", VERSION, lambda: part([1]))
    PredictionLog(store).purge("7.")
    assert [file.parent.parent.name for file in on_disk(store)] == ["71.5"]


@pytest.mark.parametrize("damage", [b"", b"no scores", None])
def test_a_damaged_file_is_named_and_its_tasks_are_scored_again(
    files: ScoreFiles, store: Store, damage: bytes | None, caplog: pytest.LogCaptureFixture
):
    add(files, part([1, 2]))
    add(files, part([3]))
    file = on_disk(store)[0]
    file.write_bytes(file.read_bytes()[:300] if damage is None else damage)
    with pytest.raises(StoreError, match=file.name) as caught:
        files.read(PROJECT, VERSION)
    assert "next run" in caught.value.fix
    with caplog.at_level(logging.WARNING):
        assert files.tasks(PROJECT, VERSION) == {"tags": {3}}
    assert file.name in caplog.text and not file.exists()


def test_a_damaged_file_is_no_reason_not_to_forget(files: ScoreFiles, store: Store):
    add(files, part([1, 2]))
    (file,) = on_disk(store)
    file.write_bytes(b"no scores")
    PredictionLog(store).purge(PROJECT, [1])
    assert not file.exists()


def test_a_repair_deletes_what_the_next_run_makes_again(files: ScoreFiles, store: Store):
    add(files, part([1, 2]))
    assert [*check_store(store)] == []
    (file,) = on_disk(store)
    file.write_bytes(file.read_bytes()[:100])
    (problem,) = check_store(store)
    assert problem.place.startswith(f"scores/{PROJECT}/") and "--repair" in problem.fix
    (repaired,) = check_store(store, repair=True)
    assert "next run" in repaired.repaired and not file.exists()
    assert [*check_store(store)] == []


def test_damage_does_not_stop_what_is_added(files: ScoreFiles, store: Store):
    for task in range(MERGED_FROM - 1):
        add(files, part([task]))
    on_disk(store)[3].write_bytes(b"no scores")
    add(files, part([90]))
    assert files.tasks(PROJECT, VERSION) == {"tags": {0, 1, 2, 4, 5, 6, 90}}


def test_one_flipped_byte_is_damage(files: ScoreFiles, store: Store):
    add(files, part([1, 2]))
    (file,) = on_disk(store)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="checksum"):
        files.read(PROJECT, VERSION)


def test_a_reader_is_not_troubled_by_files_that_are_merged_meanwhile(
    files: ScoreFiles, store: Store, monkeypatch: pytest.MonkeyPatch
):
    for task in range(MERGED_FROM - 1):
        add(files, part([task]))
    read = Artifacts.read_bytes
    merged: list[bool] = []

    def merging(self: Artifacts, file: str, most: int | None = None) -> bytes | None:
        if not merged and file.endswith(".safetensors"):
            merged.append(True)
            add(ScoreFiles(store), part([90]))
        return read(self, file, most)

    monkeypatch.setattr(Artifacts, "read_bytes", merging)
    assert files.read(PROJECT, VERSION)["tags"].tasks.tolist() == [*range(MERGED_FROM - 1), 90]
    assert merged


@pytest.mark.parametrize("tasks", [[1], None])
def test_a_purge_waits_for_a_writer(files: ScoreFiles, store: Store, tasks: list[int] | None):
    add(files, part([7]))
    purge = threading.Thread(target=lambda: PredictionLog(store).purge(PROJECT, tasks))

    def make() -> Part:
        purge.start()
        time.sleep(0.5)
        return part([1])

    files.add(PROJECT, VERSION, make)
    purge.join()
    assert files.tasks(PROJECT, VERSION) == ({} if tasks is None else {"tags": {7}})


def test_a_draft_of_a_writer_that_died_goes_with_the_task(files: ScoreFiles, store: Store):
    add(files, part([7]))
    (file,) = on_disk(store)
    draft = file.with_name(f"{file.name}.{'0' * 32}")
    draft.write_bytes(b"scores of task 1")
    PredictionLog(store).purge(PROJECT, [1])
    assert not draft.exists() and file.exists()


def test_what_an_interrupted_purge_has_left_can_be_erased(
    files: ScoreFiles, store: Store, monkeypatch: pytest.MonkeyPatch
):
    log = PredictionLog(store)
    add(files, part([1, 2]))
    assert log.has("7.", [1]) and not log.has("7.", [3])
    log.purge("7.", [1])
    assert not log.has("7.", [1]) and log.has("7.", [2])
