"""Reconciling: jobs that failed, or were lost with their worker or with Redis, are enqueued again.

Every worker's supervisor calls this every few seconds; a lock lets one of them do the work. RQ
detects that a worker has died and marks its job as failed; what follows for a run is decided here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError
from rq.registry import clean_registries

from backend.errors import ClipError, without_fix
from backend.messages.message import Message, in_sequence
from backend.settings import Settings
from jobs import queue, schedule
from jobs.enqueue import (
    enqueue_finish_if_complete,
    enqueue_plan,
    enqueue_reconcile_all,
    enqueue_round,
    enqueue_shard,
    enqueue_sweep,
    enqueue_training,
    finish_id,
    plan_id,
    shard_id,
    start_run,
    train_id,
)
from jobs.record import DamagedRecordError, is_about_one_key
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingReason, TrainingState, TrainingStore

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
PAUSE_SECONDS = 2.0
"""Before the first retry; doubled each time."""
LONGEST_PAUSE = 60.0
ATTEMPTS = 10
"""Failures of one job after which its run fails."""
OUTAGE_ATTEMPTS = 60
"""The same while the run or training waits for Label Studio or the store: about an hour."""
TRAINING_ATTEMPTS = 5
POSTPONED_SECONDS = 10.0
"""Until what could not be started now is tried again."""


def reconcile(connection: Redis, settings: Settings) -> None:
    """One round, unless another process has just done it.

    An error in one project's work is logged and keeps the others from nothing.

    Args:
        connection: to Redis.
        settings: how far ahead things are scheduled.

    Raises:
        RedisError: Redis is away.
    """
    tending = queue.key(connection, "tending")
    if not connection.set(tending, "1", nx=True, px=int(EVERY_SECONDS * 900)):
        return
    for name in queue.QUEUES:
        with _alone(f"the queue {name}"):
            # Marks jobs as failed whose worker sends no heartbeat any more.
            clean_registries(queue.queue(connection, name))
    runs, trainings = RunStore(connection), TrainingStore(connection)
    with _alone("the list of runs"):
        for run in runs.active():
            with _alone(f"run {run.id}"):
                _reconcile_run(runs, run)
    with _alone("the list of trainings"):
        for project in trainings.active():
            with _alone(f"the training of project {project}"):
                _reconcile_training(trainings, project)
    with _alone("the list of projects"):
        if not schedule.is_known(connection) and queue.workers(connection, queue.TRAIN):
            enqueue_reconcile_all(connection)
    farthest = max(settings.train_after, settings.reconcile_every, settings.refresh_every)
    for entry in schedule.due(connection, farthest + LONGEST_PAUSE):
        again: float | None = time.time() + POSTPONED_SECONDS
        with _alone(f"project {entry.project}: {entry.kind}"):
            again = _start(entry.kind, runs, trainings, entry.project)
        schedule.settle(connection, entry, again)


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """Log an error in the work for one project, so that it does not keep the others waiting."""
    try:
        yield
    except RedisError as error:
        # Else other projects can be reconciled.
        if not is_about_one_key(error):
            raise
        log.error("%s is not reconciled: %s", what, error)
    except ClipError as error:
        log.error("%s is not reconciled: %s", what, error)
    except Exception:
        log.exception("%s is not reconciled", what)


def _start(kind: Kind, runs: RunStore, trainings: TrainingStore, project: int) -> float | None:
    """Start what is due; returns the unix time for which it is postponed, None: it has begun."""
    now = time.time()
    if kind == Kind.REFRESH:
        candidate = trainings.get(project).candidate
        if not candidate:
            return None
        run, is_new = start_run(runs, project, Scope.UNLABELLED, Trigger.TRAINING, candidate)
        if not is_new:
            return now + POSTPONED_SECONDS
        trainings.note(project, run=run.id)
    elif kind == Kind.PREDICT:
        _, is_new = start_run(runs, project, Scope.MISSING, Trigger.WEBHOOK)
        if not is_new:
            # That run may have listed the tasks before the last ones came.
            return now + schedule.NEW_TASKS_SECONDS
    elif kind == Kind.RECONCILE:
        enqueue_training(trainings, project, TrainingReason.RECONCILE)
    elif kind in {Kind.ROUND, Kind.ADDED}:
        if not enqueue_round(runs.connection, project, added=kind == Kind.ADDED):
            return now + POSTPONED_SECONDS
    else:
        reason = TrainingReason.FORCED if kind == Kind.FORCED else TrainingReason.ENOUGH
        if not enqueue_training(trainings, project, reason):
            return now + POSTPONED_SECONDS
    return None


def _pause(attempts: int) -> float:
    """Seconds before the next retry of a job that has failed ``attempts`` times."""
    return min(LONGEST_PAUSE, PAUSE_SECONDS * 2.0 ** (attempts - 1))


def _is_pausing(ends: float, now: float) -> bool:
    """Whether a pause is not over; one that seems too long was written by a wrong clock."""
    return now < ends <= now + LONGEST_PAUSE


def _reconcile_training(trainings: TrainingStore, project: int) -> None:
    """Retry a training whose job has failed, or was lost with its worker."""
    job = train_id(trainings.connection, project)
    status = queue.statuses(trainings.connection, queue.TRAIN, [job]).get(job)
    now, training = time.time(), trainings.get(project)
    if status in queue.ALIVE or training.state == TrainingState.IDLE:
        return
    if _is_pausing(training.not_before, now):
        return
    if training.not_before:
        enqueue_training(trainings, project, TrainingReason.ENOUGH)
        trainings.note(project, attempts=training.attempts)
        return
    attempts = trainings.count_attempt(project)
    if attempts > (OUTAGE_ATTEMPTS if training.blocked_on else TRAINING_ATTEMPTS):
        trainings.fail(
            project,
            ClipError(
                Message(
                    "The training has failed too often. {why}",
                    why=without_fix(training.blocked_on, queue.language(trainings.connection)),
                ),
                Message(
                    "Read the log of ls-clip worker, then: ls-clip train {project}. The head that "
                    "served before still serves.",
                    project=project,
                ),
            ),
        )
        return
    pause = _pause(attempts)
    log.warning(
        "project %d: its training is retried in %.0f s (failure %d)", project, pause, attempts
    )
    trainings.note(project, not_before=now + pause)


def _reconcile_run(runs: RunStore, run: Run) -> None:
    """Retry jobs of a run that have failed or were lost; set it aside if it cannot be read."""
    try:
        _retry_jobs(runs, run)
    except DamagedRecordError as error:
        runs.set_aside(run.id, error)


def _retry_jobs(runs: RunStore, run: Run) -> None:
    jobs = _expected_jobs(runs, run)
    known = queue.statuses(runs.connection, queue.PREDICT, list(jobs))
    for job, enqueue_again in jobs.items():
        if known.get(job) in queue.ALIVE:
            continue
        if run.state == RunState.LISTING and job not in known and job != plan_id(run.id):
            # The listing job embeds some shards itself: those never were in the queue.
            continue
        now, pause_ends = time.time(), runs.not_before(run.id, job)
        if _is_pausing(pause_ends, now):
            continue
        if not pause_ends:
            # It has just failed or was lost: counted now, retried after a pause.
            attempts = runs.count_attempt(run.id, job)
            if attempts >= (OUTAGE_ATTEMPTS if run.blocked_on else ATTEMPTS):
                _give_up(runs, run, job)
                return
            pause = _pause(attempts)
            runs.not_before(run.id, job, now + pause)
            log.warning(
                "run %s: %s is retried in %.0f s (failure %d)", run.id, job, pause, attempts
            )
            continue
        runs.not_before(run.id, job, 0)
        queue.remove(runs.connection, queue.PREDICT, job)
        enqueue_again()


def _expected_jobs(runs: RunStore, run: Run) -> dict[str, Callable[[], None]]:
    """The jobs that must be queued or running in the run's state, and how to enqueue each."""
    if run.state in {RunState.QUEUED, RunState.LISTING}:
        jobs: dict[str, Callable[[], None]] = {plan_id(run.id): lambda: enqueue_plan(runs, run.id)}
    elif run.state == RunState.IMPORTING or run.shards_done == run.shards:
        return {finish_id(run.id): lambda: enqueue_finish_if_complete(runs, run.id)}
    else:
        jobs = {}
    if run.state in {RunState.LISTING, RunState.EMBEDDING}:
        for shard in runs.shards(run.id):
            if not shard.done:
                number = shard.number
                jobs[shard_id(run.id, number)] = lambda n=number: enqueue_shard(runs, run.id, n)  # type: ignore[misc]
    return jobs


def _give_up(runs: RunStore, run: Run, job: str) -> None:
    error = ClipError(
        in_sequence(Message("{job} has failed too often.", job=job), run.blocked_on),
        Message(
            "Read the log of ls-clip worker, then ask again: ls-clip predict {project}; what is "
            "embedded stays.",
            project=run.project,
        ),
    )
    log.error("run %s has failed: %s", run.id, error)
    runs.end(run.id, RunState.FAILED, error)
    enqueue_sweep(runs, run.id)
