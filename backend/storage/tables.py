"""LanceDB tables under one URI, and the SQL conditions that select their rows.

Writers append, so several processes may write at once; `backend.storage.maintenance` deletes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from backend.errors import StoreError
from backend.storage.artifacts import store_errors
from backend.storage.compaction import CHECK_EVERY, Compactor
from backend.storage.durability import is_recomputable, sync_table
from backend.storage.generation import Generation
from backend.storage.locks import Locks

T = TypeVar("T")

LOOKUP_KEYS = 512
"""Keys per query, as many as a shard has tasks: a longer IN list parses slowly."""
SYNC_SECONDS = 5.0
"""Between two waits for the disk, where rows can be computed again."""
_CREATION = "creation of a table"
ATTEMPTS = 3
"""Attempts at a query or an append."""
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
        locks: of the same store.
        read_only: a table that does not exist is empty, and is not created.

    Attributes:
        writing: held while this process changes rows; not reentrant. Reading never takes it.
        database: the LanceDB connection.
        compactor: merges the tables' files.

    Raises:
        StoreError: the database cannot be opened.
    """

    def __init__(
        self, uri: str, generation: Generation, locks: Locks, *, read_only: bool = False
    ) -> None:
        import lancedb

        self.uri = uri
        self._read_only = read_only
        self._generation = generation
        self._locks = locks
        self.compactor = Compactor(uri, locks)
        self.writing = threading.Lock()
        self._opening = threading.Lock()
        self._open: dict[str, Any] = {}
        self._appends: Counter[str] = Counter()
        # Name -> unix time; what was written before outlasts a power failure.
        self._synced: dict[str, float] = {}
        with store_errors(uri, "opened"):
            # Zero: the next read sees what another process has just written.
            self.database = lancedb.connect(uri, read_consistency_interval=timedelta(0))

    def table(self, name: str, schema: pa.Schema) -> Any:
        """The LanceDB table of this name, created if it does not exist.

        Raises:
            StoreError: it cannot be opened.
        """
        with self._opening:
            if name not in self._open:
                if not self._read_only:
                    self._generation.ensure()
                with store_errors(self.uri, "opened"):
                    self._open[name] = self._opened(name, schema)
            return self._open[name]

    def _opened(self, name: str, schema: pa.Schema) -> Any:
        if self._read_only:
            return self.database.open_table(name)
        if name in self._names():
            # Another process that creates it lists it before it can be opened.
            with suppress(ValueError):
                return self.database.open_table(name)
        # One at a time: LanceDB's creation can replace a table that another process has created in
        # the same moment, with its rows.
        with self._locks.hold(_CREATION):
            if name in self._names():
                return self.database.open_table(name)
            return self.database.create_table(name, schema=schema, exist_ok=True)

    def _names(self) -> list[str]:
        return list(self.database.list_tables(limit=NO_LIMIT).tables)

    def names(self) -> list[str]:
        """Names of all tables.

        Raises:
            StoreError: the store cannot be read.
        """
        with self.errors("read"):
            return self._names()

    def version(self, name: str, schema: pa.Schema) -> TableVersion:
        """A table's version, which every change of it by any process makes another.

        Far cheaper than a query: about 0.4 ms of CPU on a local disk.

        Raises:
            StoreError: the store cannot be read.
        """
        number = self._attempt(name, schema, "read", lambda table: int(table.version))
        return TableVersion(self._generation.seen, number)

    def has_rows(self, name: str, schema: pa.Schema) -> bool:
        """Whether a table has a row.

        Raises:
            StoreError: the store cannot be read.
        """
        return bool(self._attempt(name, schema, "read", lambda table: table.count_rows() > 0))

    def append(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table, which is created with their schema if it does not exist.

        Rows may be there twice after an error in between; readers take one row of a key.

        They outlast a power failure; those that can be computed again only after `SYNC_SECONDS`.

        Raises:
            StoreError: the store cannot be written, e.g. the disk is full.
        """
        with self.writing:
            began = time.time()
            self._attempt(name, rows.schema, "written", lambda table: table.add(rows))
            synced = self._synced.setdefault(name, began)
            if began - synced >= SYNC_SECONDS or not is_recomputable(name):
                with self.errors("written"):
                    sync_table(self.uri, name, synced)
                self._synced[name] = began
            self._appends[name] += 1
            look = self._appends[name] % CHECK_EVERY == 0
        if look:
            with self.errors("read"):
                self.compactor.start_if_due(self.table(name, rows.schema))

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
        if self._read_only and name not in self._open and name not in self.names():
            empty = schema.empty_table()
            return empty if columns is None else empty.select(list(columns))

        def select(table: Any) -> pa.Table:
            query = table.search().where(where).limit(NO_LIMIT)
            return (query if columns is None else query.select(list(columns))).to_arrow()

        return self._attempt(name, schema, "read", select)

    def replace_prefix(self, name: str, column: str, old: str, new: str) -> None:
        """Replace the beginning of a text in all rows of a table that have it.

        Raises:
            StoreError: the store cannot be written.
        """
        if name not in self.names():
            return
        with self.writing, self.errors("written"):
            self.database.open_table(name).update(
                # Also where the new one begins with the old one, and this is done twice.
                where=f"starts_with({column}, {sql_text(old)})"
                f" AND NOT starts_with({column}, {sql_text(new)})",
                values_sql={column: f"concat({sql_text(new)}, substr({column}, {len(old) + 1}))"},
            )

    def compact_if_due(self) -> None:
        """Merge the files of the tables that this process has used, where that is due."""
        for name in list(self._open):
            self.compactor.compact_if_due(name)

    def _attempt(self, name: str, schema: pa.Schema, action: str, use: Callable[[Any], T]) -> T:
        """Use a table; again if that fails, since a compaction may have replaced its files."""
        table = self.table(name, schema)
        for _ in range(ATTEMPTS - 1):
            with suppress(StoreError), store_errors(self.uri, action):
                return use(table)
            with self.errors(action):
                # Not created: a store that has vanished is an error.
                table = self.database.open_table(name)
            with self._opening:
                self._open[name] = table
        with self.errors(action):
            return use(table)

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
