"""An archive with one label an image becomes tasks whose data names that label.

Not annotations: Label Studio would take the tasks for done, and nobody would see suggestions for
the labels that are missing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.labels import LabelConfig, field_value
from backend.memory import known_labels
from backend.store import chunks
from backend.studio import Studio

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
UPLOAD = 20
"""Files sent in one request."""
SENT = 1000
"""Tasks made in one request."""
MAX_CELL = 100_000_000
SOURCE = "clip_source"
"""The field that holds a file's place in its archive, by which a second import knows it."""


@dataclass(frozen=True)
class Entry:
    """One image of an archive.

    Attributes:
        data: of the task to be made, with the label; ``image_field`` may be missing for files.
        labels: what is known to be on it.
        source: by which it is known again.
        file: to be uploaded; None where the data has an address.
    """

    data: Mapping[str, Any]
    labels: tuple[str, ...]
    source: str
    file: Path | None = None


def from_csv(path: Path, image_column: str, label_column: str, image_field: str) -> list[Entry]:
    """Rows of a CSV file: an image's address and a label; several rows of one image are joined.

    Args:
        path: UTF-8, with a header; commas, semicolons or tabs between the columns.
        image_column: the column with addresses that Label Studio can show.
        label_column: the column with labels.
        image_field: the task-data field of the labeling config.

    Raises:
        SettingsError: the file cannot be read, or lacks a column.
    """
    # An image may stand in a cell as a data: URI.
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Spreadsheets of many countries put something else than commas.
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            missing = {image_column, label_column} - set(reader.fieldnames or [])
            if missing:
                raise SettingsError(
                    f"{path} has no column {', '.join(sorted(missing))}.",
                    f"It has: {', '.join(reader.fieldnames or ['nothing'])}. Name them with "
                    "--image-column and --label-column.",
                )
            labels: dict[str, list[str]] = {}
            for row in reader:
                image, label = (row[image_column] or "").strip(), (row[label_column] or "").strip()
                if image and label and label not in labels.setdefault(image, []):
                    labels[image].append(label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path} cannot be read: {error}.",
            "Give a CSV file in UTF-8 (Excel: save as CSV UTF-8).",
        ) from error
    return [
        Entry({image_field: image}, tuple(found), image) for image, found in sorted(labels.items())
    ]


def from_folder(folder: Path) -> list[Entry]:
    """Image files in one folder a label.

    Raises:
        SettingsError: there are none.
    """
    found = [
        Entry({}, (path.parent.name,), f"{path.parent.name}/{path.name}", path)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in SUFFIXES
        # What a file manager leaves behind is no image.
        and not path.name.startswith(".")
        and not path.parent.name.startswith(".")
        # A link out of the archive would publish somebody else's file.
        and path.resolve().is_relative_to(folder.resolve())
    ]
    if not found:
        raise SettingsError(
            f"{folder} has no image files in folders of their labels.",
            "Put them into one folder a label: ARCHIVE/cat/1.jpg, ARCHIVE/dog/2.jpg.",
        )
    return found


def from_project(studio: Studio, number: int, config: LabelConfig) -> list[Entry]:
    """Tasks of another project, with what was annotated there.

    Args:
        studio: the Label Studio.
        number: of the annotated project.
        config: of the project that they go to; labels of equally named controls are taken.

    Raises:
        StudioError: Label Studio cannot be asked.
    """
    entries = []
    for task in studio.annotated(number):
        labels = [
            label
            for annotation in task["annotations"]
            if not annotation.get("was_cancelled")
            for control in config.controls
            for label in control.chosen(annotation.get("result") or [])
        ]
        if labels:
            entries.append(
                Entry(task["data"], tuple(dict.fromkeys(labels)), f"{number}/{task['id']}")
            )
    return entries


def unknown_labels(entries: Sequence[Entry], config: LabelConfig) -> list[str]:
    """Labels of an archive that no control of the labeling config has."""
    names = {name for entry in entries for name in entry.labels}
    known = {
        name
        for name in names
        for control in config.controls
        if known_labels(control, {"label": name}, "label")
    }
    return sorted(names - known)


def import_entries(
    studio: Studio, number: int, entries: Sequence[Entry], image_field: str, known_field: str
) -> int:
    """Make the tasks that are not there yet.

    Args:
        studio: the Label Studio.
        number: the project.
        entries: of the archive.
        image_field: the task-data field of the labeling config.
        known_field: the field that gets the labels.

    Returns:
        How many were made.

    Raises:
        StudioError: Label Studio refuses.
        SettingsError: a file cannot be read.
    """
    there = set()
    for task in studio.tasks(number):
        values = (field_value(task["data"], name) for name in (SOURCE, image_field))
        # A task with several pages holds a list there.
        there |= {value for value in values if isinstance(value, str)}
    fresh = [entry for entry in entries if entry.source not in there]
    made = 0
    for part in chunks(fresh, UPLOAD if any(entry.file for entry in fresh) else SENT):
        files = [entry.file for entry in part if entry.file is not None]
        addresses = iter(studio.upload(number, files) if files else [])
        tasks = []
        for entry in part:
            data = {**entry.data, SOURCE: entry.source}
            if entry.file is not None:
                data[image_field] = next(addresses)
            data[known_field] = entry.labels[0] if len(entry.labels) == 1 else list(entry.labels)
            tasks.append({"data": data})
        made += len(studio.create_tasks(number, tasks))
    return made
