"""The embeddings of images that were asked for last, in memory.

A person who opens a task waits for its image's embedding, and two LanceDB queries (address to
content key, key to embedding) cost several milliseconds of CPU each, however small the tables are.
Asking a table for its version costs about half a millisecond and is all that is read from the store
for a lookup that is answered from memory.

Why the version of the address table is enough: an answer depends on the rows of the address and of
its content key. Each change of an address row, by whatever process, gives the address table a new
version: `ls-clip forget`, a deleted task, another image at the same address. An embedding, once
stored, is never replaced (readers take the first row of a key), and when it is erased, so are the
rows of all addresses that lead to it, at last. So nothing is answered from memory that a query
would answer differently, and what was erased is gone from memory at the first lookup after that.
The price: while new images are being stored, the version changes all the time and lookups go to the
tables as if there were no cache.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from backend.errors import StoreError
from backend.storage.tables import TableVersion
from backend.storage.vectors import Embedding, Vectors

CACHE_BYTES = 64 * 2**20
"""Of embeddings; with regions one takes about 6 kB, so some 11,000 images fit."""
LARGEST_LOOKUP = 64
"""Lookups of more images than this are a run's, which asks for each image once: not cached."""


class EmbeddingCache:
    """Looks embeddings up by image address. Thread-safe.

    Args:
        vectors: where they are stored.
        encoder_id: of the encoder whose embeddings are looked up.
        dim: of that encoder.
        size: bytes of embeddings kept; the one that was asked for longest ago goes first.
    """

    def __init__(
        self, vectors: Vectors, encoder_id: str, dim: int, size: int = CACHE_BYTES
    ) -> None:
        self._vectors = vectors
        self._encoder_id = encoder_id
        self._dim = dim
        self._size = size
        self._lock = threading.Lock()
        self._version: TableVersion | None = None
        self._entries: OrderedDict[str, Embedding] = OrderedDict()
        self._bytes = 0

    def get(self, addresses: Iterable[str]) -> dict[str, Embedding]:
        """Address -> embedding, for the addresses whose image this encoder has embedded.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = set(addresses)
        if not wanted:
            return {}
        if len(wanted) > LARGEST_LOOKUP:
            return self._query(wanted)
        try:
            # Read before the rows: what changes in between is seen by the next lookup.
            version = self._vectors.address_version()
            cached = self._cached(wanted, version)
            missing = wanted - cached.keys()
            queried = self._query(missing) if missing else {}
        except StoreError:
            # The tables may be other ones, with the same version, when they can be read again.
            with self._lock:
                self._drop_all(None)
            raise
        self._add(queried, version)
        return cached | queried

    def _query(self, addresses: Iterable[str]) -> dict[str, Embedding]:
        keys = self._vectors.keys_of(addresses)
        rows = self._vectors.embeddings(self._encoder_id, self._dim, keys.values())
        return {address: rows[key] for address, key in keys.items() if key in rows}

    def _cached(self, addresses: Iterable[str], version: TableVersion) -> dict[str, Embedding]:
        with self._lock:
            if version != self._version:
                self._drop_all(version)
            cached = {
                address: self._entries[address] for address in addresses if address in self._entries
            }
            for address in cached:
                self._entries.move_to_end(address)
            return cached

    def _add(self, embeddings: dict[str, Embedding], version: TableVersion) -> None:
        with self._lock:
            if version != self._version:
                return
            for address, embedding in embeddings.items():
                if address not in self._entries:
                    # A copy: a row is a view of the whole answer of a query.
                    self._entries[address] = embedding.copy()
                    self._bytes += embedding.nbytes
            while self._bytes > self._size:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes

    def _drop_all(self, version: TableVersion | None) -> None:
        """Forget all entries; ``version`` is the one that the next ones belong to."""
        self._entries.clear()
        self._bytes = 0
        self._version = version
