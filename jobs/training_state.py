"""How the training of each project stands, and how the last one ended. Kept in Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from pydantic import Field, Json
from redis import Redis

from backend.errors import ClipError
from backend.messages.catalogue import localized
from backend.training.clicks_text import with_text
from backend.vlpl.clicks import Clicks
from jobs import queue
from jobs.queue import key
from jobs.record import SCHEMA, DamagedRecordError, Record, readable, set_aside

log = logging.getLogger(__name__)

MIN_NEW_APPROVALS = 12
"""The least number of new, changed or deleted approvals that start a training."""
NEW_APPROVALS_SHARE = 0.25
"""The same, as a share of the approvals that the serving head was trained on."""


class TrainingState(StrEnum):
    """Where a project's training is; the values stand in Redis and in JSON answers."""

    IDLE = "idle"
    QUEUED = "queued"
    TRAINING = "training"


class Outcome(StrEnum):
    """How a project's last training ended; the values stand in Redis and in JSON answers."""

    NONE = ""
    """There was no training yet."""
    ACCEPTED = "accepted"
    REJECTED = "kept aside"
    """The new head was significantly worse than the one that serves."""
    TOO_FEW = "too few approvals"
    NOTHING_NEW = "nothing new"
    FAILED = "failed"


class TrainingReason(StrEnum):
    """Why a training job was enqueued; the values are arguments of jobs in Redis."""

    FORCED = "forced"
    """Somebody asked: train on whatever is new."""
    ENOUGH = "enough"
    """Train if enough was approved, or if nobody goes on approving."""
    RECONCILE = "reconcile"
    """The same, if Label Studio says that anything has changed."""


class Training(Record):
    """Of one project.

    Attributes:
        project: its number.
        state: where it is.
        outcome: of the last one that ended.
        reason: why it ended like that.
        notes: what a person should know, one sentence each.
        head: the set of heads that it made, or empty.
        ended: unix time; 0: never.
        candidate: an accepted set that does not serve yet, or empty.
        run: the run that put the last candidate into use, or empty.
        refreshed: unix time of the last refresh.
        clicks: `Clicks` of ``head``, as a dict; None where nothing was measured.
        serving_clicks: the same of what was in use when it was made.
        pending: approvals reported by events since the last training began.
        needed: how many of them start a training.
        blocked_on: what it cannot go on without at the moment.
        requested: how often somebody asked for a training.
        answering: that number when the training that is going on began.
        served: that number when the last training that has ended began.
        taken: ``pending`` when the training that is going on began.
        attempts: failures of the job that is going on.
        not_before: unix time until which its repetition pauses; 0: it does not.
        last_change: `Tasks.last_change` when the approvals were last read.
    """

    project: int
    state: TrainingState = TrainingState.IDLE
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    notes: Json[tuple[str, ...]] = ()
    head: str = ""
    ended: float = 0.0
    candidate: str = ""
    run: str = ""
    refreshed: float = 0.0
    clicks: Json[dict[str, Any] | None] = None
    serving_clicks: Json[dict[str, Any] | None] = None
    pending: int = 0
    needed: int = Field(MIN_NEW_APPROVALS, alias="enough")
    blocked_on: str = Field("", alias="waits_for")
    requested: int = Field(0, alias="asked", exclude=True)
    answering: int = Field(0, alias="answers", exclude=True)
    served: int = Field(0, exclude=True)
    taken: int = Field(0, exclude=True)
    attempts: int = Field(0, exclude=True)
    not_before: float = Field(0.0, exclude=True)
    last_change: str = Field("", alias="looked", exclude=True)

    @property
    def missing(self) -> int:
        """How many more approvals start a training, 1 at least."""
        return max(1, self.needed - self.pending)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; clicks come with ``text``, the sentence for a person."""
        answer = super().as_dict()
        for name, clicks in (("clicks", self.clicks), ("serving_clicks", self.serving_clicks)):
            if clicks is not None:
                answer[name] = with_text(Clicks.from_dict(clicks), self.missing)
        return answer


class TrainingStore:
    """Of all projects.

    Args:
        connection: to Redis.
    """

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self._active = key(connection, "trainings")

    def get(self, project: int) -> Training:
        """How it stands now; docs/training.md describes the JSON of its ``as_dict``.

        Raises:
            DamagedRecordError: it cannot be read, and is set aside: the next call begins anew.
            QueueError: a newer release wrote it.
        """
        with self._intact(project):
            raw = self.connection.hgetall(self._key(project))
            content = {
                name.decode(errors="replace"): value.decode(errors="replace")
                for name, value in raw.items()
            }
            return Training.from_wire(content, project=project)

    @contextmanager
    def _intact(self, project: int) -> Iterator[None]:
        try:
            with readable("training"):
                yield
        except DamagedRecordError as error:
            log.error("the training of project %d is set aside: %s", project, error)
            set_aside(self.connection, self._key(project))
            self.connection.srem(self._active, str(project))
            raise

    def active(self) -> list[int]:
        """Projects whose training is queued or going on."""
        projects = []
        for member in self.connection.smembers(self._active):
            name = member.decode(errors="replace")
            if name.isdecimal() and len(name) < 20:
                projects.append(int(name))
            else:
                log.error("%r is no project whose training could be going on", name[:100])
                self.connection.srem(self._active, member)
        return sorted(projects)

    def request(self, project: int) -> int:
        """Somebody wants a training; returns a number to wait for in `Training.served`."""
        return self._increase(project, "requested", 1)

    def count_approvals(self, project: int, count: int) -> bool:
        """Add to the pending approvals; returns whether they are enough for a training."""
        pending = self._increase(project, "pending", count)
        return pending >= self.get(project).needed

    def queued(self, project: int) -> None:
        """Its job is in the queue."""
        self.note(project, state=TrainingState.QUEUED, attempts=0, not_before=0)
        self.connection.sadd(self._active, str(project))

    def begin(self, project: int) -> None:
        """Its job reads the approvals now; what is approved from here on is pending."""
        now = self.get(project)
        # What is taken here comes back if the training fails.
        self._increase(project, "taken", now.pending)
        self._increase(project, "pending", -now.pending)
        self.note(project, state=TrainingState.TRAINING, answering=now.requested, blocked_on="")
        self.connection.sadd(self._active, str(project))

    def end(self, project: int, outcome: Outcome, reason: str, **fields: Any) -> None:
        """It has ended; ``fields`` are others of `Training` to set."""
        written: dict[str, Any] = {
            "outcome": outcome,
            "reason": localized(reason, queue.language(self.connection)),
            "notes": (),
            # Whoever asked after it began waits for the next one.
            "served": self.get(project).answering,
            "state": TrainingState.IDLE,
            "ended": time.time(),
            "blocked_on": "",
            "taken": 0,
        }
        self.note(project, **{**written, **fields})
        self.connection.srem(self._active, str(project))

    def fail(self, project: int, error: ClipError) -> None:
        """It cannot be done; what it took is pending again."""
        taken = self.get(project).taken
        self.end(
            project, Outcome.FAILED, error.in_words(queue.language(self.connection)), last_change=""
        )
        self._increase(project, "pending", taken)

    def purge(self, project: int) -> None:
        """Delete how a project stands, a head that waits for its refresh included."""
        self.connection.delete(self._key(project))
        self.connection.srem(self._active, str(project))

    def count_attempt(self, project: int) -> int:
        """One more failure of its job; returns how many there are."""
        return self._increase(project, "attempts", 1)

    def note(self, project: int, **fields: Any) -> None:
        """Set fields of `Training`."""
        self.connection.hset(self._key(project), mapping=Training.to_wire(fields))
        self.connection.hsetnx(self._key(project), "schema", SCHEMA)

    def _key(self, project: int) -> str:
        return key(self.connection, f"training:{project}")

    def _increase(self, project: int, field: str, by: int) -> int:
        (name,) = Training.to_wire({field: by})
        with self._intact(project):
            self.connection.hsetnx(self._key(project), "schema", SCHEMA)
            return int(self.connection.hincrby(self._key(project), name, by))


def approvals_needed(seen: int) -> int:
    """Approvals that start a training, if the serving head was trained on ``seen``.

    What serves after fewer than `MIN_NEW_APPROVALS` is zero-shot, corrected at best: the first head
    that learns is not kept waiting for as many again.
    """
    if seen < MIN_NEW_APPROVALS:
        return MIN_NEW_APPROVALS - seen
    return max(MIN_NEW_APPROVALS, int(NEW_APPROVALS_SHARE * seen))
