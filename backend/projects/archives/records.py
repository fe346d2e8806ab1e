"""Rows of tables: records with a column for the image and columns for its labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.labels.label_files import label_name
from backend.projects.archives.cells import labels_of
from backend.projects.archives.places import Places
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Row
from backend.projects.label_states import OWN_COLUMNS, is_known_row
from backend.text_files import listed, shortened

Record = Mapping[str, Any]
FILE_NAME = "file_name"
"""The column with the image in a folder's metadata."""
_ANNOTATION = "annotation_id"
"""The column by which Label Studio's exports have a row for each annotation."""
_YES = frozenset({"1", "1.0", "true", "yes"})
_NO = frozenset({"", "0", "0.0", "-1", "-1.0", "false", "no", "none"})


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        image: the column with the image.
        labels: the columns with labels.
        one_hot: whether these columns' names are the labels, and their cells say whether each is
            there.
    """

    image: str
    labels: tuple[str, ...]
    one_hot: bool = False


@dataclass(frozen=True)
class Table:
    """What a file says, row by row.

    Attributes:
        path: of the file.
        names: of its columns or fields.
        records: its rows.
        first: the number of the first one, as a person counts them.
    """

    path: Path
    names: Sequence[str]
    records: Sequence[Record]
    first: int = 1

    @classmethod
    def of_objects(cls, path: Path, objects: Sequence[Record]) -> Table:
        """The table of JSON objects, each of which is a row."""
        names = dict.fromkeys(str(name) for record in objects for name in record)
        return cls(path, list(names), objects)


def rows_of_records(table: Table, request: ArchiveRequest, places: Places) -> Iterator[Row]:
    """The rows of a table.

    Args:
        table: a row for each image, or for each label of an image.
        request: may name columns, and says how labels are separated.
        places: finds the images.

    Raises:
        SettingsError: the columns that are asked for, or the usual ones, are not there, or a cell
            of a label's column says neither yes nor no.
    """
    columns = _choose_columns(table, request)
    fields = {control.options_field for control in request.config.controls}
    numbered: Iterable[tuple[int, Record]] = enumerate(table.records, table.first)
    is_ours = {*table.names} >= OWN_COLUMNS
    if is_ours:
        numbered = _known_ones([*numbered], columns)
    for number, record in numbered:
        where = f"row {number}"
        if columns.one_hot:
            labels = _marked(table.path, where, record, columns.labels)
        else:
            labels = tuple(
                label
                for name in columns.labels
                for label in labels_of(record.get(name), request, request.control(name))
            )
        row = places.row(_text(record.get(columns.image)), where, labels)
        own = {name: record[name] for name in fields if name and isinstance(record.get(name), list)}
        yield replace(row, data=own, one_of_several=is_ours or _ANNOTATION in record)


def _choose_columns(table: Table, request: ArchiveRequest) -> Columns:
    """The columns with the image and the labels."""
    names = table.names
    images = [request.image_column] if request.image_column else _usual_images(request)
    image = next((name for name in images if name in names), "")
    if request.label_columns:
        labels = request.label_columns
        one_hot = _are_one_hot(labels, table.records, request)
    else:
        labels, one_hot = _usual_labels(table, image, request)
    wanted = [] if image else [images[0]]
    wanted += [name for name in labels or ("label",) if name not in names]
    if wanted:
        raise SettingsError(
            f"{table.path} has no column {listed(wanted)}.",
            f"It has: {listed(names) or 'nothing'}. Name them with --image-column and "
            "--label-column; a column named after each label works, too.",
        )
    twice = [name for name in (image, *labels) if names.count(name) > 1]
    if twice:
        raise SettingsError(
            f"{table.path} has several columns {listed(twice)}.",
            "Rename all but the one that is meant.",
        )
    return Columns(image, labels, one_hot)


def _usual_images(request: ArchiveRequest) -> list[str]:
    return list(dict.fromkeys((request.image_field, "image", FILE_NAME)))


def _usual_labels(
    table: Table, image: str, request: ArchiveRequest
) -> tuple[tuple[str, ...], bool]:
    names, records = table.names, table.records
    controls = tuple(control.name for control in request.config.controls if control.name in names)
    for usual in (("label",), controls, ("labels",)):
        if usual and set(usual) <= set(names):
            return usual, False
    others = [name for name in names if name and name != image]
    if any(_is_label(name, request) for name in others):
        # A label that the config does not have is one, too: it is told, not lost.
        marked = [name for name in others if _is_label(name, request) or _is_marked(name, records)]
        return tuple(marked), True
    return (), False


def _are_one_hot(names: Sequence[str], records: Sequence[Record], request: ArchiveRequest) -> bool:
    """Whether columns that somebody has named are labels themselves."""
    return all(
        not request.control(name) and _is_label(name, request) and _is_marked(name, records)
        for name in names
    )


def _is_label(name: str, request: ArchiveRequest) -> bool:
    return request.names.has(label_name(name)) or bool(request.names.similar(name))


def _is_marked(name: str, records: Sequence[Record]) -> bool:
    """Whether each cell of a column says yes or no."""
    return bool(records) and all(_text(one.get(name)).lower() in _YES | _NO for one in records)


def _marked(path: Path, where: str, record: Record, names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        cell = _text(record.get(name))
        if cell.lower() not in _YES | _NO:
            raise SettingsError(
                f"{path}: {where} has {shortened(cell)!r} in the column {shortened(name)!r}.",
                "Write 1 where the label is there and 0 where it is not. If labels stand in the "
                "cells, name their column with --label-column.",
            )
    return tuple(label_name(name) for name in names if _text(record.get(name)).lower() in _YES)


def _known_ones(
    numbered: Sequence[tuple[int, Record]], columns: Columns
) -> Iterator[tuple[int, Record]]:
    """The rows of our own export that name a label, and one for each image that has none."""
    seen = {_text(record.get(columns.image)) for _, record in numbered if is_known_row(record)}
    for number, record in numbered:
        image = _text(record.get(columns.image))
        if is_known_row(record):
            yield number, record
        elif image not in seen:
            seen.add(image)
            yield number, {**record, **dict.fromkeys(columns.labels)}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)
