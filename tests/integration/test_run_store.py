"""Runs as Redis keeps them: one a project, nothing counted twice, what has ended stays ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from backend.errors import QueueError, StoreError, StudioError
from backend.inference.prediction import Prediction
from backend.server.background import start_run_for_late_tasks
from backend.settings import Settings
from backend.storage.store import Store
from jobs import enqueue, project_lock, queue
from jobs.listing import prefetched
from jobs.run import Run, RunState, Scope, Shard, Trigger
from jobs.run_files import RunFiles
from jobs.run_store import KEPT_RUNS, RunStore
from jobs.training_state import TrainingStore
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def runs(connection: Redis) -> RunStore:
    return RunStore(connection)


def test_who_asks_again_joins_the_run_that_is_going_on(runs: RunStore):
    first, fresh = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    again, new = enqueue.start_run(runs, 1, Scope.ALL, Trigger.HTTP)
    assert (fresh, new, again.id, again.scope) == (True, False, first.id, Scope.MISSING)
    assert queue.depth(runs.connection, queue.PREDICT) == 1


def test_twenty_at_once_get_one_run(runs: RunStore):
    with ThreadPoolExecutor(20) as pool:
        found = list(
            pool.map(lambda _: enqueue.start_run(runs, 7, Scope.MISSING, Trigger.HTTP), range(20))
        )
    assert len({run.id for run, _ in found}) == 1
    assert sum(fresh for _, fresh in found) == 1
    assert len(runs.of_project(7)) == 1


def test_two_projects_have_a_run_each(runs: RunStore):
    one, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    two, _ = runs.start(2, Scope.MISSING, Trigger.CLI)
    assert {run.id for run in runs.active()} == {one.id, two.id}


@pytest.mark.parametrize("state", [RunState.DONE, RunState.FAILED, RunState.CANCELLED])
def test_after_the_end_of_a_run_the_next_may_begin(runs: RunStore, state: RunState):
    first, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    assert runs.end(first.id, state)
    second, fresh = runs.start(1, Scope.MISSING, Trigger.CLI)
    assert fresh
    assert [run.id for run in runs.of_project(1)] == [second.id, first.id]
    assert [run.id for run in runs.active()] == [second.id]


def test_a_slot_whose_run_is_gone_is_free(runs: RunStore):
    first, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.connection.delete(queue.key(runs.connection, f"run:{first.id}"))
    assert runs.start(1, Scope.MISSING, Trigger.CLI)[1]
    assert len(runs.active()) == 1


def test_what_has_ended_stays_as_it_is(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    assert runs.end(run.id, RunState.CANCELLED)
    assert not runs.move(run.id, RunState.EMBEDDING)
    assert not runs.end(run.id, RunState.DONE)
    ended = runs.get(run.id)
    assert ended is not None
    assert (ended.state, ended.ended > 0) == (RunState.CANCELLED, True)


def test_progress_written_twice_counts_once(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.move(run.id, RunState.EMBEDDING, listed=5)
    for _ in range(3):
        runs.progress(run.id, Shard(number=0, tasks=3, embedded=2, cached=1, done=True))
        assert (
            runs.progress(run.id, Shard(number=1, tasks=2, embedded=1, failed=1))
            == RunState.EMBEDDING
        )
    now = runs.get(run.id)
    assert now is not None
    assert (now.embedded, now.cached, now.shards, now.shards_done) == (3, 1, 2, 1)


def test_a_worker_learns_from_its_progress_that_the_run_was_cancelled(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.end(run.id, RunState.CANCELLED)
    assert runs.progress(run.id, Shard(number=0, tasks=1)) == RunState.CANCELLED
    assert runs.progress("gone", Shard(number=0, tasks=1)) == RunState.CANCELLED


def test_a_run_that_redis_has_forgotten_stays_forgotten(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.connection.flushall()
    runs.note(run.id, listed=5)
    runs.progress(run.id, Shard(number=0, tasks=1, cached=1))
    assert not runs.connection.keys(queue.key(runs.connection, "*"))


def test_what_is_left_of_a_forgotten_run_is_no_run(runs: RunStore):
    runs.connection.hset(queue.key(runs.connection, "run:abc"), "updated", 1.0)
    runs.connection.sadd(queue.key(runs.connection, "active"), "abc")
    assert runs.get("abc") is None
    assert runs.active() == []


def test_redis_forgets_in_time_what_is_written_after_the_end_of_a_run(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.end(run.id, RunState.CANCELLED)
    runs.add_shard(run.id, Shard(number=0, tasks=1))
    runs.record_failures(run.id, {1: {"code": "not_found"}})
    runs.count_attempt(run.id, "a")
    runs.not_before(run.id, "a", 5.0)
    runs.hold(run.id, 0, "x")
    runs.deadly(run.id, 0)
    runs.hold(run.id, 1, "x")
    keys = runs.connection.keys(queue.key(runs.connection, f"run:{run.id}*"))
    assert len(keys) == 7
    assert all(runs.connection.ttl(key) > 0 for key in keys)


@pytest.mark.parametrize("project", ["²", "", "9" * 5000, "1x"])
def test_a_project_without_a_number_gets_no_run(
    queue_settings: Settings, connection: Redis, project: str
):
    start_run_for_late_tasks(queue_settings, f"{project}.5", 3)
    assert queue.depth(connection, queue.PREDICT) == 0


def test_the_error_of_a_run_has_the_shape_of_all_errors(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.end(run.id, RunState.FAILED, StudioError("It says no.", "Ask nicely."))
    now = runs.get(run.id)
    assert now is not None
    assert now.as_dict()["error"] == {
        "code": "label_studio",
        "message": "It says no.",
        "fix": "Ask nicely.",
    }


def test_failures_are_kept_by_task_and_can_be_replaced(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.record_failures(run.id, {9: {"code": "not_found"}, 10: {"code": "not_found"}})
    assert list(runs.failures(run.id)) == [9, 10]
    runs.set_failures(run.id, {10: {"code": "dropped"}})
    assert runs.failures(run.id) == {10: {"code": "dropped"}}
    now = runs.get(run.id)
    assert now is not None
    assert now.failed == 1


def test_time_left_follows_from_the_speed_so_far(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.move(run.id, RunState.EMBEDDING, listed=100, first_image=1000.0, last_image=1010.0)
    runs.add_shard(run.id, Shard(number=0, tasks=100, embedded=20))
    now = runs.get(run.id)
    assert now is not None
    assert (now.images_per_second, now.seconds_left) == (2.0, 40.0)


def test_old_runs_are_forgotten(runs: RunStore):
    for _ in range(KEPT_RUNS + 3):
        run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
        runs.end(run.id, RunState.DONE)
    assert len(runs.of_project(1)) == KEPT_RUNS


@pytest.mark.parametrize("name", ["nothing", "../../x", "*", ""])
def test_a_run_that_there_is_not_is_404(runs: RunStore, name: str):
    with pytest.raises(QueueError) as caught:
        runs.require(1, name)
    assert caught.value.http_status == 404


def test_a_run_of_another_project_is_404(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    with pytest.raises(QueueError):
        runs.require(2, run.id)


def test_cancelling_takes_what_waits_out_of_the_queue(runs: RunStore):
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    runs.move(run.id, RunState.LISTING)
    for number in range(3):
        runs.add_shard(run.id, Shard(number=number, tasks=1))
        enqueue.enqueue_shard(runs, run.id, number)
    now = runs.get(run.id)
    assert now is not None
    assert enqueue.cancel(runs, now)
    # What the run kept in the store is still to be deleted.
    waiting = queue.queue(runs.connection, queue.PREDICT).get_job_ids()
    assert waiting == [f"{run.id}-sweep"]
    assert not enqueue.cancel(runs, now)


@pytest.mark.parametrize(
    ("state", "done", "expected"),
    [
        (RunState.QUEUED, 2, 0),
        (RunState.LISTING, 2, 0),
        (RunState.EMBEDDING, 1, 0),
        (RunState.EMBEDDING, 2, 1),
        (RunState.IMPORTING, 2, 1),
    ],
)
def test_the_import_is_asked_for_once_when_all_is_embedded(
    runs: RunStore, state: RunState, done: int, expected: int
):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    for number in range(2):
        runs.add_shard(run.id, Shard(number=number, tasks=1, done=number < done))
    if state != RunState.QUEUED:
        runs.move(run.id, state)
    for _ in range(3):
        enqueue.enqueue_finish_if_complete(runs, run.id)
    assert queue.depth(runs.connection, queue.PREDICT) == expected


def test_one_at_a_time_imports_into_a_project(connection: Redis):
    inside: list[str] = []

    def second() -> None:
        with project_lock.importing(connection, 1):
            inside.append("second")

    with project_lock.importing(connection, 1):
        thread = threading.Thread(target=second)
        thread.start()
        with project_lock.importing(connection, 2):
            inside.append("other project")
        time.sleep(0.3)
        inside.append("first")
    thread.join(PATIENCE)
    assert inside == ["other project", "first", "second"]


def test_the_lock_is_kept_for_as_long_as_it_takes(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.project_lock.LOCK_SECONDS", 6.0)
    with project_lock.importing(connection, 1):
        left = [connection.pttl(queue.key(connection, "project:1:importing"))]

        def renewed() -> bool:
            left.append(connection.pttl(queue.key(connection, "project:1:importing")))
            return left[-1] > left[-2]

        until(renewed)
    assert not connection.exists(queue.key(connection, "project:1:importing"))


def test_the_lock_of_a_process_that_died_frees_itself(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    connection.set(queue.key(connection, "project:1:importing"), "of the dead", px=300)
    with project_lock.importing(connection, 1):
        assert connection.get(queue.key(connection, "project:1:importing")) not in (
            None,
            b"of the dead",
        )


def test_listing_goes_on_while_the_parts_before_are_worked_on():
    listed: list[int] = []

    def parts() -> Iterator[list[dict[str, Any]]]:
        for number in range(5):
            listed.append(number)
            yield [{"id": number}]

    found = []
    for part in prefetched(parts()):
        if not found:
            until(lambda: len(listed) >= 5)
            assert listed == [0, 1, 2, 3, 4]
        found.append(part[0]["id"])
    assert found == [0, 1, 2, 3, 4]


def test_what_the_listing_raises_reaches_who_works_on_it():
    def parts() -> Iterator[list[dict[str, Any]]]:
        yield [{"id": 1}]
        raise StudioError("Label Studio does not answer.", "Start it.")

    found = prefetched(parts())
    assert next(found) == [{"id": 1}]
    with pytest.raises(StudioError, match="does not answer"):
        next(found)


def test_a_listing_that_nobody_wants_any_more_ends():
    before = {thread.ident for thread in threading.enumerate()}

    def parts() -> Iterator[list[dict[str, Any]]]:
        while True:
            yield [{"id": 1}]

    found = prefetched(parts())
    next(found)
    found.close()
    until(lambda: {t.ident for t in threading.enumerate() if t.name == "listing"} <= before)


def test_predictions_computed_early_come_back_for_their_version_only(tmp_path):
    files = RunFiles(Store(str(tmp_path)).artifacts, "r1")
    made = [
        Prediction(1, "v1", [{"from_name": "tags"}], 0.5),
        Prediction(2, "v1", None, None),
    ]
    files.write_predictions(0, "v1", made)
    assert files.predictions(0, "v1") == {1: made[0]}
    assert files.predictions(0, "v2") == {}
    assert files.predictions(1, "v1") == {}


def test_files_of_a_run_that_are_gone_name_the_store_setting(tmp_path):
    with pytest.raises(StoreError, match="LS_CLIP_STORE"):
        RunFiles(Store(str(tmp_path)).artifacts, "r1").tasks(0)


def test_records_carry_the_version_of_their_layout(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.add_shard(run.id, Shard(number=0, tasks=1))
    TrainingStore(runs.connection).request(1)
    key = queue.key(runs.connection, f"run:{run.id}")
    assert runs.connection.hget(key, "schema") == b"1"
    assert runs.connection.hget(queue.key(runs.connection, "training:1"), "schema") == b"1"
    assert json.loads(runs.connection.hget(f"{key}:shards", "0"))["schema"] == 1


def test_a_run_without_a_version_is_read_and_one_of_a_newer_release_is_refused(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.connection.hdel(queue.key(runs.connection, f"run:{run.id}"), "schema")
    assert runs.get(run.id) == run
    runs.connection.hset(queue.key(runs.connection, f"run:{run.id}"), "schema", 2)
    with pytest.raises(QueueError, match="Upgrade all processes"):
        runs.get(run.id)


# Runs that end while others look


def test_a_run_that_ends_while_it_is_asked_for_again_is_not_put_back(
    runs: RunStore, monkeypatch: pytest.MonkeyPatch
):
    first, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    get = runs.get

    def get_then_end(run_id: str) -> Run | None:
        run = get(run_id)
        if run_id == first.id:
            monkeypatch.setattr(runs, "get", get)
            runs.end(first.id, RunState.DONE)
        return run

    monkeypatch.setattr(runs, "get", get_then_end)
    second, is_new = runs.start(1, Scope.MISSING, Trigger.CLI)
    assert is_new
    assert second.id != first.id
    assert runs.active_ids() == {second.id}


def test_a_run_that_has_ended_leaves_the_active_ones_when_it_is_seen(runs: RunStore):
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    runs.end(run.id, RunState.FAILED)
    # As a release before this one could leave it.
    runs.connection.sadd(queue.key(runs.connection, "active"), run.id)
    assert runs.active() == []
    assert runs.active_ids() == set()
