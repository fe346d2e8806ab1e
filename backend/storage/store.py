"""What an installation keeps, under one URI: JSON artifacts, LanceDB tables, embeddings."""

from __future__ import annotations

from backend.storage.artifacts import Artifacts
from backend.storage.generation import Generation
from backend.storage.tables import Tables
from backend.storage.vectors import Vectors


class Store:
    """One store. Thread-safe; several processes may use it at once.

    Args:
        uri: a directory (created if missing) or a URI that LanceDB and Arrow know, e.g. ``s3://``.

    Attributes:
        artifacts: JSON files, written once or replaced whole.
        generation: changes with everything that model versions are made of.
        tables: LanceDB tables, to which rows are only appended.
        vectors: embeddings and image addresses, in those tables.

    Raises:
        StoreError: the location cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.artifacts = Artifacts(self.uri)
        self.generation = Generation(self.artifacts)
        self.tables = Tables(self.uri)
        self.vectors = Vectors(self.tables)
