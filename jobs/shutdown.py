"""Whether this worker process was asked to stop; jobs check it between two batches.

Set by `jobs.worker`, read by the jobs. A module of its own because neither can hold it: the worker
runs as ``__main__``, so importing it would give a second copy of the flag, and the jobs' modules
load the encoder's libraries, which the supervisor must not.
"""

from __future__ import annotations

from threading import Event

_stop = Event()


def request_stop() -> None:
    """Ask the running job to end at its next batch."""
    _stop.set()


def stop_requested() -> bool:
    """Whether it was asked to."""
    return _stop.is_set()
