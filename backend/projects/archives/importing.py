"""Makes tasks of an archive's rows, with the labels in their data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from backend.labels.task_values import field_value
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.keys import (
    SOURCE,
    addresses_in,
    key_of_content,
    key_of_file,
    key_of_pages,
)
from backend.projects.archives.rows import Row
from backend.projects.calls import alone

UPLOAD = 20
"""Files sent in one request."""
SENT = 1000
"""Tasks made in one request."""
MOST_BYTES = 100_000_000
"""Of one request with several files or tasks: Label Studio refuses larger ones, or runs out of
memory."""


@dataclass(frozen=True)
class Imported:
    """How many tasks were made, and how many existed already with other labels."""

    made: int
    differ: int


def importing_alone(studio: LabelStudioClient, number: int) -> AbstractContextManager[None]:
    """Hold this while an archive is read and its tasks are made: two at once would double them.

    Raises:
        StudioError: another import into the project goes on.
    """
    message = f"Another archive is being imported into project {number}."
    return alone(studio, number, message, kind="import")


def import_rows(
    studio: LabelStudioClient,
    number: int,
    rows: Sequence[Row],
    image_field: str,
    known_field: str,
) -> Imported:
    """Make the tasks that the project does not have yet; inside `importing_alone`.

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
    existing = _existing(studio, number, image_field)
    differ = 0
    fresh: list[Row] = []
    for row in rows:
        marked = _marked(row)
        task = existing.get(marked.key) or _earlier(studio, existing.get(row.key), row, image_field)
        if task is None:
            fresh.append(marked)
        else:
            differ += task.get(known_field) != _stored(row.labels)
    made = 0
    for part in _parts(fresh):
        files = [row.file for row in part if row.file is not None]
        addresses = iter(studio.tasks.upload(number, files) if files else [])
        tasks = []
        for row in part:
            # A task that comes along with its data keeps the name that its image once had.
            key = {} if isinstance(row.data.get(SOURCE), str) and row.image else {SOURCE: row.key}
            data = {**row.data, **key, known_field: _stored(row.labels)}
            if row.file is not None:
                address = next(addresses)
                is_list = isinstance(data.get(image_field), list)
                data[image_field] = [address] if is_list else address
            elif row.image and not _has_image(data, image_field, row.image):
                data[image_field] = row.image
            tasks.append({"data": data})
        made += len(studio.tasks.create(number, tasks))
    return Imported(made, differ)


def _existing(
    studio: LabelStudioClient, number: int, image_field: str
) -> dict[str, Mapping[str, Any]]:
    """The data of the tasks that there are, by what recognises their images."""
    existing: dict[str, Mapping[str, Any]] = {}
    for task in studio.tasks.iterate(number):
        for name in (SOURCE, image_field):
            addresses = addresses_in(field_value(task["data"], name))
            if addresses:
                existing[key_of_pages(addresses)] = task["data"]
    return existing


def _marked(row: Row) -> Row:
    """The row with a key that tells its file from another of the same name."""
    return row if row.file is None else replace(row, source=key_of_file(row.key, row.file))


def _earlier(
    studio: LabelStudioClient, task: Mapping[str, Any] | None, row: Row, image_field: str
) -> Mapping[str, Any] | None:
    """The task of a file of this name, as earlier releases made it, unless its file is another."""
    if task is None or row.file is None:
        return task
    address = field_value(task, image_field)
    content = studio.tasks.uploaded(address) if isinstance(address, str) else None
    # What cannot be had any more cannot be told apart.
    same = content is None or key_of_content(row.key, content) == key_of_file(row.key, row.file)
    return task if same else None


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each request."""
    most = UPLOAD if any(row.file for row in rows) else SENT
    part: list[Row] = []
    total = 0
    for row in rows:
        size = _bytes_of(row)
        if part and (len(part) >= most or total + size > MOST_BYTES):
            yield part
            part, total = [], 0
        part.append(row)
        total += size
    if part:
        yield part


def _bytes_of(row: Row) -> int:
    """About how much of a request a row needs."""
    size = len(json.dumps(row.data)) + len(row.image)
    return size if row.file is None else size + row.file.stat().st_size


def _has_image(data: Mapping[str, Any], image_field: str, image: str) -> bool:
    """Whether a task's data names the image already, alone or in a list of pages."""
    value = field_value(data, image_field)
    return isinstance(value, list) or value == image


def _stored(labels: Sequence[str]) -> str | list[str]:
    """Labels as they are kept in a task's data: a string for one, a list for several."""
    return labels[0] if len(labels) == 1 else list(labels)
