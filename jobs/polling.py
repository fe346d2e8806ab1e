"""Waiting for workers, runs and trainings."""

from __future__ import annotations

import time
from collections.abc import Callable

from redis import Redis

from backend.errors import QueueError
from backend.messages.message import Message
from backend.settings import Settings
from jobs import queue
from jobs.run import ENDED, Run, RunState
from jobs.run_store import RunStore
from jobs.training_state import Training, TrainingState, TrainingStore

POLL_SECONDS = 0.5
BEGIN_SECONDS = 3.0


def require_workers(
    settings: Settings, connection: Redis, name: str = queue.PREDICT, seconds: float = 0.0
) -> None:
    """Refuse to wait if no worker listens.

    Args:
        settings: of this process.
        connection: to Redis.
        name: of the queue.
        seconds: how long to wait for a worker that is starting.

    Raises:
        QueueError: no worker listens, or Redis does not answer.
    """
    until = time.monotonic() + seconds
    with queue.explained():
        while not queue.workers(connection, name):
            if time.monotonic() >= until:
                break
            time.sleep(POLL_SECONDS)
        else:
            return
    raise QueueError(
        Message(
            "No worker listens on the queue {name!r} at {place}.",
            name=name,
            place=queue.place(settings),
        ),
        Message(
            "Start one and keep it running: ls-clip worker; it listens once its encoder is "
            "loaded. (Without LS_CLIP_REDIS_URL, ls-clip connect predicts in its own process.)"
        ),
    )


def wait_until_started(runs: RunStore, run: Run) -> Run:
    """The run a moment later: if the project does not exist, say, it has failed by then."""
    until = time.monotonic() + BEGIN_SECONDS
    early = {RunState.QUEUED, RunState.LISTING}
    while time.monotonic() < until and run.state in early and not run.config:
        time.sleep(0.1)
        run = runs.get(run.id) or run
    return run


def wait(runs: RunStore, run_id: str, report: Callable[[Run], None]) -> Run:
    """Wait until a run has ended.

    Args:
        runs: of all projects.
        run_id: the run.
        report: called about twice a second with the run as it stands.

    Raises:
        QueueError: Redis does not answer, or has forgotten the run.
    """
    while True:
        with queue.explained():
            run = runs.get(run_id)
        if run is None:
            raise QueueError(
                Message("Redis has forgotten the run {run_id}.", run_id=run_id),
                Message(
                    "Let Redis keep its data (appendonly yes), then run ls-clip predict again; "
                    "what is embedded stays."
                ),
            )
        report(run)
        if run.state in ENDED:
            return run
        time.sleep(POLL_SECONDS)


def wait_for_training(trainings: TrainingStore, project: int, number: int) -> Training:
    """Wait until a training that was asked for has ended.

    Args:
        trainings: of all projects.
        project: its number.
        number: from `enqueue.request_training`.

    Raises:
        QueueError: Redis does not answer, or has forgotten the request.
    """
    while True:
        with queue.explained():
            now = trainings.get(project)
        if now.state == TrainingState.IDLE and now.served >= number:
            return now
        if now.requested < number:
            raise QueueError(
                Message("Redis has forgotten the training of project {project}.", project=project),
                Message("Let Redis keep its data (appendonly yes), then ask again."),
            )
        time.sleep(POLL_SECONDS)


def wait_for_refresh(runs: RunStore, training: Training) -> Run:
    """Wait until the run that puts an accepted head, or a newer one, into use has begun.

    Raises:
        QueueError: Redis does not answer, or the head is no longer to be put into use.
    """
    trainings = TrainingStore(runs.connection)
    candidates = {training.candidate}
    while True:
        with queue.explained():
            now = trainings.get(training.project)
            run = runs.get(now.run) if now.run else None
        if run is not None and run.head in candidates:
            return run
        if not now.candidate:
            raise QueueError(
                Message(
                    "{candidate} is not put into use: someone returned to another head.",
                    candidate=training.candidate,
                ),
                Message("See ls-clip heads {project}.", project=training.project),
            )
        candidates.add(now.candidate)
        time.sleep(POLL_SECONDS)
