"""An archive with one label an image becomes tasks whose data names that label.

Not annotations: Label Studio would take the tasks for done, and nobody would see suggestions for
the labels that are missing.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.images.address import compact_address
from backend.labels.config import LabelConfig
from backend.labels.controls import field_value, known_labels
from backend.labelstudio.client import LabelStudioClient
from backend.storage.tables import chunks

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


@dataclass(frozen=True)
class Archive:
    """What was found, and what of it is left out, one sentence each."""

    entries: Sequence[Entry]
    notes: Sequence[str]


@dataclass(frozen=True)
class Imported:
    """How many tasks were made, and how many were there already with other labels."""

    made: int
    differ: int


def from_csv(path: Path, image_column: str, label_column: str, image_field: str) -> Archive:
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
    labels: dict[str, list[str]] = {}
    empty = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = dropwhile(_is_no_header, file)
            header = next(lines, "")
            # Spreadsheets of many countries put something else than commas.
            separator = max(",;\t", key=header.count)
            rows = csv.DictReader(chain([header], lines), delimiter=separator, strict=True)
            columns = [name.strip() for name in rows.fieldnames or []]
            twice = {name for name in (image_column, label_column) if columns.count(name) > 1}
            if twice:
                raise SettingsError(
                    f"{path} has several columns {', '.join(sorted(twice))}.",
                    "Rename all but the one that is meant.",
                )
            missing = {image_column, label_column} - set(columns)
            if missing:
                raise SettingsError(
                    f"{path} has no column {', '.join(sorted(missing))}.",
                    f"It has: {', '.join(columns) or 'nothing'}. Name them with --image-column and "
                    "--label-column.",
                )
            rows.fieldnames = columns
            for row in rows:
                image, label = (row[image_column] or "").strip(), _label(row[label_column] or "")
                if not image or not label:
                    empty += 1
                elif label not in labels.setdefault(image, []):
                    labels[image].append(label)
    except FileNotFoundError as error:
        raise SettingsError(
            f"There is no file or folder {path}.",
            "Give a CSV file, a folder with one folder a label, or the number of a project.",
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path} cannot be read: {error}.",
            "Give a CSV file in UTF-8 (Excel: save as CSV UTF-8), with every quote closed.",
        ) from error
    entries = [
        Entry({image_field: image}, tuple(found), compact_address(image))
        for image, found in sorted(labels.items())
    ]
    return Archive(entries, [f"Rows without an image or a label: {empty}."] if empty else [])


def from_folder(folder: Path) -> Archive:
    """Image files in one folder a label."""
    entries, others = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        # What a file manager leaves behind is nothing to speak of.
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        # A link out of the archive would publish somebody else's file.
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and len(parts) == 2 and path.suffix.lower() in SUFFIXES:
            label = _label(path.parent.name)
            entries.append(Entry({}, (label,), f"{label}/{_label(path.name)}", path))
        else:
            others.append("/".join(parts))
    if not others:
        return Archive(entries, [])
    note = f"Files that are no images in a folder of their label: {len(others)}, e.g. {others[0]}."
    return Archive(entries, [note])


def from_project(studio: LabelStudioClient, number: int, config: LabelConfig) -> Archive:
    """Tasks of another project, with what was annotated there.

    Args:
        studio: the Label Studio.
        number: of the annotated project.
        config: of the project that they go to; labels of equally named controls are taken.

    Raises:
        StudioError: Label Studio cannot be asked, or has no such project.
    """
    studio.projects.get(number)
    entries, without = [], 0
    for task in studio.tasks.annotated(number):
        labels = [
            label
            for annotation in task["annotations"]
            if not annotation.get("was_cancelled")
            for control in config.controls
            for label in control.chosen(annotation.get("result") or []) or []
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


def _is_no_header(line: str) -> bool:
    """Empty, or the separator as Excel writes it before the header."""
    return not line.strip() or line.lower().startswith("sep=")


def _label(text: str) -> str:
    """A label as people type it: macOS takes the accents of file names apart."""
    return unicodedata.normalize("NFC", text.strip())


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
    studio: LabelStudioClient,
    number: int,
    entries: Sequence[Entry],
    image_field: str,
    known_field: str,
) -> Imported:
    """Make the tasks that are not there yet.

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
    there: dict[str, Any] = {}
    for task in studio.tasks.iterate(number):
        for name in (SOURCE, image_field):
            value = field_value(task["data"], name)
            # A task with several pages holds a list there.
            if isinstance(value, str):
                there[compact_address(value)] = task["data"].get(known_field)
    differ = sum(
        there[entry.source] != _stored(entry.labels) for entry in entries if entry.source in there
    )
    fresh = [entry for entry in entries if entry.source not in there]
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
    """Labels as a task's data holds them."""
    return labels[0] if len(labels) == 1 else list(labels)
