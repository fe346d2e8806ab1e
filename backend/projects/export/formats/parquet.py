"""Parquet files: the same columns as CSV, with types, and with descriptions in the schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.projects.export.formats.columns import (
    PER_IMAGE,
    PER_LABEL,
    described,
    image_rows,
    image_schema,
    label_rows,
)
from backend.projects.export.formats.content import Content
from backend.projects.export.rows import ExportedTask
from backend.storage.tables import chunks

ROWS = 50_000
"""In a row group."""


def write_labels(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write one row per label.

    Raises:
        OSError: the file cannot be written.
    """
    write_rows(label_rows(tasks), path, described(PER_LABEL, content))


def write_images(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write one row per image: in the column of a label, true for present and false for absent.

    Raises:
        OSError: the file cannot be written.
    """
    columns = content.columns(PER_IMAGE.names)
    write_rows(image_rows(tasks, columns), path, described(image_schema(columns), content))


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path, schema: pa.Schema) -> None:
    """Write rows with the columns of a schema, in order.

    Raises:
        OSError: the file cannot be written.
    """
    with pq.ParquetWriter(path, schema) as writer:
        for part in chunks(rows, ROWS):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
