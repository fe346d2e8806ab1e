"""Label Studio's local files and uploads, read from a disk that this process shares with it.

Label Studio decides who may see a file by the folder that it lies in: a local file's folder must be
below a storage of a project that the user sees, and an upload's folder is that of its project. So
one file of each folder is fetched through Label Studio. If it serves that file, and the same bytes
lie on the disk, the others of the folder are read from the disk for some minutes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from backend.errors import ClipError, ImageError
from backend.images.direct import (
    DirectReadError,
    Outcome,
    Place,
    Source,
    Tally,
    plain_parts,
)
from backend.images.disk import read_below
from backend.images.guard import remaining, time_limit
from backend.images.location import Locator
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.messages.message import Message
from backend.settings import Settings

SERVED_SECONDS = 600.0
"""For so long a folder counts as one that Label Studio serves."""
DIFFERS_SECONDS = 60.0
"""For so long a folder is left alone whose files are not those that Label Studio serves."""
MOST_FOLDERS = 10_000
"""Folders that are remembered; Label Studio is asked again for those that are forgotten."""
_PATHS = {Place.LOCAL_FILES: "/data/local-files/", Place.UPLOADS: "/data/upload/"}
VARIABLES = {Place.LOCAL_FILES: "LS_CLIP_LOCAL_FILES_ROOT", Place.UPLOADS: "LS_CLIP_UPLOADS_ROOT"}
"""The settings that name the roots."""


@dataclass(frozen=True)
class _File:
    """Where a file should lie: the names from the root of its place to it."""

    place: Place
    parts: tuple[str, ...]

    @property
    def folder(self) -> tuple[str, ...]:
        return (self.place, *self.parts[:-1])


@dataclass
class _Folder:
    """What is known of a folder. The times are those of time.monotonic().

    Attributes:
        asking: held while Label Studio is asked.
        served_until: files may be read until then.
        differs_until: no file is read until then, and Label Studio is not asked on purpose.
        unsure: Label Studio did not serve the file that was tried last.
    """

    asking: threading.Lock = field(default_factory=threading.Lock)
    served_until: float = 0.0
    differs_until: float = 0.0
    unsure: bool = False

    @property
    def is_served(self) -> bool:
        return time.monotonic() < self.served_until

    @property
    def is_decided(self) -> bool:
        return self.is_served or time.monotonic() < self.differs_until


class LocalFiles:
    """See the module. Thread-safe.

    Args:
        settings: label_studio_url, local_files_root, uploads_root, fetch_timeout and
            max_image_bytes are read.
        source: fetches from Label Studio, and all other addresses.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._locator = Locator(settings.label_studio_url, settings.label_studio_public_url)
        self._roots = local_roots(settings)
        self._folders: dict[tuple[str, ...], _Folder] = {}
        self._lock = threading.Lock()
        self._tally = Tally()

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at this address; None if it is the one with these validators.

        Raises:
            ImageError: as for `ImageFetcher.fetch_file`, which all else goes through.
            ClipError: the same.
        """
        file = self._file(value)
        if file is None:
            return self._source.fetch_file(value, known)
        with time_limit(self._settings.fetch_timeout):
            folder = self._folder(file)
            if self._must_ask(folder):
                try:
                    # Another thread may have learned it meanwhile.
                    if not folder.is_decided:
                        return self._ask(file, folder, value)
                finally:
                    folder.asking.release()
            if not folder.is_served:
                differs = Outcome.DIFFERS if folder.is_decided else Outcome.ASKED
                self._tally.count(file.place, differs)
                return self._source.fetch_file(value, known)
            try:
                found = self._read(file, known)
            except DirectReadError as error:
                self._tally.failed(file.place, self._where(file.place), error)
                return self._source.fetch_file(value, known)
            self._tally.count(file.place, Outcome.READ)
            return found

    def place_of(self, value: str) -> Place | None:
        """Where the file at this address lies; None if it is none that may be read directly."""
        file = self._file(value)
        return None if file is None else file.place

    def read(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at an address that has a place; None if it is the one with these validators.

        Raises:
            DirectReadError: it cannot be read there.
        """
        file = self._file(value)
        assert file is not None
        return self._read(file, known)

    def _read(self, file: _File, known: Validators) -> FetchedFile | None:
        limit = self._settings.max_image_bytes
        return read_below(self._roots[file.place], file.parts, known, limit)

    def _file(self, value: str) -> _File | None:
        """The file that Label Studio would serve at this address, if it is named plainly."""
        if not self._roots or value[:5].lower() == "data:":
            return None
        try:
            url = self._locator.locate(value.strip())
        except ImageError:
            # Refused with its reason by whoever fetches it.
            return None
        path = self._locator.path_at_studio(url)
        for place in self._roots:
            start = _PATHS[place]
            if path is None or not path.startswith(start):
                continue
            name = unquote(path.removeprefix(start))
            if place is Place.LOCAL_FILES:
                if name:
                    return None
                given = [v for key, v in parse_qsl(url.query or "", True) if key == "d"]
                # Of several, Label Studio would use another one than we.
                name = given[0] if len(given) == 1 else ""
            parts = plain_parts(name)
            # Label Studio serves none from the root itself, and names uploads PROJECT/NAME.
            if parts is None or len(parts) < 2 or (place is Place.UPLOADS and len(parts) > 2):
                return None
            return _File(place, parts)
        return None

    def _folder(self, file: _File) -> _Folder:
        with self._lock:
            if len(self._folders) >= MOST_FOLDERS and file.folder not in self._folders:
                self._folders.clear()
            return self._folders.setdefault(file.folder, _Folder())

    def _must_ask(self, folder: _Folder) -> bool:
        """Whether this thread is to ask about the folder; it holds ``folder.asking`` then.

        Others wait meanwhile, because the answer may spare them their own request, but not where
        the last one spared nobody anything.
        """
        if folder.is_decided:
            return False
        return folder.asking.acquire(timeout=0 if folder.unsure else remaining())

    def _ask(self, file: _File, folder: _Folder, value: str) -> FetchedFile | None:
        """Fetch a file through Label Studio, and learn whether its folder may be read."""
        try:
            fetched = self._source.fetch_file(value, UNKNOWN)
        except ClipError:
            folder.unsure = True
            self._tally.count(file.place, Outcome.ASKED)
            raise
        assert fetched is not None
        folder.unsure = False
        try:
            there = self._read(file, UNKNOWN)
            if there is None or there.data != fetched.data:
                raise DirectReadError(Outcome.DIFFERS, Message("Label Studio serves other bytes"))
        except DirectReadError as error:
            folder.differs_until = time.monotonic() + DIFFERS_SECONDS
            self._tally.failed(file.place, self._where(file.place), error)
        else:
            folder.served_until = time.monotonic() + SERVED_SECONDS
            self._tally.count(file.place, Outcome.ASKED)
        return fetched

    def _where(self, place: Place) -> str:
        return f"{VARIABLES[place]}={self._roots[place]}"


def local_roots(settings: Settings) -> dict[Place, Path]:
    """The folders that may be read, by what of Label Studio lies in them."""
    given = {
        Place.LOCAL_FILES: settings.local_files_root,
        Place.UPLOADS: settings.uploads_root,
    }
    return {place: Path(folder).expanduser() for place, folder in given.items() if folder}
