"""Whether this worker was told to stop: asked by jobs between two batches."""

from __future__ import annotations

from threading import Event

_stop = Event()


def request_stop() -> None:
    """Tell the running job to end at its next batch."""
    _stop.set()


def stop_requested() -> bool:
    """Whether it was told to."""
    return _stop.is_set()
