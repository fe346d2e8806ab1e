"""What is to be done for a project at some moment: debounced events, and looks for lost ones.

One sorted set in Redis; every supervisor looks into it every few seconds (`jobs.tend`), and taking
an entry out decides who acts on it. Without RQ's scheduler, which would be one more process that
can be missing.
"""

from __future__ import annotations

import time

from redis import Redis

from jobs.queue import PREFIX

TRAIN = "train"
"""Train if enough was approved: set a moment after the approval that made it enough."""
LATE = "late"
"""The same, some minutes after the last approval: each approval moves it."""
FORCED = "forced"
"""Train now: somebody asked."""
PREDICT = "predict"
"""Predict tasks that have no prediction of today's version: tasks came, or labels changed."""
REFRESH = "refresh"
"""Put the accepted head into use."""
RECONCILE = "reconcile"
"""Look for approvals whose event was lost."""

_KINDS = (TRAIN, LATE, FORCED, PREDICT, REFRESH, RECONCILE)

NEW_TASKS_SECONDS = 60.0
"""At most one run a minute for tasks that come one by one: each import costs seconds."""

_DUE = f"{PREFIX}due"
_KNOWN = f"{PREFIX}due-known"


def add(connection: Redis, kind: str, project: int, moment: float, *, move: bool = False) -> None:
    """Do this at a moment.

    Args:
        connection: to Redis.
        kind: one of the constants above.
        project: its number.
        moment: unix time.
        move: replace the moment if it is due already; else the earlier one stays.
    """
    connection.zadd(_DUE, {f"{kind}:{project}": moment}, lt=not move)


def moment(connection: Redis, kind: str, project: int) -> float | None:
    """When this is due, as unix time; None if it is not."""
    found = connection.zscore(_DUE, f"{kind}:{project}")
    return None if found is None else float(found)


def forget(connection: Redis, project: int) -> None:
    """Nothing is to be done for a project any more."""
    connection.zrem(_DUE, *(f"{kind}:{project}" for kind in _KINDS))


def is_known(connection: Redis) -> bool:
    """Whether Redis still has what is due; not when it is new, or was emptied."""
    return bool(connection.exists(_KNOWN))


def known(connection: Redis) -> None:
    """What is due has been found again."""
    connection.set(_KNOWN, "1")


def take(connection: Redis) -> list[tuple[str, int]]:
    """Take out what is due by now: (kind, project). Of several callers one gets each."""
    taken = []
    for member in connection.zrangebyscore(_DUE, 0, time.time()):
        if connection.zrem(_DUE, member):
            kind, _, project = member.decode().partition(":")
            taken.append((kind, int(project)))
    return taken
