"""Maintenance of the store: removing duplicate rows, and erasing rows from the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from backend.errors import StoreError
from backend.storage.compaction import LOCK
from backend.storage.durability import ADDRESS_TABLE, VALIDATOR_TABLE, holds_vectors
from backend.storage.store import Store
from backend.storage.tables import LOOKUP_KEYS, NO_LIMIT, chunks, in_conditions, sql_list, sql_text
from backend.storage.validators import VALIDATORS
from backend.storage.vectors import ADDRESSES


def dedupe(store: Store, encoder_id: str, dim: int) -> int:
    """Delete duplicate rows, which several writers may have added, and merge small files.

    The rows that readers use stay: the first of an embedding, the last of an address. The
    embeddings of an image that was replaced behind its last address are erased.

    Args:
        store: the store.
        encoder_id: of the encoder whose embeddings are checked.
        dim: length of its embeddings.

    Returns:
        Number of deleted rows.

    Raises:
        StoreError: the store cannot be read or written.
    """
    deleted = 0
    replaced: set[str] = set()
    for table, column, last in (
        (store.vectors.embedding_table(encoder_id, dim), "key", False),
        (store.vectors.address_table(), "address", True),
        (store.tables.table(VALIDATOR_TABLE, VALIDATORS), "address", True),
    ):
        # Row ids are positions, which a compaction changes.
        with store.locks.hold(LOCK), store.tables.writing, store.tables.errors("written"):
            columns = ["key", "address"] if last else ["key"]
            query = table.search().select(columns).with_row_id(True).limit(NO_LIMIT)
            rows = query.to_arrow()
            pairs = list(zip(rows[column].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
            kept = dict(pairs if last else reversed(pairs))
            duplicates = [row for value, row in pairs if kept[value] != row]
            if last and duplicates:
                keys = dict(zip(rows["_rowid"].to_pylist(), rows["key"].to_pylist(), strict=True))
                left = {keys[row] for row in kept.values()}
                replaced |= {keys[row] for row in duplicates} - left
            for part in chunks(duplicates, LOOKUP_KEYS):
                table.delete(f"_rowid IN ({sql_list(part)})")
        deleted += len(duplicates)
    _erase_orphans(store, replaced)
    store.tables.compact_if_due()
    return deleted


def erase_rows(store: Store, name: str, schema: pa.Schema, wheres: Sequence[str]) -> None:
    """Delete rows so that their bytes leave the disk, not only the table.

    Lance only marks rows as deleted and keeps their files. Updating a row that stays makes Lance
    write a new file, so that the compaction rewrites the old ones and the cleanup removes them.

    Args:
        store: the store.
        name: of the table.
        schema: its schema.
        wheres: SQL conditions; a row is deleted if one of them holds.

    Raises:
        StoreError: the store cannot be written.
    """
    retrying = Retrying(
        # Lance refuses while another process writes or compacts.
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(5),
        wait=wait_random(0.1, 0.5),
        reraise=True,
    )
    retrying(_erase_rows, store, name, schema, wheres)


def _erase_rows(store: Store, name: str, schema: pa.Schema, wheres: Sequence[str]) -> None:
    table = store.tables.table(name, schema)
    with store.tables.writing, store.tables.errors("written"):
        for where in wheres:
            table.delete(where)
        column = schema.names[0]
        kept = table.search().select([column]).limit(1).to_arrow()[column].to_pylist()
        if kept:
            table.update(where=f"{column} = {sql_text(kept[0])}", values={column: kept[0]})
        else:
            # A table's newest version names the condition of the deletion that made it.
            table.delete("false")
    store.tables.compactor.compact(name)


def erase_images(store: Store, addresses: Iterable[str]) -> int:
    """Erase addresses, and the embeddings of images that no other address leads to.

    The addresses go last: should this be interrupted, the same call finds the rest through them.

    Returns:
        Number of images whose embeddings were erased.

    Raises:
        StoreError: the store cannot be read or written.
    """
    erased = set(addresses)
    wheres = in_conditions("address", erased)
    tables = ((VALIDATOR_TABLE, VALIDATORS), (ADDRESS_TABLE, ADDRESSES))
    keys: set[str] = set()
    named = []
    for name, schema in tables:
        # All rows: the image may have been another one before, and a table may have been lost.
        found = [store.tables.rows(name, schema, where, ["key"]) for where in wheres]
        keys |= {key for rows in found for key in rows["key"].to_pylist()}
        if any(len(rows) for rows in found):
            named.append((name, schema))
    images = _erase_orphans(store, keys, erased) if keys else 0
    for name, schema in named:
        erase_rows(store, name, schema, wheres)
    return images


def _erase_orphans(
    store: Store, keys: Iterable[str], erased: AbstractSet[str] = frozenset()
) -> int:
    """Erase the embeddings of those images to which no address leads that is not to be erased.

    Returns:
        The number of images.
    """
    orphans = set(keys)
    for where in in_conditions("key", set(keys)):
        left = store.tables.rows(ADDRESS_TABLE, ADDRESSES, where)
        pairs = zip(left["address"].to_pylist(), left["key"].to_pylist(), strict=True)
        orphans -= {key for address, key in pairs if address not in erased}
    for name in store.tables.names() if orphans else []:
        if not holds_vectors(name):
            continue
        with store.tables.errors("opened"):
            schema = store.tables.database.open_table(name).schema
        erase_rows(store, name, schema, in_conditions("key", orphans))
    return len(orphans)
