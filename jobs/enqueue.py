"""Asking for runs, and their jobs into the queue: by name, so that nothing heavy is imported."""

from __future__ import annotations

import logging
import time

from redis import Redis

from jobs import queue, schedule
from jobs.run import EMBEDDING, IMPORTING, Run
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

PLAN = "jobs.bulk_predict.plan"
EMBED = "jobs.bulk_predict.embed"
FINISH = "jobs.bulk_predict.finish"
SWEEP = "jobs.bulk_predict.sweep"
TRAIN = "jobs.train.train"
RECONCILE_ALL = "jobs.train.look_again"
FUNCTIONS = {
    PLAN: "jobs.predict_job.plan",
    EMBED: "jobs.predict_job.embed",
    FINISH: "jobs.predict_job.finish",
    SWEEP: "jobs.predict_job.sweep",
    TRAIN: "jobs.train_job.train",
    RECONCILE_ALL: "jobs.train_job.reconcile_all",
}
"""Name of a job in Redis -> the function that does it: all that a worker runs, whatever stands in
the queue. The names outlast a release, so that jobs that wait in a queue survive an upgrade."""


def start(
    runs: RunStore, project: int, only: str, asked_by: str, head: str = ""
) -> tuple[Run, bool]:
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
    with queue.explained():
        run, fresh = runs.start(project, only, asked_by, head)
        if fresh:
            enqueue_plan(runs, run.id)
            log.info("run %s: project %d, %s tasks, for %s", run.id, project, only, asked_by)
    return run, fresh


def ask_for_training(trainings: TrainingStore, project: int) -> int:
    """Train a project's heads now; returns a number to wait for in `Training.served`.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queue.explained():
        number = trainings.ask(project)
        if not enqueue_training(trainings, project, "forced"):
            # One is going on, which may have looked at the approvals already.
            schedule.add(trainings.connection, schedule.FORCED, project, time.time())
    return number


def enqueue_training(trainings: TrainingStore, project: int, why: str) -> bool:
    """Ask a worker to train; False if that job is queued or running already."""
    job, connection = train_id(project), trainings.connection
    status = queue.statuses(connection, queue.TRAIN, [job]).get(job)
    if status in queue.ALIVE:
        return False
    queue.remove(connection, queue.TRAIN, job)
    trainings.queued(project)
    return queue.enqueue(connection, queue.TRAIN, TRAIN, project, why, job_id=job)


def enqueue_reconcile_all(connection: Redis) -> None:
    """Ask a worker to look at all projects, unless one is asked already."""
    job = "look-again"
    if queue.statuses(connection, queue.TRAIN, [job]).get(job) not in queue.ALIVE:
        queue.remove(connection, queue.TRAIN, job)
        queue.enqueue(connection, queue.TRAIN, RECONCILE_ALL, job_id=job)


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


def enqueue_plan(runs: RunStore, run_id: str) -> None:
    """Ask a worker to list the run's tasks."""
    queue.enqueue(runs.connection, queue.PREDICT, PLAN, run_id, job_id=plan_id(run_id))


def enqueue_shard(runs: RunStore, run_id: str, number: int) -> None:
    """Ask a worker to embed a shard."""
    job = shard_id(run_id, number)
    queue.enqueue(runs.connection, queue.PREDICT, EMBED, run_id, number, job_id=job)


def enqueue_finish_if_complete(runs: RunStore, run_id: str) -> None:
    """Ask a worker to import, once the list is complete and every shard is done."""
    run = runs.get(run_id)
    if run is None or run.shards_done < run.shards:
        return
    if run.state in {EMBEDDING, IMPORTING}:
        job = finish_id(run_id)
        queue.enqueue(runs.connection, queue.PREDICT, FINISH, run_id, job_id=job)


def enqueue_sweep(runs: RunStore, run_id: str) -> None:
    """Ask a worker to delete what a run kept in the store, now that it has ended."""
    queue.enqueue(runs.connection, queue.PREDICT, SWEEP, job_id=f"{run_id}-sweep")


def cancel(runs: RunStore, run: Run) -> bool:
    """Stop a run: jobs that wait are taken out, those that run end at their next batch.

    An import that has begun is not undone.

    Returns:
        Whether it had not ended yet.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queue.explained():
        if not runs.end(run.id, "cancelled"):
            return False
        numbers = range(run.shards)
        jobs = [plan_id(run.id), *(shard_id(run.id, n) for n in numbers), finish_id(run.id)]
        known = queue.statuses(runs.connection, queue.PREDICT, jobs)
        for job, status in known.items():
            if status != "started":
                queue.remove(runs.connection, queue.PREDICT, job)
        enqueue_sweep(runs, run.id)
    return True
