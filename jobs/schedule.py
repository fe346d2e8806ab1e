"""What is to be done for a project at some moment: debounced events, and checks for lost ones.

One sorted set in Redis. Every supervisor reads it every few seconds (`jobs.reconciler`), acts on
what is due, and then removes it: after an error or a crash in between it is done again. RQ's own
scheduler can neither postpone what is scheduled, nor notice that Redis was emptied.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import StrEnum

from redis import Redis

from jobs.queue import key
from jobs.record import DamagedRecordError, readable, set_aside

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What is to be done; the values stand in Redis."""

    TRAIN = "train"
    """Train if enough was approved: set shortly after the approval that made it enough."""
    LATE = "late"
    """The same, some minutes after the last approval: each approval moves it."""
    FORCED = "forced"
    """Train now: somebody asked."""
    PREDICT = "predict"
    """Predict tasks without a prediction of the current version: tasks or labels are new."""
    REFRESH = "refresh"
    """Put the accepted head into use."""
    ROUND = "round"
    """Begin the next round of tasks to review, if the present one is nearly done."""
    ADDED = "added"
    """The same, after a run: tasks may have been added, for which the round has room."""
    RECONCILE = "reconcile"
    """Look for approvals whose event was lost."""


@dataclass(frozen=True)
class Due:
    """An entry whose moment has come.

    Attributes:
        kind: what is to be done.
        project: its number.
        member: the entry in Redis.
        score: its moment there, unix time.
    """

    kind: Kind
    project: int
    member: bytes
    score: float


NEW_TASKS_SECONDS = 60.0
"""Tasks that come one by one start at most one run a minute, because each import takes seconds."""

ROUND_SECONDS = 15.0
"""Reviews that come one by one make the present round be looked at at most so often."""

_DUE = "due"
_KNOWN = "due-known"
# Removes or postpones an entry unless it was scheduled again since it was read.
_SETTLE = """
local score = redis.call('zscore', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then return redis.call('zrem', KEYS[1], ARGV[1]) end
return redis.call('zadd', KEYS[1], ARGV[3], ARGV[1])
"""


def add(connection: Redis, kind: Kind, project: int, moment: float, *, move: bool = False) -> None:
    """Schedule something.

    Args:
        connection: to Redis.
        kind: what.
        project: its number.
        moment: unix time.
        move: replace the moment if it is scheduled already; otherwise the earlier one stays.
    """
    connection.zadd(key(connection, _DUE), {f"{kind}:{project}": moment}, lt=not move)


def moment(connection: Redis, kind: Kind, project: int) -> float | None:
    """The unix time for which this is scheduled; None if it is not."""
    score = connection.zscore(key(connection, _DUE), f"{kind}:{project}")
    return None if score is None else float(score)


def cancel(connection: Redis, project: int) -> None:
    """Nothing is to be done for a project any more."""
    connection.zrem(key(connection, _DUE), *(f"{kind}:{project}" for kind in Kind))


def is_known(connection: Redis) -> bool:
    """Whether Redis still has the schedule; not when it is new, or was emptied."""
    return bool(connection.exists(key(connection, _KNOWN)))


def set_known(connection: Redis) -> None:
    """The schedule has been rebuilt."""
    connection.set(key(connection, _KNOWN), "1")


def due(connection: Redis, horizon: float) -> list[Due]:
    """What is due by now, the longest overdue first; `settle` each after acting on it.

    Kinds that only a newer release knows are left out and stay.

    Args:
        connection: to Redis.
        horizon: seconds; nothing is ever scheduled further ahead, so what seems to be was written
            while a clock was wrong, and is due.
    """
    now = time.time()
    name = key(connection, _DUE)
    try:
        with readable("schedule"):
            raw = connection.zrangebyscore(name, "-inf", now, withscores=True)
            raw += connection.zrangebyscore(name, now + horizon, "+inf", withscores=True)
    except DamagedRecordError as error:
        # It is rebuilt as after Redis was emptied.
        log.error("the schedule is set aside: %s", error)
        set_aside(connection, name)
        connection.delete(key(connection, _KNOWN))
        return []
    entries = []
    for member, score in raw:
        kind, _, project = member.decode(errors="replace").partition(":")
        if kind in [*Kind] and project.isdecimal() and len(project) < 20:
            entries.append(Due(Kind(kind), int(project), member, score))
    return entries


def settle(connection: Redis, entry: Due, again: float | None = None) -> None:
    """Remove an entry that was acted upon, unless it was scheduled again meanwhile.

    Args:
        connection: to Redis.
        entry: from `due`.
        again: unix time for which it is postponed instead; None: it is done.
    """
    moment = "" if again is None else repr(again)
    connection.eval(_SETTLE, 1, key(connection, _DUE), entry.member, repr(entry.score), moment)
