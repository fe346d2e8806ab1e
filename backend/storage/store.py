"""The store of an installation, under one URI: JSON artifacts, LanceDB tables, embeddings.

Locks: within a process each object here serialises its own writes, and reads take no lock. Between
processes there is no lock. Appending is safe at any time; an artifact that is written once is kept
from the first writer; an artifact that is replaced is the last writer's.
"""

from __future__ import annotations

from backend.storage.artifacts import Artifacts
from backend.storage.generation import Generation
from backend.storage.tables import Tables
from backend.storage.vectors import Vectors


class Store:
    """One store. Thread-safe; several processes may use it at once, see the module.

    Args:
        uri: a directory (created if missing) or a URI that LanceDB and Arrow know, e.g. ``s3://``.

    Attributes:
        artifacts: JSON files, written once or replaced whole.
        generation: a marker that changes with everything that model versions are made of.
        tables: LanceDB tables, by name.
        vectors: embeddings and image addresses, in those tables.

    Raises:
        StoreError: the location cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.artifacts = Artifacts(self.uri)
        self.generation = Generation(self.artifacts)
        self.tables = Tables(self.uri, self.generation)
        self.vectors = Vectors(self.tables)
