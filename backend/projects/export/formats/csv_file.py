"""CSV files: UTF-8, with a header; a cell that is empty is unknown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.projects.export.formats.columns import PER_IMAGE, PER_LABEL, image_rows, label_rows
from backend.projects.export.formats.content import Content
from backend.projects.export.rows import ExportedTask


def write_labels(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write one row per label.

    Raises:
        OSError: the file cannot be written.
    """
    _write(path, PER_LABEL.names, label_rows(tasks))


def write_images(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write one row per image: in the column of a label, 1 for present and 0 for absent.

    Raises:
        OSError: the file cannot be written.
    """
    columns = content.columns(PER_IMAGE.names)
    numbers = {True: 1, False: 0, None: None}
    rows = (
        {**row, **{name: numbers[row[name]] for name in columns.values()}}
        for row in image_rows(tasks, columns)
    )
    _write(path, [*PER_IMAGE.names, *columns.values()], rows)


def _write(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
