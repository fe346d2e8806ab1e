"""Waiting for a condition: long enough for a machine whose cores others use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds. Reached only by a test that fails, so it costs nothing to be generous."""


def until(condition: Callable[[], T | None], seconds: float = PATIENCE, every: float = 0.05) -> T:
    """Ask again and again until the answer is true; returns that answer.

    Raises:
        AssertionError: it was not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:.0f} s"
        time.sleep(every)
    return answer
