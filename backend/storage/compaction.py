"""Compaction: merging the small files that appends leave, and deleting what they replace, at once.

Each append adds a file, so a table's files are merged when its rows have doubled since the last
time. All rows are rewritten then, which over a table's life costs about twice its size, and disk
space for a second copy while it lasts. Readers and writers go on meanwhile: a query that loses a
file which it was reading is repeated by `backend.storage.tables`.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from datetime import timedelta
from typing import Any

from backend.errors import StoreError
from backend.storage.artifacts import first_line, store_errors
from backend.storage.durability import is_recomputable, sync_table
from backend.storage.locks import Locks

log = logging.getLogger(__name__)

# LanceDB warns that readers of an old version fail; ours repeat the query. Filters are
# process-wide and switching them per call is not thread-safe, so this one is installed once.
warnings.filterwarnings("ignore", r"optimize\(cleanup_older_than=0\)", UserWarning)

FEWEST_FILES = 64
"""Tables of fewer files are left alone."""
MOST_FILES = 128
"""Tables of so many files are compacted although their rows have not doubled: queries open each
file, and each append writes a list of all of them."""
CHECK_EVERY = 16
"""Appends between two looks at a table's files."""
LOCK = "compaction"
FINISH_SECONDS = 20.0
"""How long a process that is asked to end waits for its compactions."""


_THREAD = "compaction of "
"""How the names of the threads begin."""


def finish_compactions(seconds: float) -> None:
    """Let the compactions of this process end, before it does: see `Compactor.start_if_due`.

    Args:
        seconds: how long they may take.
    """
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith(_THREAD):
            thread.join(max(0.0, deadline - time.monotonic()))


class Compactor:
    """Compacts the tables of one store, one at a time, whichever process asks. Thread-safe.

    Args:
        uri: of the store.
        locks: of the store.
    """

    def __init__(self, uri: str, locks: Locks) -> None:
        self._uri = uri
        self._locks = locks
        self._running = threading.Lock()

    def start_if_due(self, table: Any) -> None:
        """Compact a table in a thread of its own, if it is due and nobody is compacting.

        An interrupted compaction loses nothing, but leaves files that LanceDB deletes only after a
        week: a process that is ended by ``os._exit`` calls `finish_compactions` before.

        Args:
            table: of LanceDB.
        """
        if not is_due(table) or not self._running.acquire(blocking=False):
            return
        name = str(table.name)

        def run() -> None:
            try:
                self._compact_if_free(name)
            finally:
                self._running.release()

        threading.Thread(target=run, name=_THREAD + name).start()

    def compact(self, name: str) -> None:
        """Compact a table now, whether it is due or not; waits for another compaction to end.

        Raises:
            StoreError: the store cannot be written, or another process compacts for too long.
        """
        with self._locks.hold(LOCK), store_errors(self._uri, "written"):
            self._optimize(name)

    def compact_if_due(self, name: str) -> None:
        """Compact a table now if it is due. A failure is logged only: the next one succeeds."""
        try:
            with store_errors(self._uri, "read"):
                due = is_due(self._open(name))
        except StoreError as error:
            log.warning("%s", error)
            return
        if due:
            self._compact_if_free(name)

    def _compact_if_free(self, name: str) -> None:
        try:
            with self._locks.hold_if_free(LOCK) as free:
                if free:
                    self._optimize(name)
        except Exception as error:
            log.warning("%s could not be compacted now: %s", name, first_line(error))

    def _optimize(self, name: str) -> None:
        # With a handle of its own: LanceDB lets the other users of a handle wait meanwhile.
        table, began = self._open(name), time.time()
        if not is_recomputable(name):
            # The copies are to be on the disk before the files that they replace are deleted. Rows
            # that come meanwhile are merged by the second call, which may write all once more.
            table.optimize()
            sync_table(self._uri, name, began)
        table.optimize(cleanup_older_than=timedelta(0))
        sync_table(self._uri, name, began)

    def _open(self, name: str) -> Any:
        import lancedb

        return lancedb.connect(self._uri).open_table(name)


def is_due(table: Any) -> bool:
    """Whether a LanceDB table has doubled since it was compacted, or has too many files.

    Raises:
        RuntimeError, ValueError: LanceDB cannot read it.
    """
    stats = table.stats()
    files = int(stats["fragment_stats"]["num_fragments"])
    largest = int(stats["fragment_stats"]["lengths"]["max"])
    rows = int(stats["num_rows"])
    return files >= MOST_FILES or (files >= FEWEST_FILES and rows >= 2 * largest)
