"""Embeddings and immutable artefacts under one URI: a directory, or an object store.

Embeddings are LanceDB tables, one per encoder, keyed by the sha256 of the image file, float16. A
second table maps an image's address to that key, so that an image seen once is not fetched again.
Statistics are JSON files beside the tables, written once and never changed.

Writers only append and readers take one row a key, so several processes may write at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.fs
from numpy.typing import NDArray

from backend.errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOKUP_KEYS = 512
"""Keys asked for in one query, a whole shard's: a longer IN list parses slowly."""
COMPACT_EVERY = 64
"""Appends between two compactions: each append leaves a small file behind."""


@dataclass(frozen=True)
class Embedding:
    """One image's embeddings as stored.

    Attributes:
        image: float16 (dim,).
        regions: float16 (9, dim), or None.
    """

    image: NDArray[np.float16]
    regions: NDArray[np.float16] | None


@dataclass(frozen=True)
class NewEmbedding:
    """An embedding to be stored: the address it came from, the content's key, the vectors."""

    address: str
    key: str
    embedding: Embedding


def content_key(data: bytes) -> str:
    """The key of an image file: its sha256."""
    return hashlib.sha256(data).hexdigest()


class Store:
    """See the module. Thread-safe.

    Args:
        uri: a directory (made if missing) or a URI that LanceDB and Arrow know, e.g. ``s3://``.

    Raises:
        StoreError: the place cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        import lancedb

        self.uri = uri.rstrip("/")
        self.lock = threading.Lock()
        self._tables: dict[str, Any] = {}
        self._appends: Counter[str] = Counter()
        with self.errors("opened"):
            if "://" in self.uri:
                self._files, self._root = pyarrow.fs.FileSystem.from_uri(self.uri)
            else:
                Path(self.uri).mkdir(parents=True, exist_ok=True)
                self._files, self._root = pyarrow.fs.LocalFileSystem(), self.uri
            # Zero: what another process has just written is seen at the next read.
            self.database = lancedb.connect(self.uri, read_consistency_interval=timedelta(0))

    def keys_of(self, addresses: Iterable[str]) -> dict[str, str]:
        """Address -> content key, for the addresses that were seen before.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[str, str] = {}
        for part in chunks(sorted(set(addresses)), LOOKUP_KEYS):
            rows = self._select(self.addresses(), "address", part, ["address", "key"])
            found |= dict(zip(rows["address"].to_pylist(), rows["key"].to_pylist(), strict=True))
        return found

    def embeddings(self, encoder_id: str, dim: int, keys: Iterable[str]) -> dict[str, Embedding]:
        """Content key -> embedding, for the keys that this encoder has embedded.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[str, Embedding] = {}
        table = self.vectors(encoder_id, dim)
        for part in chunks(sorted(set(keys)), LOOKUP_KEYS):
            rows = self._select(table, "key", part, ["key", "image", "regions"])
            images = _matrix(rows["image"], dim)
            regions = rows["regions"]
            cells = iter(_matrix(regions.drop_null(), 9 * dim).reshape(-1, 9, dim))
            valid = regions.is_valid().to_pylist()
            for key, image, has_cells in zip(rows["key"].to_pylist(), images, valid, strict=True):
                cell = next(cells) if has_cells else None
                # Of rows that two processes wrote at once, everyone takes the first.
                found.setdefault(key, Embedding(image, cell))
        return found

    def has(self, encoder_id: str, dim: int, keys: Iterable[str]) -> set[str]:
        """Those of the content keys that this encoder has embedded.

        Raises:
            StoreError: the store cannot be read.
        """
        found: set[str] = set()
        table = self.vectors(encoder_id, dim)
        for part in chunks(sorted(set(keys)), LOOKUP_KEYS):
            found |= set(self._select(table, "key", part, ["key"])["key"].to_pylist())
        return found

    def add(self, encoder_id: str, dim: int, rows: Sequence[NewEmbedding]) -> None:
        """Append embeddings and the addresses they came from.

        Raises:
            StoreError: the store cannot be written, e.g. the disk is full.
        """
        if not rows:
            return
        table = self.vectors(encoder_id, dim)
        images = np.stack([row.embedding.image for row in rows]).astype(np.float16)
        regions = [
            None if row.embedding.regions is None else row.embedding.regions.ravel() for row in rows
        ]
        schema = _vector_schema(encoder_id, dim)
        vectors = pa.table(
            {
                "key": [row.key for row in rows],
                "image": pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), dim),
                "regions": pa.array(regions, schema.field("regions").type),
            },
            schema=schema,
        )
        addresses = pa.table(
            {"address": [row.address for row in rows], "key": [row.key for row in rows]},
            schema=ADDRESSES,
        )
        self._append(table, vectors)
        self.remember(addresses)

    def remember(self, addresses: pa.Table) -> None:
        """Append rows (address, key) to the address index.

        Raises:
            StoreError: the store cannot be written.
        """
        self._append(self.addresses(), addresses)

    def _append(self, table: Any, rows: pa.Table) -> None:
        with self.lock, self.errors("written"):
            table.add(rows)
            self._appends[table.name] += 1
            full = self._appends[table.name] % COMPACT_EVERY == 0
        if full:
            self._compact(table)

    def compact(self, encoder_id: str, dim: int) -> None:
        """Merge small files. Failing is harmless (another process may be at it) and logged."""
        self.vectors(encoder_id, dim)
        self.addresses()
        for table in list(self._tables.values()):
            self._compact(table)

    def _compact(self, table: Any) -> None:
        try:
            with self.lock:
                table.optimize()
        except Exception as error:
            log.warning("%s could not be compacted now: %s", table.name, _first_line(error))

    def append(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table of this name, which is made with their schema if need be.

        Raises:
            StoreError: the store cannot be written.
        """
        self._append(self.table(name, rows.schema), rows)

    def rows(
        self, name: str, schema: pa.Schema, where: str, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of a table for which a condition (SQL) holds.

        Raises:
            StoreError: the store cannot be read.
        """
        table = self.table(name, schema)
        with self.errors("read"):
            query = table.search().where(where).limit(2**31 - 1)
            return (query if columns is None else query.select(list(columns))).to_arrow()

    def erase_artefacts(self, folder: str, which: Callable[[str], bool]) -> None:
        """Delete the artefacts and folders directly below ``folder`` with names of this kind.

        Raises:
            StoreError: they cannot be deleted.
        """
        path = f"{self._root}/{folder}"
        with self.errors("written"):
            if self._files.get_file_info(path).type == pyarrow.fs.FileType.NotFound:
                return
            for entry in self._files.get_file_info(pyarrow.fs.FileSelector(path)):
                if not which(entry.base_name):
                    continue
                if entry.type == pyarrow.fs.FileType.Directory:
                    self._files.delete_dir(entry.path)
                else:
                    self._files.delete_file(entry.path)

    def folder_names(self, folder: str) -> list[str]:
        """Names of the folders directly below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        selector = pyarrow.fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        with self.errors("read"):
            found = self._files.get_file_info(selector)
        return [one.base_name for one in found if one.type == pyarrow.fs.FileType.Directory]

    def artefact_names(self, folder: str) -> list[str]:
        """Names of the artefacts directly below ``folder``, in no order.

        Raises:
            StoreError: the store cannot be read.
        """
        selector = pyarrow.fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        with self.errors("read"):
            names = [entry.base_name for entry in self._files.get_file_info(selector)]
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def read_artefact(self, name: str) -> dict[str, Any] | None:
        """The JSON artefact of this name, or None.

        Raises:
            StoreError: the file cannot be read, or is not JSON.
        """
        path = f"{self._root}/{name}.json"
        with self.errors("read"):
            if self._files.get_file_info(path).type == pyarrow.fs.FileType.NotFound:
                return None
            with self._files.open_input_stream(path) as stream:
                content: dict[str, Any] = json.loads(stream.read())
                return content

    def artefact_stamp(self, name: str) -> str:
        """When the artefact was written, and its size; empty if there is none.

        Raises:
            StoreError: the file system cannot be asked.
        """
        with self.errors("read"):
            found = self._files.get_file_info(f"{self._root}/{name}.json")
        if found.type == pyarrow.fs.FileType.NotFound:
            return ""
        return f"{found.mtime_ns} {found.size}"

    def write_artefact(
        self, name: str, content: dict[str, Any], replace: bool = False
    ) -> dict[str, Any]:
        """Write a JSON artefact once. If it exists already, that one stays and is returned.

        Args:
            name: path below the store, without ``.json``.
            content: JSON-able.
            replace: overwrite instead.

        Raises:
            StoreError: the file cannot be written.
        """
        path = f"{self._root}/{name}.json"
        with self.lock:
            existing = self.read_artefact(name)
            if existing is not None and not replace:
                return existing
            with self.errors("written"):
                self._files.create_dir(path.rsplit("/", 1)[0], recursive=True)
                draft = f"{path}.{uuid4().hex}"
                with self._files.open_output_stream(draft) as stream:
                    stream.write(json.dumps(content).encode())
                if replace or not self._publish(draft, path):
                    self._files.move(draft, path)
            return content if replace else self.read_artefact(name) or content

    def _publish(self, draft: str, path: str) -> bool:
        """Name the draft without ever replacing what another process wrote in the meantime.

        Only a local file system with hard links can tell; elsewhere the answer is False.
        """
        if not isinstance(self._files, pyarrow.fs.LocalFileSystem):
            return False
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:
            return False
        self._files.delete_file(draft)
        return True

    def vectors(self, encoder_id: str, dim: int) -> Any:
        """The LanceDB table of an encoder's embeddings."""
        digest = hashlib.sha256(encoder_id.encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9]+", "_", encoder_id)[:40]
        return self.table(f"{VECTORS}{readable}_{digest}", _vector_schema(encoder_id, dim))

    def addresses(self) -> Any:
        """The LanceDB table of addresses."""
        return self.table("addresses", ADDRESSES)

    def table(self, name: str, schema: pa.Schema) -> Any:
        """The LanceDB table of this name, made if need be."""
        with self.lock:
            if name not in self._tables:
                with self.errors("opened"):
                    self._tables[name] = self.database.create_table(
                        name, schema=schema, exist_ok=True
                    )
            return self._tables[name]

    def _select(self, table: Any, column: str, values: Sequence[str], want: list[str]) -> Any:
        with self.errors("read"):
            query = table.search().where(f"{column} IN ({listed(values)})").select(want)
            return query.limit(2**31 - 1).to_arrow()

    @contextlib.contextmanager
    def errors(self, action: str) -> Any:
        """Turn whatever goes wrong inside into a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            # A table whose files are gone is opened, or made, anew the next time.
            self._tables.clear()
            raise StoreError(
                f"The store at {self.uri} cannot be {action}: {_first_line(error)}",
                "Check LS_CLIP_STORE, its permissions and the free space there.",
            ) from error


def quoted(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def listed(values: Iterable[str | int]) -> str:
    """Values for SQL's IN (...)."""
    return ", ".join(str(one) if isinstance(one, int) else quoted(one) for one in values)


def conditions(column: str, values: Iterable[str]) -> list[str]:
    """Conditions that together hold for all these values."""
    parts = chunks(sorted(values), LOOKUP_KEYS)
    return [f"{column} IN ({listed(part)})" for part in parts]


VECTORS = "embeddings_"
"""How the names of the tables of embeddings begin."""
ADDRESSES = pa.schema([pa.field("address", pa.string()), pa.field("key", pa.string())])


def address_rows(pairs: Sequence[tuple[str, str]]) -> pa.Table:
    """Rows for `Store.remember` from (address, key) pairs."""
    return pa.table(
        {"address": [pair[0] for pair in pairs], "key": [pair[1] for pair in pairs]},
        schema=ADDRESSES,
    )


def _vector_schema(encoder_id: str, dim: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("image", pa.list_(pa.float16(), dim)),
            pa.field("regions", pa.list_(pa.float16(), 9 * dim)),
        ],
        metadata={"encoder": encoder_id},
    )


def _matrix(column: pa.ChunkedArray, dim: int) -> NDArray[np.float16]:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float16] = values.astype(np.float16, copy=False).reshape(-1, dim)
    return matrix


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values by so many, as they come; the last part may be shorter."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
