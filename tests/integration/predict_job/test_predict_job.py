"""Runs from the listing to the import, in this process, while Label Studio and others misbehave."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from backend.errors import StoreError, StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.failures import UnansweredError
from backend.labelstudio.importing import Importer
from backend.labelstudio.predictions import Predictions
from backend.labelstudio.tasks import Tasks
from backend.projects.connect import run_by_workers
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.project_state import ProjectState
from jobs import enqueue, queue, shutdown
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.builders import choices_config
from tests.support.predict_job import (
    IMPORT,
    TASKS,
    THIS_PROJECT,
    add_tasks,
    begin,
    calls_of,
    now,
    nth,
)
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio


def test_an_import_that_is_repeated_still_gives_the_other_tasks_the_new_version(
    studio: StubStudio, runs: RunStore, work: Callable[[], None], again: Callable[[str], None]
) -> None:
    add_tasks(studio, *range(1, 11))
    begin(runs)
    work()
    first = studio.shown
    add_tasks(studio, *range(11, 41))
    # There are statistics from now on, so the ten need a new prediction too.
    run = begin(runs)
    studio.before = lambda method, path: 503 if path.endswith(IMPORT) else None
    work()
    assert now(runs, run).state == RunState.IMPORTING
    studio.before = lambda method, path: None
    again(enqueue.finish_id(run.id))
    ended = now(runs, run)
    assert (ended.state, ended.failed) == (RunState.DONE, 0)
    assert studio.shown == ended.model_version != first
    assert studio.shown_tasks() == set(studio.tasks)


def test_a_run_notes_since_when_labels_are_there(
    studio: StubStudio, runtime: Runtime, runs: RunStore, work: Callable[[], None]
) -> None:
    """A training would come too late: what was reviewed until then would not count."""
    add_tasks(studio, 1)
    studio.config = choices_config("cat", "dog")
    begin(runs)
    work()
    began = time.time()
    studio.config = choices_config("cat", "dog", "bird")
    begin(runs)
    work()
    labels = {"tags": ["cat", "dog", "bird"]}
    since, _ = ProjectState(runtime.store, KEY).seen(labels, time.time() + 1000.0)
    assert since["tags"]["cat"] == since["tags"]["dog"] == 0.0
    assert began <= since["tags"]["bird"] <= time.time()


def test_a_listing_that_is_repeated_goes_on_after_its_last_shard(
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    again: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_tasks(studio, *range(1, 61))
    small_pages(monkeypatch, 20)
    studio.before = lambda method, path: (
        503 if path == TASKS and calls_of(studio, "GET", TASKS) > 2 else None
    )
    run = begin(runs)
    work()
    stopped = now(runs, run)
    assert (stopped.state, stopped.shards) == (RunState.LISTING, 2)
    assert stopped.blocked_on
    # By now the tasks would be cut otherwise.
    for number in range(1, 31):
        del studio.tasks[number]
    studio.before = lambda method, path: None
    again(enqueue.plan_id(run.id))
    ended = now(runs, run)
    assert (ended.state, ended.listed, ended.shards) == (RunState.DONE, 60, 4)
    assert Counter(one["task"] for one in studio.predictions).most_common(1)[0][1] == 1
    assert set(studio.tasks) <= studio.shown_tasks()


def small_pages(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    listed = Tasks.iterate
    monkeypatch.setattr(
        Tasks,
        "iterate",
        lambda self, project, **given: listed(self, project, size, **given),
    )


@pytest.mark.parametrize(
    ("count", "deleted", "listed"),
    [(60, range(1, 16), range(1, 61)), (40, range(1, 41), range(1, 21))],
    ids=["some hide no other task", "all up to the last page end the listing"],
)
def test_tasks_deleted_while_they_are_listed(
    studio: StubStudio, count: int, deleted: range, listed: range
) -> None:
    add_tasks(studio, *range(1, count + 1))
    settings = Settings(_env_file=None, label_studio_url=studio.url, label_studio_api_key="f" * 40)
    found = []
    for task in LabelStudioClient(settings).tasks.iterate(PROJECT, 20):
        found.append(task["id"])
        if len(found) == 20:
            for number in deleted:
                del studio.tasks[number]
    assert found == [*listed]


def test_images_wait_for_label_studio_where_no_access_token_can_be_had(
    runtime: Runtime,
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_token(value: str, known: object) -> bytes:
        raise UnansweredError("Label Studio does not answer.", "Start it.")

    add_tasks(studio, *range(1, 11))
    monkeypatch.setattr(runtime.embedder._preparer._fetcher, "fetch_file", no_token)
    studio.before = lambda method, path: 503 if path == "/api/version" else None
    run = begin(runs)
    work()
    waiting = now(runs, run)
    assert (waiting.state, waiting.failed, waiting.shards_done) == (RunState.EMBEDDING, 0, 0)
    assert "503" in waiting.blocked_on


def test_a_task_that_is_opened_during_the_import_is_noted_and_fails_nobody(
    studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    def opened(method: str, path: str) -> None:
        if path.endswith(IMPORT):
            studio.predictions.append({**studio.predictions[0], "id": 999})

    add_tasks(studio, *range(1, 11))
    studio.after = opened
    run = begin(runs)
    work()
    ended = now(runs, run)
    assert (ended.state, ended.imported, studio.shown) == (RunState.DONE, 10, ended.model_version)
    assert len(ended.notes) == 1
    assert f"ls-clip prune {PROJECT} --duplicates" in ended.notes[0]


def test_a_task_without_a_prediction_is_not_shown_as_done(studio: StubStudio) -> None:
    settings = Settings(_env_file=None, label_studio_url=studio.url, label_studio_api_key="f" * 40)
    studio.predictions = [{"id": 1, "task": 1, "model_version": "v"}]
    with pytest.raises(StudioError, match="1 task has no prediction of v: 2"):
        Importer(LabelStudioClient(settings), PROJECT, "v").verify({1, 2})


@pytest.mark.parametrize("status", [500, 520])
@pytest.mark.parametrize(
    ("method", "ending"),
    [
        ("GET", THIS_PROJECT),
        ("GET", TASKS),
        ("GET", "/model-versions/"),
        ("POST", IMPORT),
        ("PATCH", THIS_PROJECT),
    ],
)
def test_one_error_inside_label_studio_fails_no_run(
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    status: int,
    method: str,
    ending: str,
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.before = nth(1, method, ending, lambda: status)
    run = begin(runs)
    work()
    assert (now(runs, run).state, now(runs, run).error) == (RunState.DONE, None)
    assert studio.shown_tasks() == set(studio.tasks)


def test_an_import_that_was_carried_out_before_an_error_is_not_sent_again(
    studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.after = nth(1, "POST", IMPORT, lambda: 500)
    run = begin(runs)
    work()
    assert (now(runs, run).state, now(runs, run).imported) == (RunState.DONE, 10)
    assert len(studio.predictions) == 10


def test_an_import_that_outlived_its_sender_is_counted(
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    again: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = Predictions.import_items

    def die(self: Predictions, project: int, items: Any) -> int:
        sent(self, project, items)
        raise RedisError("The process is gone.")

    add_tasks(studio, *range(1, 11))
    monkeypatch.setattr(Predictions, "import_items", die)
    run = begin(runs)
    work()
    assert (now(runs, run).state, now(runs, run).imported) == (RunState.IMPORTING, 0)
    monkeypatch.setattr(Predictions, "import_items", sent)
    again(enqueue.finish_id(run.id))
    ended = now(runs, run)
    assert (ended.state, ended.imported, ended.sending) == (RunState.DONE, 10, 0)
    assert len(studio.predictions) == 10


def test_labels_changed_during_the_import_are_told_and_nothing_is_shown(
    studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    def change(method: str, path: str) -> None:
        if path.endswith(IMPORT):
            studio.config = choices_config("cat", "horse")

    add_tasks(studio, *range(1, 11))
    studio.after = change
    run = begin(runs)
    work()
    failed = now(runs, run)
    assert (failed.state, studio.shown) == (RunState.FAILED, "")
    assert failed.error is not None
    assert "labeling config was changed" in failed.error["message"]


def test_labels_changed_before_a_listing_is_repeated_are_told(
    studio: StubStudio, runs: RunStore, work: Callable[[], None], again: Callable[[str], None]
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.before = lambda method, path: 503 if path == TASKS else None
    run = begin(runs)
    work()
    studio.before = lambda method, path: None
    studio.config = choices_config("cat", "horse")
    again(enqueue.plan_id(run.id))
    assert now(runs, run).state == RunState.FAILED


def test_a_store_that_cannot_be_read_while_scoring_gives_no_task_up(
    runtime: Runtime,
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    again: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = runtime.store.vectors.embeddings

    def erased_meanwhile(*given: Any) -> Any:
        if calls_of(studio, "GET", THIS_PROJECT) > 1:
            raise StoreError("Not found: a file of an old version.")
        return read(*given)

    add_tasks(studio, *range(1, 11))
    monkeypatch.setattr(runtime.store.vectors, "embeddings", erased_meanwhile)
    run = begin(runs)
    work()
    waiting = now(runs, run)
    assert (waiting.state, waiting.failed) == (RunState.IMPORTING, 0)
    assert "Not found" in waiting.blocked_on
    monkeypatch.setattr(runtime.store.vectors, "embeddings", read)
    again(enqueue.finish_id(run.id))
    assert (now(runs, run).state, now(runs, run).failed) == (RunState.DONE, 0)


def left_behind(runtime: Runtime) -> list[Path]:
    return [*(Path(runtime.store.uri) / "runs").rglob("*.json")]


def test_a_run_that_fails_leaves_no_lists_of_tasks(
    runtime: Runtime, studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.before = lambda method, path: 403 if path.endswith(IMPORT) else None
    run = begin(runs)
    work()
    assert (now(runs, run).state, left_behind(runtime)) == (RunState.FAILED, [])


def test_a_run_that_is_cancelled_leaves_no_lists_of_tasks(
    runtime: Runtime, studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.before = lambda method, path: 503 if path.endswith(IMPORT) else None
    run = begin(runs)
    work()
    assert left_behind(runtime)
    assert enqueue.cancel(runs, now(runs, run))
    work()
    assert left_behind(runtime) == []


def test_a_listing_ends_when_its_run_is_cancelled(
    runtime: Runtime, studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    add_tasks(studio, *range(1, 61))
    run = begin(runs)
    studio.after = nth(1, "GET", TASKS, lambda: runs.end(run.id, RunState.CANCELLED) and None)
    work()
    assert (now(runs, run).state, now(runs, run).listed) == (RunState.CANCELLED, 0)
    assert left_behind(runtime) == []
    assert queue.depth(runs.connection, queue.PREDICT) == 0


def test_a_listing_ends_when_redis_is_emptied(
    runtime: Runtime, studio: StubStudio, runs: RunStore, work: Callable[[], None]
) -> None:
    add_tasks(studio, *range(1, 61))
    run = begin(runs)
    studio.after = nth(1, "GET", TASKS, lambda: runs.connection.flushall() and None)
    work()
    assert runs.get(run.id) is None
    assert runs.connection.keys(queue.key(runs.connection, "run:*")) == []


def test_a_listing_told_to_stop_goes_back_into_the_queue_and_is_continued(
    studio: StubStudio, runs: RunStore, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tasks(studio, *range(1, 61))
    small_pages(monkeypatch, 20)
    run = begin(runs)
    studio.after = nth(2, "GET", TASKS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    work()
    assert now(runs, run).state == RunState.LISTING
    assert enqueue.plan_id(run.id) in queue.queue(runs.connection, queue.PREDICT).get_job_ids()
    monkeypatch.setattr(shutdown, "_stop", threading.Event())
    work()
    assert (now(runs, run).state, now(runs, run).listed) == (RunState.DONE, 60)
    assert studio.shown_tasks() == set(studio.tasks)


def test_connect_does_not_take_another_run_for_its_own(
    runtime: Runtime,
    studio: StubStudio,
    runs: RunStore,
    work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(runs: RunStore, run_id: str, told: Any) -> Run | None:
        work()
        return runs.get(run_id)

    monkeypatch.setattr("backend.projects.connect.wait", wait)
    add_tasks(studio, *range(1, 11))
    enqueue.start_run(runs, PROJECT, Scope.UNLABELLED, Trigger.CLI)
    run, failures = run_by_workers(runtime.settings, PROJECT, lambda _: None)
    assert (run.trigger, run.state, failures) == (Trigger.CONNECT, RunState.DONE, {})
    assert studio.shown_tasks() == set(studio.tasks)
    assert [run.trigger for run in runs.of_project(PROJECT)] == ["connect", "cli"]
