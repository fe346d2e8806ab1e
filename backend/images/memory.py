"""Memory for decoding: a budget that many threads share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from backend.heap import give_back

_SMALL_SHARE = 64
"""Less than this part of a budget is small: the next image uses the same memory again. To return it
would return what the encoder keeps, too, which then costs it a fifth of its time to get again."""


class MemoryBudget:
    """So many bytes for all threads together, given out in the order in which they are asked for.

    Thread-safe. The C library keeps what is freed, for later. So after half the budget has been
    used again and again, or a good part of it and nothing is in use any more, freed memory is
    returned to the system: resident memory grows by one and a half times the budget at most. Small
    images do not count, however many they are.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._used_since_trim = 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold this many bytes, at most the budget's size; waits until they are free."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= size)
            self._waiting.popleft()
            self._free -= size
            if size >= self.size // _SMALL_SHARE:
                self._used_since_trim += size
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                idle = self._free == self.size and not self._waiting
                trim = self._used_since_trim > self.size // (8 if idle else 2)
                if trim:
                    self._used_since_trim = 0
                self._changed.notify_all()
            if trim:
                give_back()
