"""Absolute paths, mostly of another machine: matched to the files below a folder by their ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from backend.projects.archives.files_below import FilesBelow
from backend.projects.archives.places import file_row
from backend.projects.archives.rows import Reason, Row

Parts = tuple[str, ...]
_DRIVE = re.compile(r"[A-Za-z]:")


def located(rows: Sequence[Row], folder: Path) -> tuple[list[Row], str]:
    """The rows whose paths are absolute, each with its file below a folder.

    Of all paths the same beginning is stripped. A path of which less or more would have to be
    stripped is left out: the file that is there may be another one.

    Args:
        rows: of an archive.
        folder: that has the files, as deep below it as below the folder that is stripped.

    Returns:
        All rows, and what was stripped of the paths; empty if no file was found.
    """
    files = FilesBelow(folder)
    found = {row.path: _prefix(row.path, files) for row in rows if row.path}
    counts = Counter(prefix for prefix in found.values() if prefix is not None)
    paths = sorted(parts_of(path) for path, prefix in found.items() if prefix is not None)
    # What the first and the last begin with, all begin with.
    shared = [
        prefix for prefix in counts if paths[0][: len(prefix)] == paths[-1][: len(prefix)] == prefix
    ]
    chosen = max(shared, key=lambda prefix: (counts[prefix], -len(prefix)), default=None)
    placed = [_placed(row, files, chosen, found[row.path]) if row.path else row for row in rows]
    if chosen is None:
        return placed, ""
    example = next(path for path, prefix in found.items() if prefix == chosen)
    return placed, _as_written(example, chosen)


def parts_of(path: str) -> Parts:
    """The folders and the name in an absolute path, with its drive or server as the first."""
    text = path
    if path[:5].lower() == "file:":
        text = unquote(path[len("file:") :]).removeprefix("//localhost")
    parts = [part for part in text.replace("\\", "/").split("/") if part not in {"", "."}]
    if parts and _DRIVE.match(parts[0]):
        # C:1.jpg is in whatever folder is the present one on C.
        parts[:1] = [parts[0][:2].upper(), *([parts[0][2:]] if parts[0][2:] else [])]
    return tuple(parts)


def _prefix(path: str, files: FilesBelow) -> Parts | None:
    """The least that has to be stripped of a path so that its end is a file; None: nothing is."""
    parts = parts_of(path)
    for length in range(len(parts)):
        tail = parts[length:]
        # Neither a drive nor a way upwards may lead out of the folder.
        is_inside = ".." not in tail and not any(_DRIVE.match(part) for part in tail)
        if is_inside and files.find("/".join(tail)) is not None:
            return parts[:length]
    return None


def _placed(row: Row, files: FilesBelow, chosen: Parts | None, prefix: Parts | None) -> Row:
    parts = parts_of(row.path)
    path = None if prefix is None else files.find("/".join(parts[len(prefix) :]))
    if path is None:
        return replace(row, elsewhere=files.only(parts[-1:]), reason=Reason.MISSING_FILE)
    if prefix != chosen:
        return replace(row, reason=Reason.AMBIGUOUS)
    own = file_row(files.folder, path, row.labels)
    return replace(row, file=own.file, source=own.source, reason=own.reason)


def _as_written(path: str, prefix: Parts) -> str:
    """The beginning of a path with this prefix, for a person."""
    separator = "\\" if "\\" in path else "/"
    is_address = path[:5].lower() == "file:"
    lead = "file:///" if is_address else path[: len(path) - len(path.lstrip("/\\"))]
    return lead + "".join(part + separator for part in prefix)
