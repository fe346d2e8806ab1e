"""Upkeep of the store: rows that leave the disk for good, and rows that were written twice."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import timedelta

import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from backend.errors import StoreError
from backend.storage.store import Store
from backend.storage.tables import LOOKUP_KEYS, chunks, conditions, listed, quoted
from backend.storage.vectors import ADDRESSES, VECTORS

# LanceDB warns that readers of an old version fail; ours open the table again. Filters are
# process-wide and switching them per call is not thread-safe, so this one is installed once.
warnings.filterwarnings("ignore", r"optimize\(cleanup_older_than=0\)", UserWarning)


def dedupe(store: Store, encoder_id: str, dim: int) -> int:
    """Delete the rows that several writers wrote of one key, and merge small files.

    What readers take stays: the first row of an embedding, the last of an address.

    Returns:
        How many rows are gone.

    Raises:
        StoreError: the store cannot be read or written.
    """
    gone = 0
    for table, column, last in (
        (store.vectors.table(encoder_id, dim), "key", False),
        (store.vectors.addresses(), "address", True),
    ):
        with store.tables.lock, store.tables.errors("read"):
            found = table.search().select([column]).with_row_id(True).limit(2**31 - 1)
            rows = found.to_arrow()
            pairs = list(zip(rows[column].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
            kept = dict(pairs if last else reversed(pairs))
            double = [row for value, row in pairs if kept[value] != row]
            for part in chunks(double, LOOKUP_KEYS):
                table.delete(f"_rowid IN ({listed(part)})")
        gone += len(double)
    store.tables.compact()
    return gone


def erase(store: Store, name: str, schema: pa.Schema, wheres: Sequence[str]) -> None:
    """Delete rows so that their bytes leave the disk, not only the table.

    Lance hides deleted rows and keeps them in old files. Touching a row that stays gives it a
    second file, with which the first is merged, and then nothing old is kept.

    Args:
        name: of the table.
        schema: its schema.
        wheres: conditions (SQL); a row goes if one holds.

    Raises:
        StoreError: the store cannot be written.
    """
    retrying = Retrying(
        # Another process that writes or compacts at the same moment makes Lance refuse.
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(5),
        wait=wait_random(0.1, 0.5),
        reraise=True,
    )
    retrying(_erase, store, name, schema, wheres)


def _erase(store: Store, name: str, schema: pa.Schema, wheres: Sequence[str]) -> None:
    table = store.tables.table(name, schema)
    with store.tables.lock, store.tables.errors("written"):
        for where in wheres:
            table.delete(where)
        column = schema.names[0]
        kept = table.search().select([column]).limit(1).to_arrow()[column].to_pylist()
        if kept:
            table.update(where=f"{column} = {quoted(kept[0])}", values={column: kept[0]})
        table.optimize(cleanup_older_than=timedelta(0))


def erase_images(store: Store, addresses: Iterable[str]) -> int:
    """Erase these addresses, and the embeddings that no other address leads to.

    Returns:
        How many images are gone.

    Raises:
        StoreError: the store cannot be read or written.
    """
    keys = store.vectors.keys_of(addresses)
    if not keys:
        return 0
    erase(store, "addresses", ADDRESSES, conditions("address", keys))
    gone = set(keys.values())
    for where in conditions("key", gone):
        left = store.tables.rows("addresses", ADDRESSES, where, ["key"])
        gone -= set(left["key"].to_pylist())
    with store.tables.errors("read"):
        tables = store.tables.database.list_tables(limit=1000).tables
    for name in tables if gone else []:
        if not name.startswith(VECTORS):
            continue
        with store.tables.errors("opened"):
            schema = store.tables.database.open_table(name).schema
        erase(store, name, schema, conditions("key", gone))
    return len(gone)
