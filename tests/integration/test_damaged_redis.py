"""One damaged value in Redis costs one project one record, and keeps no other waiting."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from redis import Redis

from backend.errors import QueueError
from jobs import enqueue, queue, schedule
from jobs.enqueue import train_id
from jobs.run import RunState, Scope, Shard, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingReason, TrainingStore
from tests.support.clock import Clock
from tests.support.queues import reconcile_now

Damage = Callable[[Redis, str], object]
"""Damages what Redis holds of a run with this id, or of its project 2."""
DAMAGE: dict[str, Damage] = {
    "a shard without a number": lambda redis, run: redis.hset(
        queue.key(redis, f"run:{run}:shards"), "x", "{}"
    ),
    "a run of another type": lambda redis, run: replaced(redis, queue.key(redis, f"run:{run}")),
    "a training of another type": lambda redis, run: replaced(
        redis, queue.key(redis, "training:2")
    ),
    "a number of attempts": lambda redis, run: redis.hset(
        queue.key(redis, f"run:{run}:attempts"), enqueue.plan_id(run), "x"
    ),
    "the end of a pause": lambda redis, run: redis.hset(
        queue.key(redis, f"run:{run}:later"), enqueue.plan_id(run), "x"
    ),
    "the list of runs": lambda redis, run: redis.sadd(queue.key(redis, "active"), b"\xff"),
    "the list of trainings": lambda redis, run: redis.sadd(queue.key(redis, "trainings"), "x"),
    "the schedule": lambda redis, run: redis.zadd(
        queue.key(redis, "due"), {"train:" + "9" * 5000: 1}
    ),
    "a job of another type": lambda redis, run: replaced(redis, f"rq:job:{train_id(redis, 2)}"),
    "a job's time": lambda redis, run: redis.hset(
        f"rq:job:{train_id(redis, 2)}", "created_at", "x"
    ),
    "a registry of RQ": lambda redis, run: redis.zadd(
        f"rq:wip:{queue.own_name(redis, queue.PREDICT)}", {b"\xff": 1}
    ),
}


@pytest.fixture
def runs(connection: Redis) -> RunStore:
    return RunStore(connection)


def replaced(redis: Redis, name: str) -> None:
    redis.delete(name)
    redis.set(name, "x")


@pytest.mark.parametrize("what", DAMAGE)
def test_one_damaged_value_keeps_no_other_project_waiting(runs: RunStore, clock: Clock, what: str):
    connection = runs.connection
    damaged, _ = enqueue.start_run(runs, 2, Scope.MISSING, Trigger.CLI)
    queue.remove(connection, queue.PREDICT, enqueue.plan_id(damaged.id))
    enqueue.enqueue_training(TrainingStore(connection), 2, TrainingReason.FORCED)
    run, _ = enqueue.start_run(runs, 1, Scope.MISSING, Trigger.CLI)
    queue.remove(connection, queue.PREDICT, enqueue.plan_id(run.id))
    runs.add_shard(run.id, Shard(number=0, tasks=1))
    runs.move(run.id, RunState.EMBEDDING)
    schedule.add(connection, Kind.PREDICT, 3, clock.now - 1)
    DAMAGE[what](connection, damaged.id)
    for _ in range(3):
        clock.now += 120
        reconcile_now(connection)
    jobs = queue.queue(connection, queue.PREDICT).get_job_ids()
    assert enqueue.shard_id(run.id, 0) in jobs
    assert {1, 3} <= {one.project for one in runs.active()}
    assert run.id in runs.active_ids()
    # The project itself can go on, at the latest when it is asked again.
    trainings = TrainingStore(connection)
    for _ in range(2):
        with suppress(QueueError):
            trainings.request(2)
            enqueue.enqueue_training(trainings, 2, TrainingReason.FORCED)
    assert trainings.get(2).requested >= 1
    assert runs.start(2, Scope.MISSING, Trigger.CLI)[0].project == 2
    assert runs.of_project(2)


def test_a_schedule_of_another_type_is_set_aside_and_rebuilt(runs: RunStore, clock: Clock):
    connection = runs.connection
    schedule.set_known(connection)
    replaced(connection, queue.key(connection, "due"))
    reconcile_now(connection)
    assert not schedule.is_known(connection)
    schedule.add(connection, Kind.PREDICT, 1, clock.now - 1)
    reconcile_now(connection)
    assert [run.project for run in runs.active()] == [1]
