"""The prediction log: what tasks were shown is recorded, and what is purged leaves the disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from backend.inference.prediction import Prediction, logged
from backend.storage import maintenance
from backend.storage.prediction_log import PredictionLog
from backend.storage.store import Store
from backend.storage.validators import StoredValidators, ValidatorRows
from backend.storage.vectors import Embedding, NewEmbedding, content_key

ENCODER, DIM = "an-encoder", 8
PROJECT, OTHER = "1.1795416973", "2.1795416999"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def prediction_log(store: Store) -> PredictionLog:
    return PredictionLog(store)


def shown(task: int | None, *labels: str, version: str = "clip-z-1") -> Prediction:
    choices = {
        "from_name": "tags",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(labels)},
    }
    evidence = {
        "from_name": "clip_evidence",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["suggested: ..."]},
    }
    return Prediction(task, version, [choices, evidence] if labels else [evidence], 0.5)


def embed(store: Store, *addresses: str, content: str = "") -> None:
    rows = [
        NewEmbedding(
            address,
            content_key((content or address).encode()),
            Embedding.of(np.ones(DIM, np.float16), np.ones((9, DIM), np.float16)),
        )
        for address in addresses
    ]
    store.vectors.add(ENCODER, DIM, rows)


def embedded(store: Store, *addresses: str) -> set[str]:
    keys = store.vectors.keys_of(addresses)
    known = store.vectors.has(ENCODER, DIM, keys.values())
    return {address for address, key in keys.items() if key in known}


def on_disk(store: Store, text: str) -> list[Path]:
    files = [path for path in Path(store.uri).rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


def test_what_a_task_was_shown_is_known_by_version(prediction_log: PredictionLog):
    prediction_log.add(
        PROJECT, logged([shown(1, "cat", "犬"), shown(2), shown(1, "dog", version="clip-h-2")])
    )
    shown_to = prediction_log.of_tasks(PROJECT, [1, 2, 3])
    assert shown_to[1, "clip-z-1"].choices == {"tags": ["cat", "犬"]}
    assert shown_to[1, "clip-h-2"].choices == {"tags": ["dog"]}
    assert shown_to[2, "clip-z-1"].choices == {}
    assert len(shown_to) == 3
    assert prediction_log.of_tasks(OTHER, [1]) == {}


def test_a_prediction_without_a_result_or_a_task_is_not_recorded(prediction_log: PredictionLog):
    prediction_log.add(PROJECT, logged([Prediction(1, "v", None, None), shown(None, "cat")]))
    assert prediction_log.of_tasks(PROJECT, [1]) == {}


def test_images_of_a_task_are_linked_once(store: Store, prediction_log: PredictionLog):
    for _ in range(3):
        prediction_log.link_images(PROJECT, [(1, "a.jpg"), (1, "a.jpg"), (2, "b.jpg")])
    embed(store, "a.jpg", "b.jpg")
    assert prediction_log.purge(PROJECT).images == 2


def test_a_purged_task_leaves_the_disk_and_the_others_stay(
    store: Store, prediction_log: PredictionLog
):
    prediction_log.link_images(PROJECT, [(1, "secret-a.jpg"), (2, "b.jpg")])
    prediction_log.add(PROJECT, logged([shown(1, "secret-label"), shown(2, "cat")]))
    embed(store, "secret-a.jpg", "b.jpg")
    assert on_disk(store, "secret-a") and on_disk(store, "secret-label")

    gone = prediction_log.purge(PROJECT, [1])

    assert (gone.images, gone.predictions) == (1, 1)
    assert embedded(store, "secret-a.jpg", "b.jpg") == {"b.jpg"}
    assert prediction_log.of_tasks(PROJECT, [1, 2]).keys() == {(2, "clip-z-1")}
    assert on_disk(store, "secret-a") == []
    assert on_disk(store, "secret-label") == []


def test_a_purge_that_empties_the_tables_leaves_no_name_on_the_disk(
    store: Store, prediction_log: PredictionLog
):
    """Lance writes the condition of a deletion into the table's manifest."""
    prediction_log.link_images(PROJECT, [(1, "secret-a.jpg")])
    prediction_log.add(PROJECT, logged([shown(1, "secret-label")]))
    embed(store, "secret-a.jpg")
    prediction_log.purge(PROJECT, [1])
    assert on_disk(store, "secret") == []
    assert on_disk(store, content_key(b"secret-a.jpg")) == []


@pytest.mark.parametrize("after", range(8))
def test_a_purge_that_is_interrupted_can_be_repeated(
    store: Store, prediction_log: PredictionLog, monkeypatch: pytest.MonkeyPatch, after: int
):
    prediction_log.link_images(PROJECT, [(1, "secret-a.jpg"), (2, "b.jpg")])
    prediction_log.add(PROJECT, logged([shown(1, "secret-label"), shown(2, "cat")]))
    embed(store, "secret-a.jpg", "b.jpg")
    validators = ValidatorRows(store.tables)
    validators.add([StoredValidators("secret-a.jpg", content_key(b"secret-a.jpg"), "e", "", 1)])
    calls = 0

    erase = maintenance._erase_rows

    def interrupted(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        erase(*given)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(maintenance, "_erase_rows", interrupted)
        prediction_log.purge(PROJECT, [1])
    prediction_log.purge(PROJECT, [1])
    assert on_disk(store, "secret") == []
    assert on_disk(store, content_key(b"secret-a.jpg")) == []
    assert embedded(store, "secret-a.jpg", "b.jpg") == {"b.jpg"}


def test_what_a_lost_table_of_addresses_led_to_is_erased_through_the_validators(
    store: Store, prediction_log: PredictionLog
):
    prediction_log.link_images(PROJECT, [(1, "secret-a.jpg")])
    embed(store, "secret-a.jpg")
    key = content_key(b"secret-a.jpg")
    ValidatorRows(store.tables).add([StoredValidators("secret-a.jpg", key, "e", "", 1)])
    store.tables.database.drop_table("addresses")
    again = Store(store.uri)
    PredictionLog(again).purge(PROJECT, [1])
    assert on_disk(again, "secret") == [] and on_disk(again, key) == []


def test_an_image_that_another_task_has_too_stays(store: Store, prediction_log: PredictionLog):
    prediction_log.link_images(PROJECT, [(1, "a.jpg")])
    prediction_log.link_images(OTHER, [(9, "a.jpg")])
    embed(store, "a.jpg")
    assert prediction_log.purge(PROJECT).images == 0
    assert embedded(store, "a.jpg") == {"a.jpg"}
    assert prediction_log.purge(OTHER).images == 1
    assert embedded(store, "a.jpg") == set()


def test_the_same_file_at_another_address_keeps_its_embedding(
    store: Store, prediction_log: PredictionLog
):
    prediction_log.link_images(PROJECT, [(1, "a.jpg"), (2, "copy.jpg")])
    embed(store, "a.jpg", "copy.jpg", content="same bytes")
    assert prediction_log.purge(PROJECT, [1]).images == 0
    assert embedded(store, "a.jpg", "copy.jpg") == {"copy.jpg"}


def test_a_purged_project_takes_its_statistics_along(store: Store, prediction_log: PredictionLog):
    store.artifacts.write(f"statistics/{PROJECT}/x", {"a": 1})
    store.artifacts.write(f"statistics/{OTHER}/x", {"a": 1})
    prediction_log.link_images(PROJECT, [(1, "a.jpg")])
    embed(store, "a.jpg")
    assert prediction_log.purge("1.").images == 1
    assert store.artifacts.read(f"statistics/{PROJECT}/x") is None
    assert store.artifacts.read(f"statistics/{OTHER}/x") == {"a": 1}


@pytest.mark.parametrize("project", ["", ".", "1.' OR '1'='1", "%", "1.1795416973x"])
def test_a_key_that_matches_no_project_purges_nothing(
    store: Store, prediction_log: PredictionLog, project: str
):
    prediction_log.link_images(PROJECT, [(1, "a.jpg")])
    embed(store, "a.jpg")
    gone = prediction_log.purge(project)
    assert (gone.images, gone.predictions) == (0, 0)
    assert embedded(store, "a.jpg") == {"a.jpg"}


def test_purging_what_is_not_there_is_no_error(prediction_log: PredictionLog):
    gone = prediction_log.purge(PROJECT, [1, 2])
    assert (gone.images, gone.predictions) == (0, 0)


def test_another_process_goes_on_writing_during_a_purge(
    store: Store, prediction_log: PredictionLog
):
    other = Store(store.uri)
    prediction_log.link_images(PROJECT, [(1, "a.jpg")])
    embed(store, "a.jpg")
    embed(other, "b.jpg")
    prediction_log.purge(PROJECT)
    embed(other, "c.jpg")
    assert embedded(other, "a.jpg", "b.jpg", "c.jpg") == {"b.jpg", "c.jpg"}


def test_the_log_of_the_first_release_is_read_and_purged_with_the_new_one(
    store: Store, prediction_log: PredictionLog
):
    old = pa.table(
        {
            "project": [PROJECT] * 2,
            "task": [1, 2],
            "model_version": ["clip-z-1"] * 2,
            "score": [0.5, 0.5],
            "choices": ['{"tags": ["cat"]}'] * 2,
        }
    )
    store.tables.append("snapshots", old)
    prediction_log.add(PROJECT, logged([shown(2, "dog"), shown(3, "dog")]))
    found = prediction_log.of_tasks(PROJECT, [1, 2, 3])
    assert {task: entry.choices for (task, _), entry in found.items()} == {
        1: {"tags": ["cat"]},
        2: {"tags": ["dog"]},
        3: {"tags": ["dog"]},
    }
    # Nobody knows when the second was shown first.
    assert [found[task, "clip-z-1"].shown_at is None for task in (1, 2, 3)] == [True, True, False]
    assert prediction_log.purge(PROJECT, [1, 2]).predictions == 3
    assert not prediction_log.has(PROJECT, [1, 2])
    assert prediction_log.has(PROJECT, [3])


def test_a_version_was_shown_from_its_first_entry_on(
    prediction_log: PredictionLog, monkeypatch: pytest.MonkeyPatch
):
    for moment in (200.0, 100.0, 300.0):
        monkeypatch.setattr("backend.storage.prediction_log.time.time", lambda at=moment: at)
        prediction_log.add(PROJECT, logged([shown(1, "cat")]))
    (entry,) = prediction_log.of_tasks(PROJECT, [1]).values()
    assert entry.shown_at == 100.0
