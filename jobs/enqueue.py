"""Starting and cancelling runs and trainings.

Jobs are enqueued by name, so that nothing heavy is imported.
"""

from __future__ import annotations

import logging
import time

from redis import Redis
from rq.job import JobStatus

from backend.errors import RunInProgressError
from backend.messages.message import Message
from jobs import queue, schedule
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingReason, TrainingStore

log = logging.getLogger(__name__)

PLAN = "jobs.bulk_predict.plan"
EMBED = "jobs.bulk_predict.embed"
FINISH = "jobs.bulk_predict.finish"
SWEEP = "jobs.bulk_predict.sweep"
TRAIN = "jobs.train.train"
RECONCILE_ALL = "jobs.train.look_again"
REFRESH_ROUND = "jobs.review.refresh_round"
FUNCTIONS = {
    PLAN: "jobs.predict_job.plan",
    EMBED: "jobs.predict_job.embed",
    FINISH: "jobs.predict_job.finish",
    SWEEP: "jobs.predict_job.sweep",
    TRAIN: "jobs.train_job.train",
    RECONCILE_ALL: "jobs.train_job.reconcile_all",
    REFRESH_ROUND: "jobs.round_job.refresh_round",
}
"""Name of a job in Redis -> the function that does it; a worker runs no others, whatever is in the
queue. The names stay the same between releases, so that waiting jobs survive an upgrade."""


def start_run(
    runs: RunStore,
    project: int,
    scope: Scope,
    trigger: Trigger,
    head: str = "",
    *,
    revalidate: bool = False,
) -> tuple[Run, bool]:
    """Start a run of a project, or join the one that is going on.

    Args:
        runs: of all projects.
        project: its number in Label Studio.
        scope: which tasks it is about.
        trigger: what asks for it.
        head: the set of heads that it puts into use; empty: the one that serves stays.
        revalidate: whether the hosts of stored images are asked if they have changed.

    Returns:
        The run, and whether it is new.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queue.explained():
        run, is_new = runs.start(project, scope, trigger, head, revalidate)
        if is_new:
            enqueue_plan(runs, run.id)
            log.info(
                "run %s: project %d, scope %s, requested by %s", run.id, project, scope, trigger
            )
    return run, is_new


def require_revalidation(run: Run, revalidate: bool) -> None:
    """Refuse to join a run that does not revalidate, where that is asked for.

    Raises:
        RunInProgressError: the run does not revalidate.
    """
    if revalidate and not run.revalidate:
        raise RunInProgressError(
            Message(
                "Project {project} has a run in progress that does not revalidate: {id}.",
                project=run.project,
                id=run.id,
            ),
            Message(
                "Wait for its end (ls-clip runs {project}), then ask again.", project=run.project
            ),
        )


def request_training(trainings: TrainingStore, project: int) -> int:
    """Train a project's heads now; returns a number to wait for in `Training.served`.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queue.explained():
        number = trainings.request(project)
        if not enqueue_training(trainings, project, TrainingReason.FORCED):
            # The one that is going on may have read the approvals already.
            schedule.add(trainings.connection, Kind.FORCED, project, time.time())
    return number


def enqueue_training(trainings: TrainingStore, project: int, reason: TrainingReason) -> bool:
    """Ask a worker to train; False if that job is queued or running already."""
    connection = trainings.connection
    job = train_id(connection, project)
    status = queue.statuses(connection, queue.TRAIN, [job]).get(job)
    if status in queue.ALIVE:
        return False
    queue.remove(connection, queue.TRAIN, job)
    trainings.queued(project)
    return queue.enqueue(connection, queue.TRAIN, TRAIN, project, reason, job_id=job)


def enqueue_reconcile_all(connection: Redis) -> None:
    """Ask a worker to reconcile all projects, unless that job is there already."""
    job = queue.own_name(connection, "look-again")
    if queue.statuses(connection, queue.TRAIN, [job]).get(job) not in queue.ALIVE:
        queue.remove(connection, queue.TRAIN, job)
        queue.enqueue(connection, queue.TRAIN, RECONCILE_ALL, job_id=job)


def enqueue_round(connection: Redis, project: int, *, added: bool) -> bool:
    """Ask a worker to refresh a project's round; False if that job is there already.

    Trainings and these jobs share a queue: a round can wait for a training, and suggestions wait
    for neither.
    """
    job = queue.own_name(connection, f"{project}-round")
    if queue.statuses(connection, queue.TRAIN, [job]).get(job) in queue.ALIVE:
        return False
    queue.remove(connection, queue.TRAIN, job)
    return queue.enqueue(connection, queue.TRAIN, REFRESH_ROUND, project, added, job_id=job)


def train_id(connection: Redis, project: int) -> str:
    """The id of a project's training job."""
    return queue.own_name(connection, f"{project}-train")


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
    if run.state in {RunState.EMBEDDING, RunState.IMPORTING}:
        job = finish_id(run_id)
        queue.enqueue(runs.connection, queue.PREDICT, FINISH, run_id, job_id=job)


def enqueue_sweep(runs: RunStore, run_id: str) -> None:
    """Ask a worker to delete what a run kept in the store, now that it has ended."""
    queue.enqueue(runs.connection, queue.PREDICT, SWEEP, job_id=f"{run_id}-sweep")


def cancel(runs: RunStore, run: Run) -> bool:
    """Stop a run: waiting jobs are removed, running ones end at their next batch.

    An import that has begun is not undone.

    Returns:
        Whether it had not ended yet.

    Raises:
        QueueError: Redis cannot be reached.
    """
    with queue.explained():
        if not runs.end(run.id, RunState.CANCELLED):
            return False
        numbers = range(run.shards)
        jobs = [plan_id(run.id), *(shard_id(run.id, n) for n in numbers), finish_id(run.id)]
        known = queue.statuses(runs.connection, queue.PREDICT, jobs)
        for job, status in known.items():
            if status != JobStatus.STARTED:
                queue.remove(runs.connection, queue.PREDICT, job)
        enqueue_sweep(runs, run.id)
    return True
