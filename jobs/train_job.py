"""The training job of a project: train a head if enough is new, and schedule its refresh.

It may be repeated at any time: it reads everything anew, and a head is stored completely or not at
all. What annotators see changes only in the run that follows an accepted head.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from backend.errors import ClipError, QueueError, StoreError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.failures import StudioNotFoundError, UnansweredError
from backend.labelstudio.projects import project_key
from backend.messages.message import Message, in_sequence
from backend.runtime import Runtime, process_runtime
from backend.storage.project_state import ProjectState
from backend.training.head_trainer import MIN_APPROVALS, HeadTrainer
from backend.training.pulling import Pulled
from backend.vlpl.clicks import Clicks
from jobs import queue, schedule
from jobs.schedule import Kind
from jobs.training_state import (
    Outcome,
    Training,
    TrainingReason,
    TrainingStore,
    approvals_needed,
)

log = logging.getLogger(__name__)

RETRIED = (UnansweredError, StoreError, QueueError, RedisError)


def train(project: int, reason: str) -> None:
    """Train a project's heads.

    Args:
        project: its number.
        reason: one of `TrainingReason`, as it stands in the queue.
    """
    runtime = process_runtime()
    trainings = TrainingStore(queue.connect(runtime.settings, retries=8))
    before = trainings.get(project)
    trainings.begin(project)
    # Before anything can fail: reconciling finds what this job may lose.
    moment = time.time() + runtime.settings.reconcile_every
    schedule.add(trainings.connection, Kind.RECONCILE, project, moment, move=True)
    # In case the events of reviews were lost.
    schedule.add(trainings.connection, Kind.ROUND, project, time.time())
    try:
        is_requested = before.requested > before.served
        why = TrainingReason.FORCED if is_requested else TrainingReason(reason)
        _train(runtime, trainings, before, why)
    except RETRIED as error:
        with suppress(RedisError):
            trainings.note(project, blocked_on=error.in_words(runtime.settings.language))
        raise
    except StudioNotFoundError as error:
        log.error("project %d is gone and no longer trained: %s", project, error)
        trainings.fail(project, error)
        schedule.cancel(trainings.connection, project)
    except ClipError as error:
        log.error("project %d cannot be trained: %s", project, error)
        trainings.fail(project, error)


def _train(runtime: Runtime, trainings: TrainingStore, last: Training, why: TrainingReason) -> None:
    settings, connection, project = runtime.settings, trainings.connection, last.project
    studio = LabelStudioClient(settings)
    key = project_key(studio.projects.get(project))
    heads = runtime.versions.heads
    last_change = studio.tasks.last_change(project)
    candidate, rolled_back = heads.candidate(key), heads.rolled_back(key)
    if candidate in heads.names(key) and runtime.versions.is_refused(key, candidate):
        # Accepted before the encoder was changed: its refresh would fail again and again.
        log.warning("project %d: %s is for another encoder and will not serve", project, candidate)
        heads.set_candidate(key, "")
        candidate = ""
    if last.candidate != candidate:
        trainings.note(project, candidate=candidate)
    if candidate and (
        last.candidate != candidate or schedule.moment(connection, Kind.REFRESH, project) is None
    ):
        # Its refresh has failed, or was lost with Redis.
        schedule.add(connection, Kind.REFRESH, project, time.time())
    is_unchanged = last_change == last.last_change and not last.pending and not rolled_back
    if why == TrainingReason.RECONCILE and is_unchanged:
        _end_as_before(trainings, last)
        return
    trainer = HeadTrainer(settings, studio, runtime.versions, runtime.embedder)
    pulled = trainer.pull(project)
    trainings.note(project, last_change=last_change)
    not_now = _reason_not_to_train(runtime, trainings, trainer, pulled, why)
    if not_now is not None:
        outcome, reason = not_now
        nothing_new = outcome == Outcome.NOTHING_NEW and not rolled_back
        made_head = last.outcome in {Outcome.ACCEPTED, Outcome.REJECTED}
        if why != TrainingReason.FORCED and nothing_new and made_head:
            # Finding nothing new does not hide the outcome of the last training.
            _end_as_before(trainings, last)
        else:
            trainings.end(project, outcome, reason)
        return
    trained = trainer.train(pulled)
    if trained.made is None:
        trainings.end(project, Outcome.TOO_FEW, trained.reason, notes=trained.notes)
        return
    name, reviewed = trained.made.name, pulled.reviewed
    if trained.made.accepted:
        # In the store first, so that it survives the loss of Redis.
        heads.set_candidate(key, name)
    ProjectState(runtime.store, key).set_trained_on(reviewed, trainer.made_from(pulled))
    fields = {
        "notes": trained.notes,
        "head": name,
        "needed": approvals_needed(len(reviewed)),
        "clicks": _as_dict(trained.made.clicks),
        "serving_clicks": _as_dict(trained.made.serving_clicks),
    }
    if not trained.made.accepted:
        trainings.end(project, Outcome.REJECTED, trained.reason, **fields)
        return
    trainings.end(project, Outcome.ACCEPTED, trained.reason, **fields, candidate=name, run="")
    now = time.time()
    is_forced = why == TrainingReason.FORCED
    # A clock that has jumped back leaves a refresh in the future.
    refreshed = min(last.refreshed, now)
    moment = now if is_forced else max(now, refreshed + settings.refresh_every)
    schedule.add(connection, Kind.REFRESH, project, moment)


def _as_dict(clicks: Clicks | None) -> dict[str, Any] | None:
    return None if clicks is None else clicks.as_dict()


def _end_as_before(trainings: TrainingStore, last: Training) -> None:
    trainings.end(last.project, last.outcome, last.reason, notes=last.notes, ended=last.ended)


def _reason_not_to_train(
    runtime: Runtime,
    trainings: TrainingStore,
    trainer: HeadTrainer,
    pulled: Pulled,
    why: TrainingReason,
) -> tuple[Outcome, str] | None:
    """Outcome and reason if nothing is to be trained now, else None."""
    heads, key, connection = runtime.versions.heads, pulled.key, trainings.connection
    project = int(key.partition(".")[0])
    state = ProjectState(runtime.store, key)
    reviewed, (before, made_from) = pulled.reviewed, state.trained_on()
    if why != TrainingReason.FORCED and heads.rolled_back(key):
        state.set_trained_on(reviewed, made_from)
        heads.clear_rollback(key)
        serving = heads.serving(key)
        return Outcome.NOTHING_NEW, Message(
            "Gone back to {serving}; what is approved from now on counts.", serving=serving
        )
    names = heads.names(key)
    if names and trainer.made_from(pulled) == made_from:
        newest = names[-1]
        reason = Message("Nothing has changed since {newest} was trained.", newest=newest)
        if heads.candidate(key):
            schedule.add(connection, Kind.REFRESH, project, time.time())
        elif newest != heads.serving(key) and heads.get(key, newest).accepted:
            use = Message(
                "ls-clip rollback {project} {newest} puts it into use.",
                project=project,
                newest=newest,
            )
            reason = in_sequence(reason, use)
        return Outcome.NOTHING_NEW, reason
    changed = sum(1 for task in {*reviewed, *before} if reviewed.get(task) != before.get(task))
    needed = approvals_needed(_approvals_of_serving(runtime, pulled))
    if why == TrainingReason.FORCED or changed >= needed:
        return None
    trainings.note(project, needed=needed - changed)
    if not changed:
        return Outcome.NOTHING_NEW, Message("Nothing was approved since the last training.")
    late = pulled.newest + runtime.settings.train_after
    if late > time.time():
        schedule.add(connection, Kind.LATE, project, late, move=True)
    elif len(reviewed) >= MIN_APPROVALS:
        return None
    return Outcome.TOO_FEW, Message(
        "New approvals: {changed}; {needed} start a training at once.",
        changed=changed,
        needed=needed,
    )


def reconcile_all() -> None:
    """Redis has lost its schedule: reconcile every connected project that the store knows."""
    runtime = process_runtime()
    connection = queue.connect(runtime.settings, retries=8)
    now = time.time()
    for key in runtime.store.artifacts.folder_names("projects"):
        number = key.partition(".")[0]
        is_ours = number.isascii() and number.isdigit()
        if is_ours and ProjectState(runtime.store, key).is_connected():
            schedule.add(connection, Kind.RECONCILE, int(number), now)
    schedule.set_known(connection)


def _approvals_of_serving(runtime: Runtime, pulled: Pulled) -> int:
    """How many approvals the serving heads were trained on."""
    heads = runtime.versions.heads
    name = heads.serving(pulled.key)
    return heads.get(pulled.key, name).approvals if name in heads.names(pulled.key) else 0
