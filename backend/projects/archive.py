"""Imports an archive of images with known labels as tasks whose data names those labels.

They do not become annotations: Label Studio would count the tasks as done, and nobody would see
suggestions for the labels that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.images.address import compact_address
from backend.images.image_files import SUFFIXES
from backend.labels.config import LabelConfig
from backend.labels.controls import field_value, known_labels
from backend.labels.label_files import csv_rows, label_name
from backend.labelstudio.client import LabelStudioClient
from backend.storage.tables import chunks

UPLOAD = 20
"""Files sent in one request."""
SENT = 1000
"""Tasks made in one request."""
SOURCE = "clip_source"
"""The field with a file's path in its archive, by which a second import recognises it."""


@dataclass(frozen=True)
class Entry:
    """One image of an archive.

    Attributes:
        data: of the task to be made; the image field is missing for a file to be uploaded.
        labels: the labels that are known to be on the image.
        source: recognises the image in a second import.
        file: to be uploaded; None where the data has an address.
    """

    data: Mapping[str, Any]
    labels: tuple[str, ...]
    source: str
    file: Path | None = None


@dataclass(frozen=True)
class Archive:
    """The images of an archive, and notes about what was left out, one sentence each."""

    entries: Sequence[Entry]
    notes: Sequence[str]


@dataclass(frozen=True)
class Imported:
    """How many tasks were made, and how many existed already with other labels."""

    made: int
    differ: int


def from_csv(path: Path, image_column: str, label_column: str, image_field: str) -> Archive:
    """Read a CSV file with an image address and a label per row; rows of one image are joined.

    Args:
        path: UTF-8, with a header; commas, semicolons or tabs between the columns.
        image_column: the column with addresses that Label Studio can show.
        label_column: the column with labels.
        image_field: the task-data field of the labeling config.

    Raises:
        SettingsError: the file cannot be read, or lacks a column.
    """
    if not path.exists():
        raise SettingsError(
            f"There is no file or folder {path}.",
            "Give a CSV file, a folder with one folder a label, or the number of a project.",
        )
    labels: dict[str, list[str]] = {}
    empty = 0
    naming = "Name them with --image-column and --label-column."
    for row in csv_rows(path, (image_column, label_column), naming):
        image, label = row[image_column].strip(), label_name(row[label_column])
        if not image or not label:
            empty += 1
        elif label not in labels.setdefault(image, []):
            labels[image].append(label)
    entries = [
        Entry({image_field: image}, tuple(of_image), compact_address(image))
        for image, of_image in sorted(labels.items())
    ]
    return Archive(entries, [f"Rows without an image or a label: {empty}."] if empty else [])


def from_folder(folder: Path) -> Archive:
    """Read a folder that has one folder of image files per label."""
    entries, others = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        # What a file manager leaves behind is nothing to speak of.
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        # A link out of the archive would publish somebody else's file.
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and len(parts) == 2 and path.suffix.lower() in SUFFIXES:
            label = label_name(path.parent.name)
            entries.append(Entry({}, (label,), f"{label}/{label_name(path.name)}", path))
        else:
            others.append("/".join(parts))
    if not others:
        return Archive(entries, [])
    note = f"Files that are no images in a folder of their label: {len(others)}, e.g. {others[0]}."
    return Archive(entries, [note])


def from_project(studio: LabelStudioClient, number: int, config: LabelConfig) -> Archive:
    """Read the annotated tasks of another project.

    Args:
        studio: the Label Studio.
        number: the annotated project.
        config: of the project that gets the tasks; labels of controls of the same name are taken.

    Raises:
        StudioError: there is no such project, or Label Studio does not answer.
    """
    studio.projects.get(number)
    entries, without = [], 0
    for task in studio.tasks.annotated(number):
        labels = [
            label
            for annotation in task["annotations"]
            if not annotation.get("was_cancelled")
            for control in config.controls
            for label in control.chosen(annotation.get("result") or [], any_image=True) or []
        ]
        if labels:
            entries.append(
                Entry(task["data"], tuple(dict.fromkeys(labels)), f"{number}/{task['id']}")
            )
        else:
            without += 1
    names = ", ".join(control.name for control in config.controls)
    note = f"Annotated tasks without a label in {names}: {without}."
    return Archive(entries, [note] if without else [])


def unknown_labels(entries: Sequence[Entry], config: LabelConfig) -> list[str]:
    """The labels of an archive that no control of the labeling config has, sorted."""
    names = {name for entry in entries for name in entry.labels}
    known = {
        name
        for name in names
        for control in config.controls
        if known_labels(control, {"label": name}, "label")
    }
    return sorted(names - known)


def import_entries(
    studio: LabelStudioClient,
    number: int,
    entries: Sequence[Entry],
    image_field: str,
    known_field: str,
) -> Imported:
    """Make the tasks that the project does not have yet.

    Args:
        studio: the Label Studio.
        number: the project.
        entries: of the archive.
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
    differ = sum(
        existing[entry.source] != _stored(entry.labels)
        for entry in entries
        if entry.source in existing
    )
    fresh = [entry for entry in entries if entry.source not in existing]
    made = 0
    for part in chunks(fresh, UPLOAD if any(entry.file for entry in fresh) else SENT):
        files = [entry.file for entry in part if entry.file is not None]
        addresses = iter(studio.tasks.upload(number, files) if files else [])
        tasks = []
        for entry in part:
            data = {**entry.data, SOURCE: entry.source}
            if entry.file is not None:
                data[image_field] = next(addresses)
            data[known_field] = _stored(entry.labels)
            tasks.append({"data": data})
        made += len(studio.tasks.create(number, tasks))
    return Imported(made, differ)


def _stored(labels: Sequence[str]) -> str | list[str]:
    """Labels as they are kept in a task's data: a string for one, a list for several."""
    return labels[0] if len(labels) == 1 else list(labels)
