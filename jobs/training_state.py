"""How the training of each project stands, and what the last one came to. Kept in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from backend.errors import ClipError
from jobs.queue import PREFIX

IDLE, QUEUED, TRAINING = "idle", "queued", "training"
ACCEPTED, REJECTED, TOO_FEW = "accepted", "kept aside", "too few approvals"
NOTHING_NEW, FAILED = "nothing new", "failed"
FIRST = 20
"""Approvals, and changed or deleted ones, that start a training at least."""
SHARE = 0.25
"""The same, as a share of what the serving head was trained on."""
_ACTIVE = f"{PREFIX}trainings"


@dataclass(frozen=True)
class Training:
    """Of one project.

    Attributes:
        project: its number.
        state: ``idle``, ``queued`` or ``training``.
        outcome: of the last one that ended, one of the constants above; empty: none yet.
        reason: why.
        notes: what a person should know, one sentence each.
        head: the set of heads that it made, or empty.
        ended: unix time; 0: never.
        candidate: an accepted set that does not serve yet, or empty.
        run: the run that put the last candidate into use, or empty.
        refreshed: unix time of the last refresh.
        pending: events of approvals since the last training.
        enough: how many of them start one.
        asked: how often somebody asked for a training.
        served: that number when the last one that has ended began.
        attempts: failures of the job that is going on.
        not_before: unix time until which its repetition pauses; 0: it does not.
        waits_for: what it cannot go on without at the moment.
        looked: `LabelStudioClient.last_change` when the approvals were last read.
    """

    project: int
    state: str = IDLE
    outcome: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    head: str = ""
    ended: float = 0.0
    candidate: str = ""
    run: str = ""
    refreshed: float = 0.0
    pending: int = 0
    enough: int = FIRST
    asked: int = 0
    served: int = 0
    attempts: int = 0
    not_before: float = 0.0
    waits_for: str = ""
    looked: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; docs/training.md describes the fields."""
        inner = {"asked", "served", "attempts", "not_before", "looked"}
        told = {name: value for name, value in vars(self).items() if name not in inner}
        return {**told, "notes": list(self.notes)}


class TrainingStore:
    """Of all projects.

    Args:
        connection: to Redis.
    """

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def get(self, project: int) -> Training:
        """How it stands now."""
        raw = self.connection.hgetall(_key(project))
        content = {key.decode(): value.decode() for key, value in raw.items()}
        return Training(
            project,
            content.get("state", IDLE),
            content.get("outcome", ""),
            content.get("reason", ""),
            tuple(json.loads(content.get("notes", "[]"))),
            content.get("head", ""),
            float(content.get("ended", 0)),
            content.get("candidate", ""),
            content.get("run", ""),
            float(content.get("refreshed", 0)),
            int(content.get("pending", 0)),
            int(content.get("enough", FIRST)),
            int(content.get("asked", 0)),
            int(content.get("served", 0)),
            int(content.get("attempts", 0)),
            float(content.get("not_before", 0)),
            content.get("waits_for", ""),
            content.get("looked", ""),
        )

    def active(self) -> list[int]:
        """Projects whose training is queued or going on."""
        return sorted(int(value) for value in self.connection.smembers(_ACTIVE))

    def ask(self, project: int) -> int:
        """Somebody wants a training; returns a number to wait for in `Training.served`."""
        return int(self.connection.hincrby(_key(project), "asked", 1))

    def heard(self, project: int, events: int) -> bool:
        """Count events of approvals; returns whether they are enough for a training."""
        pending = int(self.connection.hincrby(_key(project), "pending", events))
        return pending >= int(self.connection.hget(_key(project), "enough") or FIRST)

    def queued(self, project: int) -> None:
        """Its job is in the queue."""
        self.note(project, state=QUEUED, attempts=0, not_before=0)
        self.connection.sadd(_ACTIVE, str(project))

    def begin(self, project: int) -> None:
        """Its job looks at the approvals now; what is approved from here on is pending."""
        asked, pending = self.connection.hmget(_key(project), "asked", "pending")
        # What is taken here comes back where the training fails.
        self.connection.hincrby(_key(project), "taken", int(pending or 0))
        self.connection.hincrby(_key(project), "pending", -int(pending or 0))
        self.note(project, state=TRAINING, answers=int(asked or 0), waits_for="")
        self.connection.sadd(_ACTIVE, str(project))

    def end(self, project: int, outcome: str, reason: str, **fields: Any) -> None:
        """It has ended."""
        # Whoever asked after it began waits for the next one.
        served = int(self.connection.hget(_key(project), "answers") or 0)
        told = {"outcome": outcome, "reason": reason, "notes": "[]", "served": served}
        done = {"state": IDLE, "ended": time.time(), "waits_for": "", "taken": 0}
        self.note(project, **{**told, **done, **fields})
        self.connection.srem(_ACTIVE, str(project))

    def fail(self, project: int, error: ClipError) -> None:
        """It cannot be done; what was approved is still to be looked at."""
        taken = int(self.connection.hget(_key(project), "taken") or 0)
        self.end(project, FAILED, str(error), looked="")
        self.connection.hincrby(_key(project), "pending", taken)

    def forget(self, project: int) -> None:
        """Forget how a project stands, a head that waits included."""
        self.connection.delete(_key(project))
        self.connection.srem(_ACTIVE, str(project))

    def count_attempt(self, project: int) -> int:
        """One more failure of its job; returns how many there are."""
        return int(self.connection.hincrby(_key(project), "attempts", 1))

    def note(self, project: int, **fields: Any) -> None:
        """Set fields."""
        self.connection.hset(_key(project), mapping=_flat(fields))


def enough(seen: int) -> int:
    """Approvals that start a training, where the serving head was trained on so many."""
    return max(FIRST, int(SHARE * seen))


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(list(value)) if name == "notes" and not isinstance(value, str) else value
        for name, value in fields.items()
    }


def _key(project: int) -> str:
    return f"{PREFIX}training:{project}"
