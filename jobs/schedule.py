"""What is to be done for a project at some moment: debounced events, and checks for lost ones.

One sorted set in Redis. Every supervisor reads it every few seconds (`jobs.reconciler`); whoever
removes an entry acts on it. RQ's own scheduler would be one more process that can be missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum

from redis import Redis

from jobs.queue import PREFIX


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
    RECONCILE = "reconcile"
    """Look for approvals whose event was lost."""


NEW_TASKS_SECONDS = 60.0
"""Tasks that come one by one start at most one run a minute, because each import takes seconds."""

_DUE = f"{PREFIX}due"
_KNOWN = f"{PREFIX}due-known"


def add(connection: Redis, kind: Kind, project: int, moment: float, *, move: bool = False) -> None:
    """Schedule something.

    Args:
        connection: to Redis.
        kind: what.
        project: its number.
        moment: unix time.
        move: replace the moment if it is scheduled already; otherwise the earlier one stays.
    """
    connection.zadd(_DUE, {f"{kind}:{project}": moment}, lt=not move)


def moment(connection: Redis, kind: Kind, project: int) -> float | None:
    """The unix time for which this is scheduled; None if it is not."""
    score = connection.zscore(_DUE, f"{kind}:{project}")
    return None if score is None else float(score)


def cancel(connection: Redis, project: int) -> None:
    """Nothing is to be done for a project any more."""
    connection.zrem(_DUE, *(f"{kind}:{project}" for kind in Kind))


def is_known(connection: Redis) -> bool:
    """Whether Redis still has the schedule; not when it is new, or was emptied."""
    return bool(connection.exists(_KNOWN))


def set_known(connection: Redis) -> None:
    """The schedule has been rebuilt."""
    connection.set(_KNOWN, "1")


def take(connection: Redis) -> Iterator[tuple[Kind, int]]:
    """What is due by now, as (kind, project). Of several callers one gets each entry.

    An entry is removed just before it is given, so that an error loses no other one. Kinds that
    only a newer release knows stay for that.
    """
    for member in connection.zrangebyscore(_DUE, 0, time.time()):
        kind, _, project = member.decode().partition(":")
        if kind in [*Kind] and project.isdecimal() and connection.zrem(_DUE, member):
            yield Kind(kind), int(project)
