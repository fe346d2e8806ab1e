"""What images were called before they came to Label Studio, and safe names for their copies."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.images.address import CLOUD_SCHEMES
from backend.images.image_files import SUFFIXES
from backend.projects.archives.keys import SOURCE, name_of

_UPLOAD = "/data/upload/"
_LOCAL_FILES = "/data/local-files/"
# Forbidden on one of the usual file systems.
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MOST_BYTES = 120
"""Of a file's or a folder's name; file systems take 255, and a number may be added."""
_MOST_FOLDERS = 8
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def original_name(data: Mapping[str, Any], address: str, task: int) -> str:
    """What an image was called before it came to Label Studio.

    The first that there is: its path in the archive that it was imported from; its path in a
    storage, a bucket or on a web server; the name under which it was uploaded; its task's number.

    Args:
        data: the task's.
        address: of the image, as the task's data has it.
        task: its id.

    Returns:
        A name with slashes between folders; as it was, so perhaps with any character in it.
    """
    source = data.get(SOURCE)
    if isinstance(source, str) and _is_path_in_archive(name_of(source)):
        return encodable(name_of(source))
    if address[:5].lower() == "data:":
        return f"task-{task}"
    return encodable(_from_address(address)) or f"task-{task}"


def encodable(text: str) -> str:
    """The text without half characters ("\\ud800"), which JSON can carry and no encoding can."""
    return text.encode(errors="replace").decode()


def _is_path_in_archive(source: str) -> bool:
    """Whether a task comes from a file of an archive, and not from an address in one."""
    is_address = "://" in source or source.startswith(("/", "data:"))
    has_image = PurePosixPath(source).suffix.lower() in SUFFIXES
    return has_image and not is_address


def _from_address(address: str) -> str:
    if address.lower().startswith(CLOUD_SCHEMES):
        return address.partition("://")[2].partition("/")[2]
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    path = unquote(parts.path)
    if _LOCAL_FILES in path:
        named = parse_qs(parts.query).get("d", [])
        return named[0].lstrip("/") if len(named) == 1 else ""
    if _UPLOAD in path:
        # Label Studio puts the project's number and eight digits before it.
        name = path.rpartition("/")[2]
        return re.sub(r"^[0-9a-f]{8}-", "", name)
    return path.lstrip("/")


class FileNames:
    """Gives each image a file name of its own, which no file system refuses.

    The same images in the same order get the same names.

    Args:
        flat: without folders: what they are called becomes part of the name.
    """

    def __init__(self, *, flat: bool = False) -> None:
        self._flat = flat
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, name: str, task: int, suffix: str = "") -> str:
        """A relative path, with slashes, that no other image has, whatever the case of letters.

        Args:
            name: from `original_name`; it may be anything.
            task: its number is added where another image has the name already.
            suffix: added where the name does not end in that of an image, e.g. ``.jpg``.
        """
        parts = [_safe(part) for part in re.split(r"[/\\]", name)]
        parts = [part for part in parts if part][-_MOST_FOLDERS:] or [f"task-{task}"]
        if PurePosixPath(parts[-1]).suffix.lower() not in {*SUFFIXES, suffix}:
            parts[-1] += suffix
        if self._flat:
            parts = [_shortened("_".join(parts))]
        path = PurePosixPath(*parts)
        stem, number = path.stem, 0
        while not self._is_free(path):
            number += 1
            again = "" if number == 1 else f"-{number}"
            # A folder's name that a file has can be no folder.
            folder = PurePosixPath() if self._is_blocked(path) else path.parent
            path = folder / f"{stem}-{task}{again}{path.suffix}"
        self._files.add(_folded(path))
        self._folders |= {_folded(folder) for folder in path.parents}
        return str(path)

    def _is_blocked(self, path: PurePosixPath) -> bool:
        return any(_folded(folder) in self._files for folder in path.parents)

    def _is_free(self, path: PurePosixPath) -> bool:
        folded = _folded(path)
        is_taken = folded in self._files or folded in self._folders
        return not is_taken and not self._is_blocked(path)


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path).casefold())


def _safe(part: str) -> str:
    """One name of a path that every usual file system takes; empty for ``..`` and the like."""
    part = unicodedata.normalize("NFC", encodable(part))
    part = _FORBIDDEN.sub("_", part).strip().rstrip(". ")
    # Hidden files are left out by many readers.
    part = part.lstrip(".")
    if _RESERVED.fullmatch(part):
        part = f"_{part}"
    return _shortened(part)


def _shortened(part: str) -> str:
    """At most `_MOST_BYTES` bytes; what is cut away is told apart by a hash."""
    data = part.encode()
    if len(data) <= _MOST_BYTES:
        return part
    suffix = PurePosixPath(part).suffix
    ending = suffix if _SUFFIX.fullmatch(suffix) else ""
    mark = f"-{hashlib.sha256(data).hexdigest()[:8]}{ending}"
    return data[: _MOST_BYTES - len(mark)].decode(errors="ignore") + mark
