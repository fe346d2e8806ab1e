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
from backend.projects.label_states import OWN_COLUMNS, OWN_WIDE_COLUMNS, is_known_row
from backend.text_files import listed, shortened

Record = Mapping[str, Any]
FILE_NAME = "file_name"
"""The column with the image in a folder's metadata."""
_ANNOTATION = "annotation_id"
"""The column by which Label Studio's exports have a row for each annotation."""
_NUMBERS = frozenset({"id", "index", "task", _ANNOTATION})
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
        numbers: of the rows, as a person counts them.
    """

    path: Path
    names: Sequence[str]
    records: Sequence[Record]
    numbers: Sequence[int]

    @classmethod
    def of_objects(cls, path: Path, numbered: Mapping[int, Record]) -> Table:
        """The table of JSON objects, each of which is a row, by their numbers."""
        names = dict.fromkeys(str(name) for record in numbered.values() for name in record)
        return cls(path, list(names), list(numbered.values()), list(numbered))


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
    is_ours = {*table.names} >= OWN_COLUMNS
    if {*table.names} >= OWN_WIDE_COLUMNS and not request.label_columns:
        raise SettingsError(
            f"{table.path} has a row for each image, and does not say which labels are suggestions "
            "only.",
            "Export it with a row for each label (ls-clip export without --rows image), or name "
            "the columns of labels that count with --label-column.",
        )
    columns = _choose_columns(table, request, is_ours)
    asked = request.config.with_skipped().controls
    fields = {control.options_field for control in asked}
    numbered: Iterable[tuple[int, Record]] = zip(table.numbers, table.records, strict=True)
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
        image = record.get(columns.image)
        own = {name: record[name] for name in fields if name and isinstance(record.get(name), list)}
        if isinstance(image, list):
            row, own[request.image_field] = places.row_of_pages(image, where, labels)
        else:
            row = places.row(_text(image), where, labels)
        yield replace(row, data=own, one_of_several=is_ours or _ANNOTATION in record)


def _choose_columns(table: Table, request: ArchiveRequest, is_ours: bool) -> Columns:
    """The columns with the image and the labels; our own files have a column for the label."""
    names = table.names
    images = [request.image_column] if request.image_column else _usual_images(request)
    image = next((name for name in images if name in names), "")
    if request.label_columns:
        labels = request.label_columns
        one_hot = _are_one_hot(labels, table.records, request)
    elif is_ours:
        labels, one_hot = ("label",), False
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
    controls = tuple(control.name for control in request.config.with_skipped().controls)
    named = tuple(name for name in controls if name in names and name != image)
    if _ANNOTATION in names:
        # In a file of Label Studio all other columns are fields of the tasks' data.
        return named or controls, False
    for usual in (named, ("label",), ("labels",)):
        if usual and set(usual) <= set(names):
            return usual, False
    others = [name for name in names if name != image and not _is_number_column(name)]
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


def _is_number_column(name: str) -> bool:
    """Whether a column numbers the rows, whatever its cells look like; pandas names none so."""
    return not name or name.lower() in _NUMBERS or name.lower().startswith("unnamed: ")


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
