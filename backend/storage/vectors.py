"""Embeddings in LanceDB: one table per encoder, keyed by the sha256 of the image file.

A second table maps an image's address to that key, so that an image is fetched only once. Two
processes may write the same key; readers use one row per key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backend.storage import region_codes
from backend.storage.durability import ADDRESS_TABLE, VECTORS
from backend.storage.tables import Tables, TableVersion, in_conditions

ADDRESSES = pa.schema([pa.field("address", pa.string()), pa.field("key", pa.string())])


@dataclass(frozen=True)
class Embedding:
    """One image's embeddings as stored.

    Attributes:
        image: float16 (dim,), L2-normalised.
        regions: int8 (9, dim), see `region_codes`; None for an encoder without regions.
    """

    image: NDArray[np.float16]
    regions: NDArray[np.int8] | None

    @classmethod
    def of(cls, image: NDArray[np.floating], regions: NDArray[np.floating] | None) -> Embedding:
        """An encoder's embeddings of one image, (dim,) and (9, dim), as the store keeps them."""
        codes = None if regions is None else region_codes.encode(regions)
        return cls(image.astype(np.float16), codes)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.image.nbytes + (0 if self.regions is None else self.regions.nbytes)

    def copy(self) -> Embedding:
        """The same values in arrays of their own."""
        return Embedding(self.image.copy(), None if self.regions is None else self.regions.copy())


@dataclass(frozen=True)
class NewEmbedding:
    """An embedding to be stored: the image's address, its content key, and the vectors."""

    address: str
    key: str
    embedding: Embedding


def content_key(data: bytes) -> str:
    """The key of an image file: its sha256, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


class Vectors:
    """Embeddings and image addresses. Thread-safe.

    Args:
        tables: where they are kept.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def address_version(self) -> TableVersion:
        """The version of the address table: another after each change, by whatever process.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._tables.version(ADDRESS_TABLE, ADDRESSES)

    def keys_of(self, addresses: Iterable[str]) -> dict[str, str]:
        """Address -> content key, for those addresses that are in the store.

        Raises:
            StoreError: the store cannot be read.
        """
        keys: dict[str, str] = {}
        for where in in_conditions("address", set(addresses)):
            rows = self._tables.rows(ADDRESS_TABLE, ADDRESSES, where)
            keys |= dict(zip(rows["address"].to_pylist(), rows["key"].to_pylist(), strict=True))
        return keys

    def embeddings(self, encoder_id: str, dim: int, keys: Iterable[str]) -> dict[str, Embedding]:
        """Content key -> embedding, for the keys that this encoder has embedded.

        Raises:
            StoreError: the store cannot be read.
        """
        name, schema = table_name(encoder_id), vector_schema(encoder_id, dim)
        embeddings: dict[str, Embedding] = {}
        for where in in_conditions("key", set(keys)):
            rows = self._tables.rows(name, schema, where)
            images = _matrix(rows["image"], dim)
            regions = rows["regions"]
            cells = iter(_matrix(regions.drop_null(), 9 * dim).reshape(-1, 9, dim))
            valid = regions.is_valid().to_pylist()
            for key, image, has_cells in zip(rows["key"].to_pylist(), images, valid, strict=True):
                cell = next(cells) if has_cells else None
                # If two processes wrote the same key, all readers use the first row.
                embeddings.setdefault(key, Embedding(image, cell))
        return embeddings

    def images(
        self, encoder_id: str, dim: int, keys: Iterable[str]
    ) -> dict[str, NDArray[np.float16]]:
        """Content key -> embedding of the whole image, as `embeddings`, but without its regions.

        Raises:
            StoreError: the store cannot be read.
        """
        name, schema = table_name(encoder_id), vector_schema(encoder_id, dim)
        images: dict[str, NDArray[np.float16]] = {}
        for where in in_conditions("key", set(keys)):
            rows = self._tables.rows(name, schema, where, ["key", "image"])
            for key, image in zip(
                rows["key"].to_pylist(), _matrix(rows["image"], dim), strict=True
            ):
                images.setdefault(key, image)
        return images

    def images_of_any(self, keys: Iterable[str]) -> dict[str, NDArray[np.float16]]:
        """Content key -> embedding of the whole image, by the encoder that has most of these.

        For comparing images with each other, where it does not matter which encoder it was. Of
        encoders that have equally many, the first one by its table's name counts.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = set(keys)
        best: tuple[str, int, set[str]] = ("", 0, set())
        for name in sorted(self._tables.names()):
            if not name.startswith(VECTORS):
                continue
            with self._tables.errors("read"):
                schema = self._tables.database.open_table(name).schema
            encoder_id = (schema.metadata or {}).get(b"encoder", b"").decode()
            dim = schema.field("image").type.list_size
            present = self.has(encoder_id, dim, wanted)
            if len(present) > len(best[2]):
                best = (encoder_id, dim, present)
        return self.images(*best) if best[2] else {}

    def has_any(self, encoder_id: str, dim: int) -> bool:
        """Whether there is an embedding by this encoder.

        Raises:
            StoreError: the store cannot be read.
        """
        name = table_name(encoder_id)
        # A table would be created by looking into it.
        return name in self._tables.names() and self._tables.has_rows(
            name, vector_schema(encoder_id, dim)
        )

    def has(self, encoder_id: str, dim: int, keys: Iterable[str]) -> set[str]:
        """Those of the content keys that this encoder has embedded.

        Raises:
            StoreError: the store cannot be read.
        """
        name, schema = table_name(encoder_id), vector_schema(encoder_id, dim)
        present: set[str] = set()
        for where in in_conditions("key", set(keys)):
            present |= set(self._tables.rows(name, schema, where, ["key"])["key"].to_pylist())
        return present

    def add(self, encoder_id: str, dim: int, rows: Sequence[NewEmbedding]) -> None:
        """Append embeddings and the addresses they came from.

        Raises:
            StoreError: the store cannot be written, e.g. the disk is full.
        """
        if not rows:
            return
        images = np.stack([row.embedding.image for row in rows]).astype(np.float16)
        regions = [
            None if row.embedding.regions is None else row.embedding.regions.ravel() for row in rows
        ]
        schema = vector_schema(encoder_id, dim)
        vectors = pa.table(
            {
                "key": [row.key for row in rows],
                "image": pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), dim),
                "regions": pa.array(regions, schema.field("regions").type),
            },
            schema=schema,
        )
        self._tables.append(table_name(encoder_id), vectors)
        self.add_addresses([(row.address, row.key) for row in rows])

    def add_addresses(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Append (address, content key) pairs to the address index.

        Raises:
            StoreError: the store cannot be written.
        """
        columns = [[address for address, _ in pairs], [key for _, key in pairs]]
        self._tables.append(ADDRESS_TABLE, pa.table(columns, schema=ADDRESSES))

    def embedding_table(self, encoder_id: str, dim: int) -> Any:
        """The LanceDB table of an encoder's embeddings."""
        return self._tables.table(table_name(encoder_id), vector_schema(encoder_id, dim))

    def address_table(self) -> Any:
        """The LanceDB table that maps addresses to content keys."""
        return self._tables.table(ADDRESS_TABLE, ADDRESSES)


def encoder_digest(encoder_id: str) -> str:
    """A part of the names of all that is kept for an encoder."""
    return hashlib.sha256(encoder_id.encode()).hexdigest()[:12]


def table_name(encoder_id: str) -> str:
    """The name of the table that holds an encoder's embeddings."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", encoder_id)[:40]
    return f"{VECTORS}{readable}_{encoder_digest(encoder_id)}"


def vector_schema(encoder_id: str, dim: int) -> pa.Schema:
    """Columns of an embedding table: key, image (dim,) float16, and regions (9 * dim,) int8."""
    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("image", pa.list_(pa.float16(), dim)),
            pa.field("regions", pa.list_(pa.int8(), 9 * dim)),
        ],
        metadata={"encoder": encoder_id},
    )


def _matrix(column: pa.ChunkedArray, dim: int) -> NDArray[Any]:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    # Of no row at all, Arrow gives values of another type.
    matrix: NDArray[Any] = values.astype(column.type.value_type.to_pandas_dtype(), copy=False)
    return matrix.reshape(-1, dim)
