"""The store of an installation, under one URI: JSON artifacts, LanceDB tables, embeddings.

Within a process each object here serialises its own writes, and reads take no lock. Between
processes, appending is safe at any time; an artifact that is written once is kept from the first
writer; an artifact that is replaced is the last writer's, so whoever reads, changes and writes one
holds a lock of `backend.storage.locks` meanwhile.
"""

from __future__ import annotations

from backend.storage.artifacts import Artifacts
from backend.storage.generation import Generation
from backend.storage.locks import Locks
from backend.storage.tables import Tables
from backend.storage.validators import ValidatorRows
from backend.storage.vectors import Vectors


class Store:
    """One store. Thread-safe; several processes may use it at once, see the module.

    Args:
        uri: a directory (created if missing) or a URI that LanceDB and Arrow know, e.g. ``s3://``.
        read_only: reading creates no table; for processes that only read.

    Attributes:
        artifacts: JSON files, written once or replaced whole.
        generation: a marker that changes with everything that model versions are made of.
        locks: held across processes and machines.
        tables: LanceDB tables, by name.
        vectors: embeddings and image addresses, in those tables.
        validators: what tells whether the image at an address is still the same.

    Raises:
        StoreError: the location cannot be opened.
    """

    def __init__(self, uri: str, *, read_only: bool = False) -> None:
        self.uri = uri.rstrip("/")
        self.artifacts = Artifacts(self.uri)
        self.generation = Generation(self.artifacts)
        self.locks = Locks(self.uri)
        self.tables = Tables(self.uri, self.generation, self.locks, read_only=read_only)
        self.vectors = Vectors(self.tables)
        self.validators = ValidatorRows(self.tables)
