"""The files below a folder, by their paths there and by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize


class FilesBelow:
    """Finds files below a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> Path | None:
        """The file of this name, which may begin with folders; None if there is none."""
        # A file name from another system may have its accents composed or apart.
        for form in dict.fromkeys((name, *(normalize(kind, name) for kind in ("NFC", "NFD")))):
            if _is_file(self.folder / form):
                return self.folder / form
        return None

    def only(self, parts: Sequence[str]) -> str:
        """The path of the only file that is called like the last of these, in whatever folder.

        Returns:
            Relative to the folder; empty if no file or several are called so.
        """
        paths = self._by_name.get(normalize("NFC", parts[-1]), []) if parts else []
        return paths[0] if len(paths) == 1 else ""

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        # Links to folders are not followed: they may lead anywhere.
        for place, _, files in os.walk(self.folder):
            for file in files:
                path = (Path(place) / file).relative_to(self.folder).as_posix()
                names.setdefault(normalize("NFC", file), []).append(normalize("NFC", path))
        return names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Too long, for one.
        return False
