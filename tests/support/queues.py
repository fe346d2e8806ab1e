"""Faults of the queue."""

from __future__ import annotations

from jobs.run_store import RunStore


def lose_the_queue(runs: RunStore) -> None:
    for key in runs.connection.keys("rq:*"):
        runs.connection.delete(key)
