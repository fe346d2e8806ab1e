"""Keeping runs alive: jobs that failed, or were lost with their worker or with Redis, come again.

Every worker's supervisor calls this every few seconds; a lock lets one of them do the work. RQ
finds out that a worker is dead and calls its job failed; what that means for a run is decided here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from redis import Redis
from rq.registry import clean_registries
from rq.worker_registration import clean_worker_registry

from backend.errors import ClipError
from jobs import queues
from jobs.orders import (
    enqueue_finish_if_complete,
    enqueue_plan,
    enqueue_shard,
    finish_id,
    plan_id,
    shard_id,
)
from jobs.runs import EMBEDDING, FAILED, IMPORTING, LISTING, PREFIX, QUEUED, Run, Runs

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
PAUSE_SECONDS = 2.0
"""Before the first repetition; doubled each time."""
LONGEST_PAUSE = 60.0
ATTEMPTS = 10
"""Failures of one job after which the run is given up."""
OUTAGE_ATTEMPTS = 60
"""The same while the run waits for Label Studio or the store: about an hour."""
ALIVE = {"queued", "started", "deferred", "scheduled"}


def tend(connection: Redis) -> None:
    """One round, unless another process has just done it.

    Raises:
        RedisError: Redis is away.
    """
    if not connection.set(f"{PREFIX}tending", "1", nx=True, px=int(EVERY_SECONDS * 900)):
        return
    for name in queues.QUEUES:
        queue = queues.queue(connection, name)
        # Jobs whose worker sends no heartbeat any more are called failed.
        clean_registries(queue)
        clean_worker_registry(queue)
    runs = Runs(connection)
    for run in runs.active():
        _tend_run(runs, run)


def _tend_run(runs: Runs, run: Run) -> None:
    jobs = _due(runs, run)
    known = queues.statuses(runs.connection, queues.PREDICT, list(jobs))
    for job, again in jobs.items():
        if known.get(job) in ALIVE:
            continue
        now, pause_ends = time.time(), runs.not_before(run.id, job)
        if pause_ends > now:
            continue
        if not pause_ends:
            # It has just failed, or was lost: noticed now, repeated after a pause.
            attempts = runs.count_attempt(run.id, job)
            if attempts >= (OUTAGE_ATTEMPTS if run.waits_for else ATTEMPTS):
                _give_up(runs, run, job)
                return
            pause = min(LONGEST_PAUSE, PAUSE_SECONDS * 2 ** (attempts - 1))
            runs.not_before(run.id, job, now + pause)
            log.warning(
                "run %s: %s is repeated in %.0f s (failure %d)", run.id, job, pause, attempts
            )
            continue
        runs.not_before(run.id, job, 0)
        queues.remove(runs.connection, queues.PREDICT, job)
        again()


def _due(runs: Runs, run: Run) -> dict[str, Callable[[], None]]:
    """The jobs that must be on their way in the run's state, and how to enqueue each."""
    if run.state in {QUEUED, LISTING}:
        jobs: dict[str, Callable[[], None]] = {plan_id(run.id): lambda: enqueue_plan(runs, run.id)}
    elif run.state == IMPORTING or run.shards_done == run.shards:
        return {finish_id(run.id): lambda: enqueue_finish_if_complete(runs, run.id)}
    else:
        jobs = {}
    if run.state in {LISTING, EMBEDDING}:
        for shard in runs.shards(run.id):
            if not shard.done:
                number = shard.number
                jobs[shard_id(run.id, number)] = lambda n=number: enqueue_shard(runs, run.id, n)  # type: ignore[misc]
    return jobs


def _give_up(runs: Runs, run: Run, job: str) -> None:
    error = ClipError(
        f"{job} has failed too often. {run.waits_for}".strip(),
        f"Read the log of ls-clip worker, then ask again: ls-clip predict {run.project}; what is "
        "embedded stays.",
    )
    log.error("run %s has failed: %s", run.id, error)
    runs.end(run.id, FAILED, error)
