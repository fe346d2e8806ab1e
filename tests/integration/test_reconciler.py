"""No run goes on for ever: lost and failed jobs come again, and in the end the run is given up."""

from __future__ import annotations

import pytest
from redis import Redis

from backend.errors import QueueError
from jobs import enqueue, queue, schedule
from jobs.reconciler import ATTEMPTS, OUTAGE_ATTEMPTS, reconcile
from jobs.run import Run, RunState, Scope, Shard, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from tests.support.clock import Clock
from tests.support.queues import DEFAULTS, lose_the_queue, reconcile_now


@pytest.fixture
def runs(connection: Redis) -> RunStore:
    return RunStore(connection)


def waiting(runs: RunStore) -> list[str]:
    return [
        name.removeprefix(run.id).lstrip("-")
        for name in queue.queue(runs.connection, queue.PREDICT).get_job_ids()
        for run in runs.active()
    ]


def embedding(runs: RunStore, shards: int) -> Run:
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    lose_the_queue(runs)
    for number in range(shards):
        runs.add_shard(run.id, Shard(number=number, tasks=1))
    runs.move(run.id, RunState.EMBEDDING)
    return run


def test_a_listing_that_was_lost_comes_again_after_a_pause(runs: RunStore, clock: Clock):
    enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    lose_the_queue(runs)
    reconcile_now(runs.connection)
    assert waiting(runs) == []
    clock.now += 3
    reconcile_now(runs.connection)
    assert waiting(runs) == ["plan"]


def test_only_the_shards_that_are_not_done_come_again(runs: RunStore, clock: Clock):
    run = embedding(runs, 3)
    runs.progress(run.id, Shard(number=1, tasks=1, done=True))
    reconcile_now(runs.connection)
    clock.now += 3
    reconcile_now(runs.connection)
    assert sorted(waiting(runs)) == ["shard-0", "shard-2"]


def test_an_import_that_was_lost_comes_again(runs: RunStore, clock: Clock):
    run = embedding(runs, 1)
    runs.progress(run.id, Shard(number=0, tasks=1, done=True))
    runs.move(run.id, RunState.IMPORTING)
    reconcile_now(runs.connection)
    clock.now += 3
    reconcile_now(runs.connection)
    assert waiting(runs) == ["finish"]


def test_jobs_that_are_on_their_way_are_left_alone(runs: RunStore, clock: Clock):
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    for _ in range(5):
        reconcile_now(runs.connection)
        clock.now += 100
    assert waiting(runs) == ["plan"]
    assert runs.attempts(run.id, enqueue.plan_id(run.id)) == 0


@pytest.mark.parametrize(("waits", "limit"), [("", ATTEMPTS), ("no answer", OUTAGE_ATTEMPTS)])
def test_a_run_that_fails_again_and_again_is_given_up_with_a_reason(
    runs: RunStore, clock: Clock, waits: str, limit: int
):
    run = embedding(runs, 1)
    runs.note(run.id, blocked_on=waits)
    for _ in range(2 * limit + 2):
        lose_the_queue(runs)
        reconcile_now(runs.connection)
        clock.now += 100
    ended = runs.get(run.id)
    assert ended is not None
    assert ended.state == RunState.FAILED
    assert ended.error is not None
    assert waits in ended.error["message"]
    assert "ls-clip predict 1" in ended.error["fix"]
    assert runs.attempts(run.id, enqueue.shard_id(run.id, 0)) == limit


def test_pauses_grow_and_then_stay(runs: RunStore, clock: Clock):
    run = embedding(runs, 1)
    job = enqueue.shard_id(run.id, 0)
    pauses = []
    for _ in range(8):
        lose_the_queue(runs)
        reconcile_now(runs.connection)
        pauses.append(runs.not_before(run.id, job) - clock.now)
        clock.now += pauses[-1] + 1
        reconcile_now(runs.connection)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_shards_that_the_listing_embeds_by_itself_are_not_taken_for_lost(
    runs: RunStore, clock: Clock
):
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    runs.move(run.id, RunState.LISTING)
    runs.add_shard(run.id, Shard(number=0, tasks=1))
    for _ in range(3):
        reconcile_now(runs.connection)
        clock.now += 100
    assert waiting(runs) == ["plan"]
    assert runs.attempts(run.id, enqueue.shard_id(run.id, 0)) == 0
    # Once the listing is over, nobody else will do it.
    runs.move(run.id, RunState.EMBEDDING)
    reconcile_now(runs.connection)
    clock.now += 3
    reconcile_now(runs.connection)
    assert sorted(waiting(runs)) == ["plan", "shard-0"]


def test_a_shard_whose_worker_died_while_the_list_grows_comes_again(runs: RunStore, clock: Clock):
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    runs.move(run.id, RunState.LISTING)
    runs.add_shard(run.id, Shard(number=0, tasks=1))
    enqueue.enqueue_shard(runs, run.id, 0)
    job = enqueue.shard_id(run.id, 0)
    queue.queue(runs.connection, queue.PREDICT).remove(job)
    runs.connection.hset(f"rq:job:{job}", "status", "failed")
    reconcile_now(runs.connection)
    clock.now += 3
    reconcile_now(runs.connection)
    assert sorted(waiting(runs)) == ["plan", "shard-0"]


def test_what_a_run_that_is_given_up_kept_is_deleted(runs: RunStore, clock: Clock):
    run = embedding(runs, 1)
    for _ in range(ATTEMPTS - 1):
        runs.count_attempt(run.id, enqueue.shard_id(run.id, 0))
    reconcile_now(runs.connection)
    assert runs.state(run.id) == RunState.FAILED
    assert queue.queue(runs.connection, queue.PREDICT).get_job_ids() == [f"{run.id}-sweep"]


def test_a_run_that_has_ended_is_left_alone(runs: RunStore, clock: Clock):
    run = embedding(runs, 2)
    runs.end(run.id, RunState.CANCELLED)
    for _ in range(3):
        reconcile_now(runs.connection)
        clock.now += 100
    assert queue.depth(runs.connection, queue.PREDICT) == 0


def test_of_two_supervisors_one_does_the_round(runs: RunStore, clock: Clock):
    embedding(runs, 1)
    reconcile_now(runs.connection)
    clock.now += 100
    reconcile(runs.connection, DEFAULTS)
    assert waiting(runs) == []


# What another release wrote


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("", "schema", "abc"),
        ("", "state", "resting"),
        ("", "error", b"\xff"),
        (":shards", "0", "{"),
        (":shards", "0", "7"),
    ],
)
def test_a_damaged_run_is_set_aside_and_named_and_keeps_no_other_waiting(
    runs: RunStore,
    clock: Clock,
    key: str,
    field: str,
    value: str | bytes,
    caplog: pytest.LogCaptureFixture,
):
    connection = runs.connection
    damaged, _ = enqueue.start_run(runs, 2, Scope.MISSING, Trigger.CLI)
    connection.hset(queue.key(connection, f"run:{damaged.id}{key}"), field, value)
    run = embedding(runs, 1)
    for _ in range(2):
        clock.now += 120
        reconcile_now(connection)
    assert waiting(runs) == ["shard-0"]
    assert runs.active_ids() == {run.id}
    # Said once, and kept for whoever wants to look at it.
    assert caplog.text.count(f"run {damaged.id} is set aside") == 1
    kept = connection.hgetall(queue.key(connection, f"run:{damaged.id}:damaged"))
    assert kept[b"project"] == b"2"
    # The project is free for another run.
    assert runs.start(2, Scope.MISSING, Trigger.CLI)[1]


def test_a_run_of_a_newer_release_keeps_no_other_waiting_and_stays(runs: RunStore, clock: Clock):
    other, _ = enqueue.start_run(runs, 2, Scope.MISSING, Trigger.CLI)
    runs.connection.hset(queue.key(runs.connection, f"run:{other.id}"), "schema", "2")
    run = embedding(runs, 1)
    for _ in range(2):
        clock.now += 120
        reconcile_now(runs.connection)
    assert waiting(runs) == ["shard-0"]
    assert [one.id for one in runs.active()] == [run.id]
    # Its files are not taken for those of a run that has ended.
    assert runs.active_ids() == {run.id, other.id}
    with pytest.raises(QueueError, match="layout 2"):
        runs.get(other.id)


def test_what_cannot_be_started_yet_is_postponed_and_the_rest_is_started(
    runs: RunStore, clock: Clock
):
    connection = runs.connection
    connection.hset(queue.key(connection, "training:3"), "schema", "2")
    due = clock.now - 1
    for kind, project in ((Kind.REFRESH, 3), (Kind.PREDICT, 1)):
        schedule.add(connection, kind, project, due)
    connection.zadd(queue.key(connection, "due"), {"newkind:1": due})
    reconcile_now(runs.connection)
    assert [run.project for run in runs.active()] == [1]
    later = schedule.moment(connection, Kind.REFRESH, 3)
    assert later is not None and later > clock.now
    # A newer release will know what this is.
    assert connection.zscore(queue.key(connection, "due"), "newkind:1") is not None
