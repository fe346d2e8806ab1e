"""Helpers around the store."""

from __future__ import annotations

import threading


def wait_for_compaction() -> None:
    """Wait until no table is being compacted by this process."""
    for thread in threading.enumerate():
        if thread.name.startswith("compaction of"):
            thread.join(60)
            assert not thread.is_alive()
