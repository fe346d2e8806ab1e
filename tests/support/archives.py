"""Archives that tests write, and how they read them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.labels.config import parse_config
from backend.projects.archives.reading import read_archive
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Archive
from tests.support.builders import choices_config

Labels = dict[str, tuple[str, ...]]
ANIMALS = choices_config("cat", "dog", "food", "person")


def write(folder: Path, name: str, content: str | bytes = b"x") -> Path:
    """Write a file, and the folders above it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A Parquet file with these columns."""
    content = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), content)
    return content.getvalue()


def read(source: Path, config: str = ANIMALS, studio: Any = None, **options: Any) -> Archive:
    """Read an archive for a project with this labeling config."""
    return read_archive(str(source), ArchiveRequest(parse_config(config), **options), studio)


def labels_in(archive: Archive) -> Labels:
    """What recognises each image -> its labels."""
    return {row.key: row.labels for row in archive.rows}


def reasons_in(archive: Archive) -> dict[str, tuple[int, str]]:
    """Reason -> how much is left out for it, and the example."""
    return {str(reason): (one.count, one.example) for reason, one in archive.left_out.items()}


def choices_result(name: str, labels: Sequence[Any], kind: str = "choices") -> dict[str, Any]:
    """An item of an annotation's result."""
    return {"from_name": name, "to_name": "image", "type": kind, "value": {kind: list(labels)}}
