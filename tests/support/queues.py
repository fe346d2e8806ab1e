"""Faults of the queue, and rounds of the reconciler."""

from __future__ import annotations

from pathlib import Path

from redis import Redis

from jobs import queue
from jobs.reconciler import reconcile
from jobs.run_store import RunStore
from tests.support.builders import make_settings

DEFAULTS = make_settings(Path("store"))


def lose_the_queue(runs: RunStore) -> None:
    for key in runs.connection.keys("rq:*"):
        runs.connection.delete(key)


def reconcile_now(connection: Redis) -> None:
    """One round, also straight after another."""
    connection.delete(queue.key(connection, "tending"))
    reconcile(connection, DEFAULTS)
