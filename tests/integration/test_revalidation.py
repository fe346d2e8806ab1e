"""Runs that ask whether images were replaced: what is fetched, encoded, corrected and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tenacity import wait_none

from backend.inference.embedder import Embedder
from backend.runtime import Runtime
from backend.storage.maintenance import dedupe, erase_images
from backend.storage.store import Store
from jobs.local_run import run_locally
from jobs.run import Run, Scope, Trigger
from tests.support.builders import data_uri, photo, png_bytes
from tests.support.fixtures import MakeRuntime
from tests.support.hosted import Hosted, serving
from tests.support.http_server import Server
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

COUNT = 20


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def files(server: Server) -> list[Hosted]:
    """One file per task, number 0 belongs to task 1."""
    files = [Hosted(png_bytes(photo(n)), f'"{n}"') for n in range(COUNT)]
    for number, file in enumerate(files):
        server.routes[f"/{number}.png"] = file
    return files


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime,
    studio: StubStudio,
    server: Server,
    files: list[Hosted],
    monkeypatch: pytest.MonkeyPatch,
) -> Runtime:
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())
    studio.tasks = {n + 1: {"image": f"{server.url}/{n}.png"} for n in range(COUNT)}
    return make_runtime(
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        allowed_hosts="127.0.0.1",
        batch_size=2,
        shard_size=16,
    )


def predict(runtime: Runtime, revalidate: bool = True) -> tuple[Run, dict[int, Any]]:
    return run_locally(
        runtime, PROJECT, Scope.ALL, Trigger.CONNECT, lambda run: None, revalidate=revalidate
    )


def replace(file: Hosted, seed: int) -> None:
    file.body, file.etag = png_bytes(photo(seed)), f'"{seed}"' if file.etag else ""


def contents(studio: StubStudio) -> dict[int, str]:
    return {one["task"]: json.dumps([one["score"], one["result"]]) for one in studio.predictions}


def stored_keys(runtime: Runtime, studio: StubStudio) -> set[str]:
    values = [data["image"] for data in studio.tasks.values()]
    return set(runtime.store.vectors.keys_of(values).values())


def encoded(runtime: Runtime) -> int:
    return int(runtime.encoder.images)  # type: ignore[attr-defined]


def test_only_the_task_whose_image_was_replaced_gets_another_suggestion_in_place(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    first, _ = predict(runtime, revalidate=False)
    before, images = contents(studio), encoded(runtime)
    numbers = [one["id"] for one in studio.predictions]
    earlier = stored_keys(runtime, studio)
    replace(files[2], 100)
    run, failures = predict(runtime)
    after = contents(studio)
    assert len(stored_keys(runtime, studio) & earlier) == COUNT - 1
    encoder = runtime.encoder
    assert len(runtime.store.vectors.has(encoder.id, encoder.dim, earlier)) == COUNT - 1
    assert (run.revalidated, run.changed, run.rewritten, run.imported) == (COUNT, 1, 1, 0)
    assert failures == {} and encoded(runtime) == images + 1
    assert [task for task in after if after[task] != before[task]] == [3]
    assert [one["id"] for one in studio.predictions] == numbers
    assert run.model_version == first.model_version == studio.shown
    logged = runtime.prediction_log.of_tasks(KEY, [3])[3, run.model_version]
    assert logged.score == next(one["score"] for one in studio.predictions if one["task"] == 3)
    assert [status for status, _ in files[0].answers] == [200, 304]
    again, _ = predict(runtime)
    assert (again.changed, again.rewritten, again.notes) == (0, 0, ())


def test_without_revalidation_no_host_is_asked(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    replace(files[2], 100)
    run, _ = predict(runtime, revalidate=False)
    assert [len(file.answers) for file in files] == [1] * COUNT
    assert (run.revalidated, run.changed) == (0, 0)


@pytest.mark.parametrize("changed", [False, True])
def test_where_a_host_says_nothing_the_content_decides(
    runtime: Runtime, studio: StubStudio, files: list[Hosted], changed: bool
) -> None:
    for file in files:
        file.etag, file.sized = "", False
    predict(runtime)
    if changed:
        replace(files[0], 100)
    images = encoded(runtime)
    run, _ = predict(runtime)
    assert (run.revalidated, run.changed, run.rewritten) == (COUNT, *[int(changed)] * 2)
    assert encoded(runtime) == images + changed


def test_a_new_etag_on_the_same_content_is_read_once_and_then_remembered(
    runtime: Runtime, files: list[Hosted]
) -> None:
    predict(runtime)
    images = encoded(runtime)
    files[0].etag = '"moved"'
    for _ in range(2):
        run, _ = predict(runtime)
        assert (run.revalidated, run.changed, encoded(runtime)) == (COUNT, 0, images)
    assert [status for status, _ in files[0].answers] == [200, 200, 304]


def test_an_annotated_task_keeps_what_its_annotator_saw_and_is_named(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    before = contents(studio)
    studio.annotated = {3}
    replace(files[2], 100)
    replace(files[3], 101)
    run, _ = predict(runtime)
    after = contents(studio)
    assert [task for task in after if after[task] != before[task]] == [4]
    assert (run.changed, run.rewritten) == (2, 1)
    assert len(run.notes) == 1 and "1 annotated task has" in run.notes[0] and ": 3." in run.notes[0]


def test_a_task_that_is_annotated_during_the_run_keeps_its_suggestion(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    before = contents(studio)
    replace(files[2], 100)

    def annotate(method: str, path: str) -> None:
        if path == "/api/predictions/":
            studio.annotated = {3}

    studio.after = annotate
    run, _ = predict(runtime)
    assert contents(studio) == before and run.rewritten == 0


def test_an_image_that_cannot_be_asked_for_keeps_its_suggestion_and_is_told(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    before = contents(studio)
    files[2].status, files[2].etag = 404, ""
    files[3].body, files[3].etag = b"not an image", '"broken"'
    run, failures = predict(runtime)
    assert {task: why["code"] for task, why in failures.items()} == {
        3: "not_found",
        4: "unsupported_format",
    }
    assert (run.failed, run.revalidated, run.changed) == (2, COUNT - 2, 0)
    assert contents(studio) == before
    found, _ = runtime.embedder.stored([studio.tasks[3]["image"]])
    assert found
    files[2].status, files[3].body = 200, png_bytes(photo(100))
    run, failures = predict(runtime)
    assert (failures, run.changed) == ({}, 1)


def test_a_run_that_ended_before_it_corrected_anything_is_made_good_by_the_next(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    before = contents(studio)
    replace(files[2], 100)
    # The new image is in the store, and Label Studio has the old suggestion.
    runtime.embedder.fill([studio.tasks[3]["image"]], revalidate=True)
    run, _ = predict(runtime)
    assert (run.changed, run.rewritten) == (0, 1)
    assert contents(studio)[3] != before[3]


def test_what_was_deleted_meanwhile_stops_nothing(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    predict(runtime)
    replace(files[2], 100)
    replace(files[3], 101)

    def delete(method: str, path: str) -> int | None:
        return 404 if path == "/api/tasks/3/annotations/" else None

    studio.before = delete
    run, failures = predict(runtime)
    assert (run.rewritten, failures) == (1, {})


def test_uploads_and_data_uris_are_not_asked_for(
    runtime: Runtime, studio: StubStudio, server: Server, files: list[Hosted]
) -> None:
    studio.tasks = {1: {"image": data_uri(1)}, 2: {"image": "/data/upload/1/ab-x.png"}}
    served: list[str] = []

    def route(method: str, path: str) -> None:
        served.append(path)

    embedder = runtime.embedder
    assert embedder._known.is_fixed(embedder.address("/data/upload/1/x.png"))
    assert embedder._known.is_fixed(embedder.address(f"{studio.url}/data/upload/1/x.png"))
    assert not embedder._known.is_fixed(embedder.address("/data/local-files/?d=x.png"))
    assert not embedder._known.is_fixed(f"{server.url}/data/upload/1/x.png")
    studio.before = route
    embedder.fill([data_uri(1)])
    assert embedder.fill([data_uri(1)], revalidate=True).revalidated == 0
    assert embedder.needs_nothing([data_uri(1)], revalidate=True)
    assert served == []


# The embedder and the store


def test_what_is_looked_up_from_memory_is_the_new_image(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    value = studio.tasks[1]["image"]
    embedder: Embedder = runtime.embedder
    old, _ = embedder.embed([value])
    assert np.array_equal(embedder.embed([value])[0][value].image, old[value].image)
    replace(files[0], 100)
    assert embedder.fill([value], revalidate=True).changed == (value,)
    assert not np.array_equal(embedder.embed([value])[0][value].image, old[value].image)


def test_an_image_that_comes_back_is_the_last_one_of_its_address(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    value, embedder = studio.tasks[1]["image"], runtime.embedder
    first = embedder.embed([value])[0][value].image
    for seed in (100, 0):
        replace(files[0], seed)
        assert embedder.fill([value], revalidate=True).changed == (value,)
    assert np.array_equal(embedder.embed([value])[0][value].image, first)
    dedupe(runtime.store, runtime.encoder.id, runtime.encoder.dim)
    assert np.array_equal(embedder.embed([value])[0][value].image, first)


def on_disk(store: Store, text: str) -> bool:
    return any(
        text.encode() in path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("deduped", [False, True])
def test_a_replaced_image_and_its_validators_are_erased_with_their_address(
    runtime: Runtime, studio: StubStudio, files: list[Hosted], deduped: bool
) -> None:
    value, store = studio.tasks[1]["image"], runtime.store
    files[0].etag = '"seen-once"'
    runtime.embedder.embed([value, studio.tasks[2]["image"]])
    old = store.vectors.keys_of([value])[value]
    files[0].body, files[0].etag = png_bytes(photo(100)), '"seen-twice"'
    runtime.embedder.fill([value], revalidate=True)
    new = store.vectors.keys_of([value])[value]
    encoder = runtime.encoder
    if deduped:
        dedupe(store, encoder.id, encoder.dim)
        assert store.vectors.has(encoder.id, encoder.dim, [old, new]) == {new}
    erase_images(store, [value])
    assert store.vectors.has(encoder.id, encoder.dim, [old, new]) == set()
    for text in (old, new, "seen-once", "seen-twice", value):
        assert not on_disk(store, text), text


def test_repeated_revalidation_does_not_make_the_store_grow(
    runtime: Runtime, studio: StubStudio, files: list[Hosted]
) -> None:
    values = [data["image"] for data in studio.tasks.values()]
    runtime.embedder.fill(values)
    keys = runtime.store.vectors.keys_of(values)
    assert len(runtime.store.validators.of(keys)) == COUNT
    before = runtime.store.tables.database.open_table("validators").count_rows()
    for _ in range(3):
        runtime.embedder.fill(values, revalidate=True)
    assert runtime.store.tables.database.open_table("validators").count_rows() == before
