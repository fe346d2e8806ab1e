"""LanceDB tables under one URI, and the SQL conditions that select their rows.

Writers append, so several processes may write at once; `backend.storage.maintenance` deletes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from backend.errors import StoreError
from backend.storage.artifacts import first_line, store_errors
from backend.storage.generation import Generation

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOKUP_KEYS = 512
"""Keys per query, as many as a shard has tasks: a longer IN list parses slowly."""
COMPACT_EVERY = 64
"""Appends between two compactions: each append adds a small file."""
NO_LIMIT = 2**31 - 1
"""LanceDB returns ten rows unless a limit is given."""


class TableVersion(NamedTuple):
    """A state of a table.

    Attributes:
        generation: the store's marker as this process last saw it. In a store that was deleted
            and made anew, the same number can mean other rows.
        number: greater after each change.
    """

    generation: str
    number: int


class Tables:
    """The LanceDB database of a store. Thread-safe.

    Args:
        uri: a directory or a URI that LanceDB knows, e.g. ``s3://``.
        generation: the marker of the same store.

    Attributes:
        lock: held while this process changes a table; not reentrant.
        database: the LanceDB connection.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(self, uri: str, generation: Generation) -> None:
        import lancedb

        self.uri = uri
        self._generation = generation
        self.lock = threading.Lock()
        self._open: dict[str, Any] = {}
        self._appends: Counter[str] = Counter()
        with store_errors(uri, "opened"):
            # Zero: the next read sees what another process has just written.
            self.database = lancedb.connect(uri, read_consistency_interval=timedelta(0))

    def table(self, name: str, schema: pa.Schema) -> Any:
        """The LanceDB table of this name, created if it does not exist.

        Raises:
            StoreError: it cannot be opened.
        """
        with self.lock:
            if name not in self._open:
                self._generation.ensure()
                with self.errors("opened"):
                    self._open[name] = self.database.create_table(
                        name, schema=schema, exist_ok=True
                    )
            return self._open[name]

    def version(self, name: str, schema: pa.Schema) -> TableVersion:
        """A table's version, which every change of it by any process makes another.

        Far cheaper than a query: about 0.4 ms of CPU on a local disk.

        Raises:
            StoreError: the store cannot be read.
        """
        table = self.table(name, schema)
        with self.errors("read"):
            number = int(table.version)
        return TableVersion(self._generation.seen, number)

    def append(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table, which is created with their schema if it does not exist.

        Raises:
            StoreError: the store cannot be written, e.g. the disk is full.
        """
        table = self.table(name, rows.schema)
        with self.lock, self.errors("written"):
            table.add(rows)
            self._appends[name] += 1
            full = self._appends[name] % COMPACT_EVERY == 0
        if full:
            self._compact(table)

    def rows(
        self, name: str, schema: pa.Schema, where: str, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of a table for which a SQL condition holds.

        Args:
            name: of the table.
            schema: to create the table with if it does not exist.
            where: the condition.
            columns: names of the columns to read; None: all.

        Raises:
            StoreError: the store cannot be read.
        """
        table = self.table(name, schema)
        with self.errors("read"):
            query = table.search().where(where).limit(NO_LIMIT)
            return (query if columns is None else query.select(list(columns))).to_arrow()

    def compact(self) -> None:
        """Merge small files of the open tables.

        A failure is only logged: it is harmless, and usually another process is compacting.
        """
        for table in list(self._open.values()):
            self._compact(table)

    def _compact(self, table: Any) -> None:
        try:
            with self.lock:
                table.optimize()
        except Exception as error:
            log.warning("%s could not be compacted now: %s", table.name, first_line(error))

    @contextlib.contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Like `store_errors`; after an error tables are reopened, in case their files are gone."""
        try:
            with store_errors(self.uri, action):
                yield
        except StoreError:
            self._open.clear()
            raise


def sql_text(value: str) -> str:
    """A text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_list(values: Iterable[str | int]) -> str:
    """Values for SQL's ``IN (...)``."""
    return ", ".join(str(value) if isinstance(value, int) else sql_text(value) for value in values)


def in_conditions(column: str, values: Iterable[str]) -> list[str]:
    """SQL conditions, each short enough, that together select all rows with these values."""
    parts = chunks(sorted(values), LOOKUP_KEYS)
    return [f"{column} IN ({sql_list(part)})" for part in parts]


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of ``size``, in order; the last list may be shorter."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part
