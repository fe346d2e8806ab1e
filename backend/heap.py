"""The C library's heap, where that is glibc: what is kept for later, and what goes back.

See mallopt(3). On other systems all of this does nothing.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
"""The numbers of these options in glibc's malloc.h."""


def use_one_heap() -> None:
    """Let all threads that have no heap yet use the main one: call it before others are started.

    Each thread would otherwise get a heap of its own, of blocks of 64 MB at most. What is larger
    would be got from the kernel, which zeroes it, and given back, again and again: an encoder that
    computes in such a thread needs half as much time again. And what is free at the end of such a
    heap cannot be given back.
    """
    configure = _glibc("mallopt")
    if configure is not None:
        configure(_M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Let the heap keep what is freed instead of giving it back to the kernel.

    A forward pass on the CPU allocates the same large blocks again and again, and the kernel zeroes
    each of them: that was more than half of the offline encoder's time (benchmarks/bulk.py).
    """
    configure = _glibc("mallopt")
    if configure is not None:
        configure(_M_MMAP_MAX, 0)
        configure(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Return freed memory to the system.

    glibc keeps freed blocks of up to 32 MB once blocks of that size were in use.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """A function of glibc; None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
