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
from backend.memory import Memory
from backend.runtime import Runtime, runtime
from backend.studio import Studio
from backend.studio_api import UnansweredError
from backend.trainer import MIN_APPROVALS, Pulled, Trainer
from jobs import due, queues
from jobs.trainings import ACCEPTED, NOTHING_NEW, REJECTED, TOO_FEW, Training, Trainings, enough

log = logging.getLogger(__name__)

WORTH_ANOTHER_TRY = (UnansweredError, StoreError, QueueError, RedisError)


def train(project: int, why: str) -> None:
    """Train a project's heads.

    Args:
        project: its number.
        why: ``forced``: whatever is new; ``enough``: only if enough was approved, or nobody goes on
            approving; ``reconcile``: the same, if Label Studio says that anything has changed.
    """
    house = runtime()
    trainings = Trainings(queues.connect(house.settings, patience=8))
    before = trainings.get(project)
    trainings.begin(project)
    try:
        _train(house, trainings, before, "forced" if before.asked > before.served else why)
    except WORTH_ANOTHER_TRY as error:
        with suppress(RedisError):
            trainings.note(project, waits_for=str(error))
        raise
    except ClipError as error:
        log.error("project %d cannot be trained: %s", project, error)
        trainings.fail(project, error)
    moment = time.time() + house.settings.reconcile_every
    due.add(trainings.connection, due.RECONCILE, project, moment, move=True)


def _train(house: Runtime, trainings: Trainings, last: Training, why: str) -> None:
    settings, connection, project = house.settings, trainings.connection, last.project
    studio = Studio(settings)
    looked = studio.last_change(project)
    if last.candidate and due.moment(connection, due.REFRESH, project) is None:
        # Its refresh was lost, or has failed.
        due.add(connection, due.REFRESH, project, time.time())
    if why == "reconcile" and looked == last.looked and not last.pending:
        trainings.end(project, last.outcome, last.reason, notes=last.notes)
        return
    trainer = Trainer(settings, studio, house.predictor)
    pulled = trainer.pull(project)
    trainings.note(project, looked=looked)
    reviewed = pulled.reviewed
    memory = Memory(house.store, pulled.key)
    before = memory.trained_on()
    changed = sum(1 for task in {*reviewed, *before} if reviewed.get(task) != before.get(task))
    wanted = enough(_seen(house, pulled))
    if why != "forced" and changed < wanted:
        trainings.note(project, enough=wanted - changed)
        if not changed:
            reason = "Nothing was approved since the last training."
            trainings.end(project, NOTHING_NEW, reason)
            return
        quiet = pulled.newest + settings.train_after
        if quiet > time.time() or len(reviewed) < MIN_APPROVALS:
            if quiet > time.time():
                due.add(connection, due.LATE, project, quiet, move=True)
            reason = f"{changed} approvals are new; {wanted} start a training at once."
            trainings.end(project, TOO_FEW, reason)
            return
    trained = trainer.train(pulled)
    if trained.made is None:
        trainings.end(project, TOO_FEW, trained.reason, notes=trained.notes)
        return
    memory.set_trained_on(reviewed)
    name = trained.made.name
    told = {"notes": trained.notes, "head": name, "enough": enough(len(reviewed))}
    outcome = REJECTED
    if trained.made.accepted:
        outcome = ACCEPTED
        told |= {"candidate": name, "run": ""}
        now = time.time()
        soon = now if why == "forced" else max(now, last.refreshed + settings.refresh_every)
        due.add(connection, due.REFRESH, project, soon)
    trainings.end(project, outcome, trained.reason, **told)


def _seen(house: Runtime, pulled: Pulled) -> int:
    """Approvals that the serving heads were trained on."""
    heads = house.predictor.heads
    name = heads.serving(pulled.key)
    return heads.get(pulled.key, name).approvals if name in heads.names(pulled.key) else 0
