"""The training job of a project: is there enough that is new? Then fit, and let it be refreshed.

May be repeated at any time: it reads everything anew, and a head is in the store whole or not at
all. What annotators see changes only in the run that follows an accepted head.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from redis.exceptions import RedisError

from backend.errors import ClipError, QueueError, StoreError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.labelstudio.transport import StudioNotFoundError, UnansweredError
from backend.runtime import Runtime, process_runtime
from backend.storage.project_state import ProjectState
from backend.training.head_trainer import MIN_APPROVALS, HeadTrainer, Pulled
from jobs import queue, schedule
from jobs.training_state import (
    ACCEPTED,
    NOTHING_NEW,
    REJECTED,
    TOO_FEW,
    Training,
    TrainingStore,
    enough,
)

log = logging.getLogger(__name__)

WORTH_ANOTHER_TRY = (UnansweredError, StoreError, QueueError, RedisError)


def train(project: int, why: str) -> None:
    """Train a project's heads.

    Args:
        project: its number.
        why: ``forced``: whatever is new; ``enough``: only if enough was approved, or nobody goes on
            approving; ``reconcile``: the same, if Label Studio says that anything has changed.
    """
    runtime = process_runtime()
    trainings = TrainingStore(queue.connect(runtime.settings, retries=8))
    before = trainings.get(project)
    trainings.begin(project)
    # Before anything can fail: the look that finds what this one may lose.
    moment = time.time() + runtime.settings.reconcile_every
    schedule.add(trainings.connection, schedule.RECONCILE, project, moment, move=True)
    try:
        _train(runtime, trainings, before, "forced" if before.asked > before.served else why)
    except WORTH_ANOTHER_TRY as error:
        with suppress(RedisError):
            trainings.note(project, waits_for=str(error))
        raise
    except StudioNotFoundError as error:
        log.error("project %d is not looked at any more: %s", project, error)
        trainings.fail(project, error)
        schedule.forget(trainings.connection, project)
    except ClipError as error:
        log.error("project %d cannot be trained: %s", project, error)
        trainings.fail(project, error)


def _train(runtime: Runtime, trainings: TrainingStore, last: Training, why: str) -> None:
    settings, connection, project = runtime.settings, trainings.connection, last.project
    studio = LabelStudioClient(settings)
    key = project_key(studio.projects.get(project))
    heads = runtime.versions.heads
    looked = studio.tasks.last_change(project)
    accepted, back = heads.candidate(key), heads.rolled_back(key)
    if last.candidate != accepted:
        trainings.note(project, candidate=accepted)
    if accepted and (
        last.candidate != accepted or schedule.moment(connection, schedule.REFRESH, project) is None
    ):
        # Its refresh has failed, or was lost with Redis.
        schedule.add(connection, schedule.REFRESH, project, time.time())
    if why == "reconcile" and looked == last.looked and not last.pending and not back:
        _end_as_before(trainings, last)
        return
    trainer = HeadTrainer(settings, studio, runtime.versions, runtime.embedder)
    pulled = trainer.pull(project)
    trainings.note(project, looked=looked)
    not_yet = _not_yet(runtime, trainings, trainer, pulled, why)
    if not_yet is not None:
        outcome, reason = not_yet
        quiet = why != "forced" and not back and last.outcome in {ACCEPTED, REJECTED}
        if quiet and outcome == NOTHING_NEW:
            # A look that finds nothing does not hide what the last training came to.
            _end_as_before(trainings, last)
        else:
            trainings.end(project, outcome, reason)
        return
    trained = trainer.train(pulled)
    if trained.made is None:
        trainings.end(project, TOO_FEW, trained.reason, notes=trained.notes)
        return
    name, reviewed = trained.made.name, pulled.reviewed
    if trained.made.accepted:
        # In the store before anything else, so that not even an empty Redis loses it.
        heads.set_candidate(key, name)
    ProjectState(runtime.store, key).set_trained_on(reviewed, trainer.made_from(pulled))
    told = {"notes": trained.notes, "head": name, "enough": enough(len(reviewed))}
    if not trained.made.accepted:
        trainings.end(project, REJECTED, trained.reason, **told)
        return
    trainings.end(project, ACCEPTED, trained.reason, **told, candidate=name, run="")
    now = time.time()
    soon = now if why == "forced" else max(now, last.refreshed + settings.refresh_every)
    schedule.add(connection, schedule.REFRESH, project, soon)


def _end_as_before(trainings: TrainingStore, last: Training) -> None:
    trainings.end(last.project, last.outcome, last.reason, notes=last.notes, ended=last.ended)


def _not_yet(
    runtime: Runtime, trainings: TrainingStore, trainer: HeadTrainer, pulled: Pulled, why: str
) -> tuple[str, str] | None:
    """Outcome and reason where nothing is to be trained now."""
    heads, key, connection = runtime.versions.heads, pulled.key, trainings.connection
    project = int(key.partition(".")[0])
    memory = ProjectState(runtime.store, key)
    reviewed, (before, made_from) = pulled.reviewed, memory.trained_on()
    if why != "forced" and heads.rolled_back(key):
        memory.set_trained_on(reviewed, made_from)
        heads.clear_rollback(key)
        serving = heads.serving(key)
        return NOTHING_NEW, f"Gone back to {serving}; what is approved from now on counts."
    names = heads.names(key)
    if names and trainer.made_from(pulled) == made_from:
        newest = names[-1]
        reason = f"Nothing has changed since {newest} was trained."
        if heads.candidate(key):
            schedule.add(connection, schedule.REFRESH, project, time.time())
        elif newest != heads.serving(key) and heads.get(key, newest).accepted:
            reason += f" ls-clip rollback {project} {newest} puts it into use."
        return NOTHING_NEW, reason
    changed = sum(1 for task in {*reviewed, *before} if reviewed.get(task) != before.get(task))
    wanted = enough(_seen(runtime, pulled))
    if why == "forced" or changed >= wanted:
        return None
    trainings.note(project, enough=wanted - changed)
    if not changed:
        return NOTHING_NEW, "Nothing was approved since the last training."
    quiet = pulled.newest + runtime.settings.train_after
    if quiet > time.time():
        schedule.add(connection, schedule.LATE, project, quiet, move=True)
    elif len(reviewed) >= MIN_APPROVALS:
        return None
    return TOO_FEW, f"New approvals: {changed}; {wanted} start a training at once."


def reconcile_all() -> None:
    """Redis has forgotten what is due: look at every project that the store knows."""
    runtime = process_runtime()
    connection = queue.connect(runtime.settings, retries=8)
    now = time.time()
    for key in runtime.store.artifacts.folder_names("projects"):
        number = key.partition(".")[0]
        if number.isascii() and number.isdigit():
            schedule.add(connection, schedule.RECONCILE, int(number), now)
    schedule.known(connection)


def _seen(runtime: Runtime, pulled: Pulled) -> int:
    """Approvals that the serving heads were trained on."""
    heads = runtime.versions.heads
    name = heads.serving(pulled.key)
    return heads.get(pulled.key, name).approvals if name in heads.names(pulled.key) else 0
