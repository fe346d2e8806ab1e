"""Where an archive's images are: at an address that Label Studio serves, or in a file to upload."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize
from urllib.parse import quote, urlsplit

from backend.errors import SettingsError
from backend.images.address import CLOUD_SCHEMES
from backend.projects.archives.files_below import FilesBelow
from backend.projects.archives.keys import key_of_pages
from backend.projects.archives.request import ArchiveRequest
from backend.projects.archives.rows import Reason, Row, is_unicode
from backend.text_files import user_path

UPLOADED = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
"""Suffixes of the image files that Label Studio takes and browsers show."""
OTHER_FORMATS = frozenset(
    {".avif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jxl", ".psd", ".svg", ".tif", ".tiff"}
    | {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"}
)
_SERVED = re.compile(
    r"/(data/upload/|data/local-files/?\?|storage-data/|static/"
    r"|(tasks|projects)/\d+/(resolve|presign)/)"
)
_SHOWN = 200
"""Characters of what is no text that are passed on to a message."""
_DISK = re.compile(r"[/\\]|[A-Za-z]:|[A-Za-z][\w+.-]+:")
"""How what is no name below a folder begins: with a root, a drive or a scheme."""
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:|file:", re.IGNORECASE)
"""How a path on a disk begins: with a root, a drive or ``file:``."""


class Places:
    """Finds the images of one archive.

    Args:
        request: names the folder or the address that file names are relative to.
        folders: where file names may be looked for if the request names none; the first in which
            one is found is taken.
    """

    def __init__(self, request: ArchiveRequest, *folders: Path) -> None:
        self._studio_path = request.studio_path.rstrip("/")
        self._base = ""
        self._folders = [FilesBelow(folder) for folder in folders]
        self._is_given = False
        if urlsplit(request.images).scheme in {"http", "https"} or self.is_served(request.images):
            self._base = request.images.rstrip("/") + "/"
        elif request.images:
            folder = user_path(request.images)
            if not folder.is_dir():
                raise SettingsError(
                    f"--images: there is no folder {folder}.",
                    "Give the folder with the image files, or the address that they are below.",
                )
            self._folders = [FilesBelow(folder)]
            self._is_given = True

    def is_served(self, address: str) -> bool:
        """Whether Label Studio can show what is at this address."""
        if address[:5].lower() == "data:":
            return "," in address
        if address.lower().startswith(("http://", "https://", *CLOUD_SCHEMES)):
            return bool(address.partition("://")[2].strip("/"))
        return _SERVED.match(address.removeprefix(self._studio_path)) is not None

    def row(self, value: str, where: str, labels: tuple[str, ...]) -> Row:
        """The row of an image.

        Args:
            value: its address, or its name in a folder.
            where: the row is.
            labels: that are known to be on the image.
        """
        value = value.strip()
        if not value:
            return Row(where, reason=Reason.NO_IMAGE)
        if not is_unicode(value):
            return Row(f"{where}: {value[:_SHOWN]}", reason=Reason.NOT_TEXT)
        if self.is_served(value):
            return Row(where, labels, image=value)
        name = "" if _DISK.match(value) else _plain_name(value)
        if name and self._base:
            return Row(where, labels, image=self._base + quote(name, safe="/"))
        if not name and self._is_given and _ABSOLUTE.match(value):
            # Its file is looked for when all paths are known.
            return Row(f"{where}: {value}", labels, path=value, reason=Reason.NOT_SERVED)
        if not name or not self._folders:
            return Row(f"{where}: {value}", reason=Reason.NOT_SERVED)
        for files in self._folders:
            path = files.find(name)
            if path is not None:
                return file_row(files.folder, path, labels, f"{where}: {value}")
        elsewhere = self._folders[0].only(name.split("/")) if self._is_given else ""
        return Row(f"{where}: {value}", reason=Reason.MISSING_FILE, elsewhere=elsewhere)

    def row_of_pages(
        self, pages: Sequence[Any], where: str, labels: tuple[str, ...]
    ) -> tuple[Row, list[Any]]:
        """The row of a task with several images, and the list of them for its data.

        Args:
            pages: addresses or names; what is no text stays in the list as it is.
            where: the row is.
            labels: that are known to be on the task.

        Returns:
            The row, which is left out if one of its pages is; one page alone may be a file.
        """
        named = {place: page for place, page in enumerate(pages) if _is_named(page)}
        rows = {place: self.row(page, where, labels) for place, page in named.items()}
        if not rows:
            return Row(where, reason=Reason.NO_IMAGE), list(pages)
        found = [*rows.values()]
        reasons = [row for row in found if row.reason is not None]
        if reasons and len(pages) > 1 and all(row.path for row in reasons):
            return Row(where, reason=Reason.PAGES), list(pages)
        if reasons:
            return reasons[0], list(pages)
        if len(pages) > 1 and any(row.file for row in found):
            return Row(where, reason=Reason.PAGES), list(pages)
        filled = [rows[place].image if place in rows else page for place, page in enumerate(pages)]
        if found[0].file:
            return found[0], filled
        return replace(found[0], source=key_of_pages([row.image for row in found])), filled


def file_row(folder: Path, path: Path, labels: tuple[str, ...], where: str = "") -> Row:
    """The row of a file that is to be uploaded.

    Args:
        folder: the archive's.
        path: of the file.
        labels: that are known to be on the image.
        where: the row is; empty: at the file's path.
    """
    name = normalize("NFC", path.relative_to(folder).as_posix())
    reason = reason_against(folder, path) if is_unicode(name) else Reason.NOT_TEXT
    return Row(where or name, labels, file=path, source=name, reason=reason)


def reason_against(folder: Path, path: Path) -> Reason | None:
    """Why a file cannot be uploaded; None if it can."""
    if not path.resolve().is_relative_to(folder.resolve()):
        return Reason.OUTSIDE
    if path.suffix.lower() not in UPLOADED:
        is_image = path.suffix.lower() in OTHER_FORMATS
        return Reason.OTHER_FORMAT if is_image else Reason.NOT_AN_IMAGE
    try:
        readable = os.access(path, os.R_OK) and path.stat().st_size > 0
    except OSError:
        readable = False
    return None if readable else Reason.UNREADABLE_FILE


def _is_named(page: Any) -> bool:
    return isinstance(page, str) and bool(page.strip())


def _plain_name(value: str) -> str:
    """A file name with slashes, and without a leading dot."""
    return str(PurePosixPath(value.replace("\\", "/")))
