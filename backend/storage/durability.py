"""Writes that outlast a power failure: neither Arrow nor LanceDB waits for the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

VECTORS = "vectors_"
"""Prefix of the names of the tables that hold embeddings."""
FORMER_VECTORS = "embeddings_"
"""The same until layout 2; a process of that release may still write one."""
ADDRESS_TABLE = "addresses"
VALIDATOR_TABLE = "validators"
_CLOCK_SECONDS = 2.0
"""How far the clock of a file system may be behind."""


def holds_vectors(table: str) -> bool:
    """Whether a table of this name holds embeddings."""
    return table.startswith((VECTORS, FORMER_VECTORS))


def is_recomputable(table: str) -> bool:
    """Whether all that a table of this name holds can be computed from the images again."""
    return table in {ADDRESS_TABLE, VALIDATOR_TABLE} or holds_vectors(table)


def sync(path: str) -> None:
    """Have the operating system write a file, or a folder's list of files, to the disk.

    Raises:
        OSError: the disk reports an error, or there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_table(uri: str, name: str, since: float) -> None:
    """The same for the files of a LanceDB table that were written since a moment.

    Args:
        uri: of the store; nothing is done unless it is a directory.
        name: of the table.
        since: unix time.

    Raises:
        OSError: the disk reports an error.
    """
    if "://" in uri:
        return
    # The manifests in _versions name the others, so they come last.
    for part in ("data", "_deletions", "_transactions", "_versions"):
        folder = Path(uri) / f"{name}.lance" / part
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                # A compaction may delete a file meanwhile.
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime >= since - _CLOCK_SECONDS:
                        sync(entry.path)
            sync(str(folder))
