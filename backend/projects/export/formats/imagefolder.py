"""Folders as Hugging Face's ``imagefolder`` reads them: the images of each split, with a table.

The table is ``metadata.parquet``: in CSV and JSON Lines a column that is empty in one split has no
type, and the splits then do not go together.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from backend.projects.export.formats.columns import PER_IMAGE, described
from backend.projects.export.formats.content import Content, LabelKey
from backend.projects.export.formats.parquet import write_rows
from backend.projects.export.rows import ExportedImage, ExportedTask, Presence
from backend.projects.export.splits import Split

TABLE = "metadata.parquet"
_LISTS = tuple(presence.value for presence in Presence)
_COLUMNS = pa.schema(
    [
        *(PER_IMAGE.field(name) for name in ("file_name", "task", "name", "width", "height")),
        PER_IMAGE.field("reviewed"),
        *(
            pa.field(name, pa.list_(pa.string()), metadata={"description": f"labels: {name}"})
            for name in _LISTS
        ),
    ]
)


def write(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write the table of each split into its folder, where the images are already.

    Raises:
        OSError: a table cannot be written.
    """
    names = content.columns(())
    rows: dict[Split, list[dict[str, Any]]] = {}
    for task in tasks:
        for image in task.images:
            rows.setdefault(image.split or Split.TRAIN, []).append(_row(image, names))
    for split, of_split in rows.items():
        write_rows(of_split, path / split.value / TABLE, described(_COLUMNS, content))


def _row(image: ExportedImage, names: dict[LabelKey, str]) -> dict[str, Any]:
    lists = {
        presence.value: [names.get(key, key[1]) for key in image.keys(presence)]
        for presence in Presence
    }
    return {
        "file_name": image.file_name,
        "task": image.task,
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "reviewed": image.reviewed,
        **lists,
    }
