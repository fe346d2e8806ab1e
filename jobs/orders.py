"""Asking for runs, and their jobs into the queue: by name, so that nothing heavy is imported."""

from __future__ import annotations

import logging
import time

from redis import Redis

from jobs import due, queues
from jobs.runs import EMBEDDING, IMPORTING, Run, Runs
from jobs.trainings import Trainings

log = logging.getLogger(__name__)

PLAN = "jobs.bulk_predict.plan"
EMBED = "jobs.bulk_predict.embed"
FINISH = "jobs.bulk_predict.finish"
SWEEP = "jobs.bulk_predict.sweep"
TRAIN = "jobs.train.train"
LOOK_AGAIN = "jobs.train.look_again"
RUNNABLE = frozenset({PLAN, EMBED, FINISH, SWEEP, TRAIN, LOOK_AGAIN})
"""All that a worker runs, whatever stands in the queue."""


def start(runs: Runs, project: int, only: str, asked_by: str, head: str = "") -> tuple[Run, bool]:
    """Ask for a run of a project; joins the one that is going on.

    Args:
        runs: of all projects.
        project: its number in Label Studio.
        only: one of `jobs.runs.ONLY`.
        asked_by: who, for the list of runs.
        head: the set of heads that it puts into use; empty: the one that serves stays.

    Returns:
        The run, and whether it is new.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queues.explained():
        run, fresh = runs.start(project, only, asked_by, head)
        if fresh:
            enqueue_plan(runs, run.id)
            log.info("run %s: project %d, %s tasks, for %s", run.id, project, only, asked_by)
    return run, fresh


def ask_for_training(trainings: Trainings, project: int) -> int:
    """Train a project's heads now; returns a number to wait for in `Training.served`.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queues.explained():
        number = trainings.ask(project)
        if not enqueue_training(trainings, project, "forced"):
            # One is going on, which may have looked at the approvals already.
            due.add(trainings.connection, due.FORCED, project, time.time())
    return number


def enqueue_training(trainings: Trainings, project: int, why: str) -> bool:
    """Ask a worker to train, see `jobs.train.train`; False if that job is on its way already."""
    job, connection = train_id(project), trainings.connection
    status = queues.statuses(connection, queues.TRAIN, [job]).get(job)
    if status in queues.ALIVE:
        return False
    queues.remove(connection, queues.TRAIN, job)
    trainings.queued(project)
    return queues.enqueue(connection, queues.TRAIN, TRAIN, project, why, job_id=job)


def enqueue_look_again(connection: Redis) -> None:
    """Ask a worker to look at all projects, unless one is asked already."""
    job = "look-again"
    if queues.statuses(connection, queues.TRAIN, [job]).get(job) not in queues.ALIVE:
        queues.remove(connection, queues.TRAIN, job)
        queues.enqueue(connection, queues.TRAIN, LOOK_AGAIN, job_id=job)


def train_id(project: int) -> str:
    """The id of a project's training job."""
    return f"{project}-train"


def plan_id(run_id: str) -> str:
    """The id of a run's listing job."""
    return f"{run_id}-plan"


def shard_id(run_id: str, number: int) -> str:
    """The id of the job that embeds a shard."""
    return f"{run_id}-shard-{number}"


def finish_id(run_id: str) -> str:
    """The id of a run's last job."""
    return f"{run_id}-finish"


def enqueue_plan(runs: Runs, run_id: str) -> None:
    """Ask a worker to list the run's tasks."""
    queues.enqueue(runs.connection, queues.PREDICT, PLAN, run_id, job_id=plan_id(run_id))


def enqueue_shard(runs: Runs, run_id: str, number: int) -> None:
    """Ask a worker to embed a shard."""
    job = shard_id(run_id, number)
    queues.enqueue(runs.connection, queues.PREDICT, EMBED, run_id, number, job_id=job)


def enqueue_finish_if_complete(runs: Runs, run_id: str) -> None:
    """Ask a worker to import, once the list is complete and every shard is done."""
    run = runs.get(run_id)
    if run is None or run.shards_done < run.shards:
        return
    if run.state in {EMBEDDING, IMPORTING}:
        job = finish_id(run_id)
        queues.enqueue(runs.connection, queues.PREDICT, FINISH, run_id, job_id=job)


def enqueue_sweep(runs: Runs, run_id: str) -> None:
    """Ask a worker to delete what a run kept in the store, now that it has ended."""
    queues.enqueue(runs.connection, queues.PREDICT, SWEEP, job_id=f"{run_id}-sweep")


def cancel(runs: Runs, run: Run) -> bool:
    """Stop a run: jobs that wait are taken out, those that run end at their next batch.

    An import that has begun is not undone.

    Returns:
        Whether it had not ended yet.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queues.explained():
        if not runs.end(run.id, "cancelled"):
            return False
        numbers = range(run.shards)
        jobs = [plan_id(run.id), *(shard_id(run.id, n) for n in numbers), finish_id(run.id)]
        known = queues.statuses(runs.connection, queues.PREDICT, jobs)
        for job, status in known.items():
            if status != "started":
                queues.remove(runs.connection, queues.PREDICT, job)
        enqueue_sweep(runs, run.id)
    return True
