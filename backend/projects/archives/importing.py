"""Makes tasks of an archive's rows, with the labels in their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.images.address import compact_address
from backend.labels.task_values import field_value
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.rows import Row
from backend.storage.tables import chunks

UPLOAD = 20
"""Files sent in one request."""
SENT = 1000
"""Tasks made in one request."""
SOURCE = "clip_source"
"""The field with a file's path in its archive, or an address: a second import recognises it."""


@dataclass(frozen=True)
class Imported:
    """How many tasks were made, and how many existed already with other labels."""

    made: int
    differ: int


def import_rows(
    studio: LabelStudioClient,
    number: int,
    rows: Sequence[Row],
    image_field: str,
    known_field: str,
) -> Imported:
    """Make the tasks that the project does not have yet.

    Args:
        studio: the Label Studio.
        number: the project.
        rows: of the archive.
        image_field: the task-data field of the labeling config.
        known_field: the field that gets the labels.

    Raises:
        StudioError: Label Studio refuses.
        SettingsError: a file cannot be read.
    """
    existing: dict[str, Any] = {}
    for task in studio.tasks.iterate(number):
        for name in (SOURCE, image_field):
            value = field_value(task["data"], name)
            # A task with several pages holds a list instead.
            if isinstance(value, str):
                existing[compact_address(value)] = task["data"].get(known_field)
    differ = sum(existing[row.key] != _stored(row.labels) for row in rows if row.key in existing)
    fresh = [row for row in rows if row.key not in existing]
    made = 0
    for part in chunks(fresh, UPLOAD if any(row.file for row in fresh) else SENT):
        files = [row.file for row in part if row.file is not None]
        addresses = iter(studio.tasks.upload(number, files) if files else [])
        tasks = []
        for row in part:
            data = {**row.data, SOURCE: row.key, known_field: _stored(row.labels)}
            if row.file is not None:
                data[image_field] = next(addresses)
            elif row.image and field_value(data, image_field) != row.image:
                data[image_field] = row.image
            tasks.append({"data": data})
        made += len(studio.tasks.create(number, tasks))
    return Imported(made, differ)


def _stored(labels: Sequence[str]) -> str | list[str]:
    """Labels as they are kept in a task's data: a string for one, a list for several."""
    return labels[0] if len(labels) == 1 else list(labels)
