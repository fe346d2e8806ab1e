"""Helpers around the store."""

from __future__ import annotations

import threading

from backend.storage.compaction import finish_compactions


def wait_for_compaction() -> None:
    """Wait until no table is being compacted by this process."""
    finish_compactions(60)
    assert not [thread for thread in threading.enumerate() if "compaction" in thread.name]
