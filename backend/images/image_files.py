"""Image files on this machine, named by path, folder or pattern; nothing of them is read."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from backend.errors import ImageError, ImageReason
from backend.text_files import user_path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Of images that a browser or Label Studio can show."""
_FOUND = SUFFIXES | {".jfif", ".avif", ".heic", ".heif"}
"""Of files that a folder or a pattern stands for; a file that is named may have any suffix."""


def find_images(sources: Sequence[str]) -> dict[str, ImageError | None]:
    """The image files that a command line names, each once.

    Args:
        sources: paths of files; folders, for the images in them and in the folders below; patterns
            with ``*``, ``?``, ``[...]`` and, for any number of folders, ``**``. Hidden files and
            folders are left out, unless they are named.

    Returns:
        Path -> None, or why there is no such file. In the order of the sources, sorted within a
        folder and a pattern.
    """
    found: dict[str, ImageError | None] = {}
    for source in sources:
        path = user_path(source)
        try:
            if path.is_file():
                found[str(path)] = None
                continue
            is_folder = path.is_dir()
        except (OSError, ValueError):  # Longer than any path may be.
            is_folder = False
        if is_folder:
            visible = (file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)))
            images = _images(visible)
            problem = "is a folder without images"
        elif glob.has_magic(source):
            # That of a Path takes no absolute pattern, and finds hidden files.
            names = glob.iglob(str(path), recursive=True)  # noqa: PTH207
            images = _images(map(Path, names))
            problem = "matches no image"
        else:
            images, problem = [], "is not a file"
        found.update(dict.fromkeys(images))
        if not images:
            found[source] = ImageError(ImageReason.NOT_FOUND, f"{source} {problem}.", _fix(source))
    return found


def _images(paths: Iterable[Path]) -> list[str]:
    return sorted(str(path) for path in paths if path.suffix.lower() in _FOUND and path.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _fix(source: str) -> str:
    if glob.has_magic(source):
        return 'Check the pattern; "**" stands for any number of folders: "photos/**/*.jpg".'
    if user_path(source).is_dir():
        return f"Name its images themselves, if their names end otherwise: {source.rstrip('/')}/*"
    return "Check the path."
