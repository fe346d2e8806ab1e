"""Folders of image files: one folder per label, or files with metadata beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from backend.errors import SettingsError
from backend.projects.archives.cells import labels_of
from backend.projects.archives.parquet import read_parquet
from backend.projects.archives.places import OTHER_FORMATS, UPLOADED, Places, file_row
from backend.projects.archives.records import Table, rows_of_records
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Reason, Row
from backend.projects.archives.tables import rows_of_table
from backend.text_files import read_json_lines

SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}
)
"""Folders above those of the labels that say what the images are for."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files that name the images beside and below them, with their labels."""
_OF_THE_FILE = frozenset(
    {Reason.OTHER_FORMAT, Reason.NOT_AN_IMAGE, Reason.OUTSIDE, Reason.NOT_TEXT}
)
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})


def rows_of_folder(folder: Path, request: ArchiveRequest) -> Iterator[Row]:
    """Read a folder of image files.

    ``LABEL/1.jpg``, ``train/LABEL/1.jpg``, or files with a ``metadata.csv``, ``.jsonl`` or
    ``.parquet`` in the folder or in each of its splits.

    Args:
        folder: the archive.
        request: may name columns of the metadata.

    Raises:
        SettingsError: the folder or its metadata cannot be read.
    """
    files = [*_files(folder)]
    metadata = [
        path
        for path in files
        if path.name in METADATA
        and (path.parent == folder or (_depth(folder, path) == 2 and _is_split(path.parent.name)))
    ]
    if metadata:
        return _listed_rows(folder, files, metadata, request)
    return _labelled_rows(folder, files, request)


def _labelled_rows(folder: Path, files: Sequence[Path], request: ArchiveRequest) -> Iterator[Row]:
    """Rows of files in a folder of their label."""
    splits = _splits(folder, files, request)
    for path in files:
        depth = 3 if path.relative_to(folder).parts[0] in splits else 2
        row = file_row(folder, path, tuple(labels_of(path.parent.name, request)))
        reason = row.reason
        if _is_system_file(path):
            reason = Reason.SYSTEM_FILE
        elif reason not in _OF_THE_FILE:
            here = _depth(folder, path)
            reason = Reason.LOOSE if here < depth else Reason.DEEPER if here > depth else reason
        yield replace(row, reason=reason)


def _listed_rows(
    folder: Path, files: Sequence[Path], metadata: Sequence[Path], request: ArchiveRequest
) -> Iterator[Row]:
    """Rows of metadata files, and one for each image that they do not name."""
    named: set[Path | None] = set()
    for path in metadata:
        places = Places(request, path.parent)
        for row in _rows_of_metadata(path, request, places):
            named.add(row.file)
            where = f"{path.relative_to(folder).as_posix()}, {row.where}"
            if row.file is None or request.images:
                yield replace(row, where=where)
            else:
                # The same name may be in each of several splits.
                own = file_row(folder, row.file, row.labels, where)
                yield replace(own, reason=row.reason or own.reason, data=row.data)
    for path in files:
        if path in named or path in metadata:
            continue
        if _is_system_file(path):
            yield replace(file_row(folder, path, ()), reason=Reason.SYSTEM_FILE)
        elif path.suffix.lower() in UPLOADED | OTHER_FORMATS:
            yield replace(file_row(folder, path, ()), reason=Reason.UNLISTED)


def _rows_of_metadata(path: Path, request: ArchiveRequest, places: Places) -> Iterator[Row]:
    if path.suffix == ".csv":
        return rows_of_table(path, request, places)
    if path.suffix == ".parquet":
        return rows_of_records(read_parquet(path), request, places)
    records: dict[int, Mapping[str, Any]] = read_json_lines(path, request.encoding)
    if not all(isinstance(record, Mapping) for record in records.values()):
        raise SettingsError(
            f"{path} has a line that is no object.",
            'Write {"file_name": "1.jpg", "label": "cat"} in each line.',
        )
    return rows_of_records(Table.of_objects(path, records), request, places)


def _splits(folder: Path, files: Sequence[Path], request: ArchiveRequest) -> set[str]:
    """The folders that hold folders of labels, and are none themselves."""
    deep = {
        path.relative_to(folder).parts[0]
        for path in files
        if _depth(folder, path) == 3 and path.suffix.lower() in UPLOADED
    }
    return {name for name in deep if _is_split(name) and not request.names.has(name)}


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, sorted; of a folder that a file manager made, the folder."""
    for place, folders, names in os.walk(folder, onerror=_refuse):
        path = Path(place)
        hidden = [name for name in folders if _is_system_file(path / name)]
        # A link to a folder is not followed.
        links = [name for name in folders if (path / name).is_symlink()]
        folders[:] = sorted({*folders} - {*hidden} - {*links})
        yield from sorted(path / name for name in (*names, *hidden, *links))


def _refuse(error: OSError) -> NoReturn:
    raise SettingsError(
        f"{error.filename} cannot be read: {error.strerror}.", "Give yourself access to the folder."
    ) from error


def _is_split(name: str) -> bool:
    return name.lower() in SPLITS


def _depth(folder: Path, path: Path) -> int:
    return len(path.relative_to(folder).parts)


def _is_system_file(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES
