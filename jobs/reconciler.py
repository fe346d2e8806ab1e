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
from jobs import queue, schedule
from jobs.enqueue import (
    enqueue_finish_if_complete,
    enqueue_plan,
    enqueue_reconcile_all,
    enqueue_shard,
    enqueue_sweep,
    enqueue_training,
    finish_id,
    plan_id,
    shard_id,
    start,
    train_id,
)
from jobs.queue import PREFIX
from jobs.run import BY_TRAINING, EMBEDDING, FAILED, IMPORTING, LISTING, QUEUED, Run
from jobs.run_store import RunStore
from jobs.training_state import IDLE, TrainingStore

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
PAUSE_SECONDS = 2.0
"""Before the first repetition; doubled each time."""
LONGEST_PAUSE = 60.0
ATTEMPTS = 10
"""Failures of one job after which the run is given up."""
OUTAGE_ATTEMPTS = 60
"""The same while the run or training waits for Label Studio or the store: about an hour."""
TRAINING_ATTEMPTS = 5
AGAIN_SECONDS = 10.0
"""Until something that had no place now is looked at again."""


def reconcile(connection: Redis) -> None:
    """One round, unless another process has just done it.

    Raises:
        RedisError: Redis is away.
    """
    if not connection.set(f"{PREFIX}tending", "1", nx=True, px=int(EVERY_SECONDS * 900)):
        return
    for name in queue.QUEUES:
        jobs = queue.queue(connection, name)
        # Jobs whose worker sends no heartbeat any more are called failed.
        clean_registries(jobs)
        clean_worker_registry(jobs)
    runs = RunStore(connection)
    for run in runs.active():
        _tend_run(runs, run)
    trainings = TrainingStore(connection)
    for project in trainings.active():
        _tend_training(trainings, project)
    if not schedule.is_known(connection) and queue.workers(connection, queue.TRAIN):
        enqueue_reconcile_all(connection)
    for kind, project in schedule.take(connection):
        _do(kind, runs, trainings, project)


def _do(kind: str, runs: RunStore, trainings: TrainingStore, project: int) -> None:
    """Act on what is due; what has no place now comes again."""
    connection, now = runs.connection, time.time()
    if kind == schedule.REFRESH:
        candidate = trainings.get(project).candidate
        if not candidate:
            return
        run, fresh = start(runs, project, "unlabelled", BY_TRAINING, candidate)
        if fresh:
            trainings.note(project, run=run.id)
        else:
            schedule.add(connection, kind, project, now + AGAIN_SECONDS)
    elif kind == schedule.PREDICT:
        _, fresh = start(runs, project, "missing", "webhook")
        if not fresh:
            # That run may have listed the tasks before the last ones came.
            schedule.add(connection, kind, project, now + schedule.NEW_TASKS_SECONDS)
    elif kind == schedule.RECONCILE:
        enqueue_training(trainings, project, "reconcile")
    else:
        why = "forced" if kind == schedule.FORCED else "enough"
        if not enqueue_training(trainings, project, why):
            schedule.add(connection, kind, project, now + AGAIN_SECONDS)


def _pause(attempts: int) -> float:
    """Seconds before a job that has failed so often comes again."""
    return min(LONGEST_PAUSE, PAUSE_SECONDS * 2.0 ** (attempts - 1))


def _tend_training(trainings: TrainingStore, project: int) -> None:
    """Repeat a training whose job has failed, or was lost with its worker."""
    job = train_id(project)
    status = queue.statuses(trainings.connection, queue.TRAIN, [job]).get(job)
    now, training = time.time(), trainings.get(project)
    if status in queue.ALIVE or training.state == IDLE or training.not_before > now:
        return
    if training.not_before:
        enqueue_training(trainings, project, "enough")
        trainings.note(project, attempts=training.attempts)
        return
    attempts = trainings.count_attempt(project)
    if attempts > (OUTAGE_ATTEMPTS if training.waits_for else TRAINING_ATTEMPTS):
        trainings.fail(
            project,
            ClipError(
                f"The training has failed too often. {training.waits_for.partition(' Fix: ')[0]}",
                f"Read the log of ls-clip worker, then: ls-clip train {project}. The head that "
                "served before still serves.",
            ),
        )
        return
    pause = _pause(attempts)
    log.warning(
        "project %d: its training is repeated in %.0f s (failure %d)", project, pause, attempts
    )
    trainings.note(project, not_before=now + pause)


def _tend_run(runs: RunStore, run: Run) -> None:
    jobs = _due(runs, run)
    known = queue.statuses(runs.connection, queue.PREDICT, list(jobs))
    for job, again in jobs.items():
        if known.get(job) in queue.ALIVE:
            continue
        if run.state == LISTING and job not in known and job != plan_id(run.id):
            # The listing job embeds some shards by itself: those never were in the queue.
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
            pause = _pause(attempts)
            runs.not_before(run.id, job, now + pause)
            log.warning(
                "run %s: %s is repeated in %.0f s (failure %d)", run.id, job, pause, attempts
            )
            continue
        runs.not_before(run.id, job, 0)
        queue.remove(runs.connection, queue.PREDICT, job)
        again()


def _due(runs: RunStore, run: Run) -> dict[str, Callable[[], None]]:
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


def _give_up(runs: RunStore, run: Run, job: str) -> None:
    error = ClipError(
        f"{job} has failed too often. {run.waits_for}".strip(),
        f"Read the log of ls-clip worker, then ask again: ls-clip predict {run.project}; what is "
        "embedded stays.",
    )
    log.error("run %s has failed: %s", run.id, error)
    runs.end(run.id, FAILED, error)
    enqueue_sweep(runs, run.id)
