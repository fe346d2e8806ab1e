"""What is due: acted upon before it is removed, by each project on its own, whatever the clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from backend.demo.servers import LocalValkey
from backend.errors import QueueError
from backend.server.app import create_app
from jobs import enqueue, queue, schedule
from jobs.key_migration import adopt_former_keys
from jobs.reconciler import LONGEST_PAUSE
from jobs.run import RunState, Scope, Shard, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingReason, TrainingState, TrainingStore
from tests.support.builders import contract, make_settings
from tests.support.clock import Clock
from tests.support.fixtures import MakeRuntime
from tests.support.queues import reconcile_now
from tests.support.waiting import until

HOUR = 3600.0


def test_an_entry_is_there_until_it_was_acted_upon(connection: Redis):
    for project in range(20):
        schedule.add(connection, Kind.LATE, project, time.time() - 1)
    first = schedule.due(connection, HOUR)
    assert {entry.project for entry in first} == set(range(20))
    # A supervisor that died before it acted has lost nothing.
    assert schedule.due(connection, HOUR) == first
    for entry in first:
        schedule.settle(connection, entry)
    assert schedule.due(connection, HOUR) == []


def test_an_entry_that_was_scheduled_again_meanwhile_stays(connection: Redis):
    schedule.add(connection, Kind.LATE, 5, time.time() - 1)
    (entry,) = schedule.due(connection, HOUR)
    later = time.time() + 60
    schedule.add(connection, Kind.LATE, 5, later, move=True)
    schedule.settle(connection, entry)
    assert schedule.moment(connection, Kind.LATE, 5) == later


def test_an_entry_can_be_postponed(connection: Redis):
    schedule.add(connection, Kind.PREDICT, 5, time.time() - 1)
    (entry,) = schedule.due(connection, HOUR)
    schedule.settle(connection, entry, time.time() + 60)
    assert schedule.due(connection, HOUR) == []
    assert schedule.moment(connection, Kind.PREDICT, 5) is not None


def test_what_a_wrong_clock_has_scheduled_far_ahead_is_due(connection: Redis):
    schedule.add(connection, Kind.REFRESH, 5, time.time() + 365 * 24 * HOUR)
    schedule.add(connection, Kind.REFRESH, 6, time.time() + HOUR / 2)
    assert [entry.project for entry in schedule.due(connection, HOUR)] == [5]


def test_an_error_in_one_projects_work_loses_no_other_ones(
    connection: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    started = []

    def start(kind: Kind, runs: RunStore, trainings: TrainingStore, project: int) -> float | None:
        if project == 3:
            raise RuntimeError("a defect")
        started.append(project)
        return None

    monkeypatch.setattr("jobs.reconciler._start", start)
    for project in range(6):
        schedule.add(connection, Kind.PREDICT, project, time.time() - 6 + project)
    reconcile_now(connection)
    assert started == [0, 1, 2, 4, 5]
    assert "project 3" in caplog.text
    again = schedule.moment(connection, Kind.PREDICT, 3)
    assert again is not None and again > time.time()


def test_a_pause_that_a_wrong_clock_has_set_is_over(connection: Redis, clock: Clock):
    runs = RunStore(connection)
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    job = enqueue.plan_id(run.id)
    queue.remove(connection, queue.PREDICT, job)
    runs.not_before(run.id, job, clock.now + 365 * 24 * HOUR)
    reconcile_now(connection)
    assert queue.queue(connection, queue.PREDICT).get_job_ids() == [job]


def test_a_training_that_a_wrong_clock_has_paused_goes_on(connection: Redis, clock: Clock):
    trainings = TrainingStore(connection)
    trainings.queued(1)
    trainings.note(1, not_before=clock.now + LONGEST_PAUSE + HOUR)
    reconcile_now(connection)
    assert queue.depth(connection, queue.TRAIN) == 1


# Records of a former release


def test_runs_of_a_release_without_installations_go_on(valkey: LocalValkey, connection: Redis):
    with Redis.from_url(valkey.url) as former:
        old = RunStore(former)
        run, _ = enqueue.start_run(old, 1, Scope.MISSING, Trigger.CLI)
        old.move(run.id, RunState.EMBEDDING)
        old.add_shard(run.id, Shard(number=0, tasks=7))
        enqueue.enqueue_shard(old, run.id, 0)
        trainings = TrainingStore(former)
        enqueue.enqueue_training(trainings, 2, TrainingReason.FORCED)
        schedule.add(former, Kind.LATE, 3, 100.0)
        schedule.set_known(former)
    # What the backend of this release has recorded before the worker starts.
    schedule.add(connection, Kind.LATE, 3, 200.0)
    schedule.add(connection, Kind.PREDICT, 4, 300.0)
    assert adopt_former_keys(connection) > 0
    runs = RunStore(connection)
    assert [one.id for one in runs.active()] == [run.id]
    assert runs.shards(run.id)[0].tasks == 7
    assert TrainingStore(connection).active() == [2]
    assert TrainingStore(connection).get(2).state == TrainingState.QUEUED
    assert schedule.moment(connection, Kind.LATE, 3) == 100.0
    assert schedule.moment(connection, Kind.PREDICT, 4) == 300.0
    # Else their ids would be taken when the reconciler enqueues them again.
    assert connection.keys("rq:job:*") == []
    assert [key for key in connection.keys("ls-clip:*") if b":tests-" not in key] == []
    assert adopt_former_keys(connection) == 0


def test_two_installations_on_one_redis_do_not_see_each_other(
    valkey: LocalValkey, connection: Redis
):
    runs = RunStore(connection)
    settings = make_settings(Path("store"), redis_url=valkey.url, installation="another")
    others = RunStore(queue.connect(settings))
    mine, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    theirs, is_new = enqueue.start_run(others, 1, Scope.MISSING, Trigger.CLI)
    assert is_new
    assert runs.active_ids() == {mine.id}
    assert [run.id for run in others.of_project(1)] == [theirs.id]
    for store, run in ((runs, mine), (others, theirs)):
        jobs = queue.queue(store.connection, queue.PREDICT).get_job_ids()
        assert jobs == [enqueue.plan_id(run.id)]
    trainings = TrainingStore(runs.connection), TrainingStore(others.connection)
    assert [enqueue.enqueue_training(one, 1, TrainingReason.FORCED) for one in trainings] == [
        True,
        True,
    ]
    schedule.add(runs.connection, Kind.LATE, 1, 1.0)
    assert schedule.due(others.connection, 3600.0) == []


# What Redis refuses


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OutOfMemoryError("command not allowed"), "maxmemory"),
        (ReadOnlyError("You can't write"), "primary"),
        (ResponseError("unknown command"), "log of Redis"),
        (RedisError("?"), "Start Redis"),
    ],
)
def test_what_redis_refuses_is_named_with_its_fix(error: RedisError, says: str):
    with pytest.raises(QueueError) as caught, queue.explained():
        raise error
    assert says in caught.value.fix


def test_a_full_redis_is_not_called_silent(connection: Redis, tmp_path: Any):
    runs = RunStore(connection)
    connection.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueError, match="used up its memory") as caught:
            enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    finally:
        connection.config_set("maxmemory", "0")
    assert "noeviction" in caught.value.fix


# The button


def start_training(client: Any) -> Any:
    body = {**contract("webhook_start_training")["body"], "project": {"id": 5}}
    return client.post("/webhook", json=body)


def test_a_training_that_cannot_be_recorded_is_not_called_noted(
    make_runtime: MakeRuntime, connection: Redis, valkey: LocalValkey
):
    client = create_app(make_runtime(redis_url=valkey.url)).test_client()
    connection.config_set("maxmemory", "1")
    try:
        answer = start_training(client)
    finally:
        connection.config_set("maxmemory", "0")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "queue"
    away = create_app(make_runtime(redis_url="redis://127.0.0.1:1/0")).test_client()
    assert start_training(away).status_code == 503
    assert start_training(client).json == {"status": "noted"}
    until(lambda: schedule.moment(connection, Kind.FORCED, 5) is not None)
