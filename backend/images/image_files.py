"""Image files on this machine, named by path, folder or pattern; nothing of them is read."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backend.errors import ImageError, ImageReason
from backend.messages.message import Message
from backend.text_files import user_path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Of images that a browser or Label Studio can show."""
_FOUND = SUFFIXES | {".jfif", ".avif", ".heic", ".heif"}
"""Of files that a folder or a pattern stands for; a file that is named may have any suffix."""
_IN_PATTERNS = re.compile(r"\[(!?)(\]?[^\]]*)\]|([^\W\d_])")
"""A set of characters, or a letter outside of one."""


@dataclass
class FoundImages:
    """What a command line names.

    Attributes:
        files: path -> None, or why there is no such file. In the order of the sources, sorted
            within a folder and a pattern.
        names: the same paths -> what a person calls them: as it was given, or relative to the
            folder or to the part of the pattern that is no pattern. Files of one name have as many
            folders more in front as it takes to tell them apart.
        left_out: names of other files in the folders, and of those that fit the patterns.
    """

    files: dict[str, ImageError | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def find_images(sources: Sequence[str]) -> FoundImages:
    """The image files that a command line names, each once.

    Args:
        sources: paths of files; folders, for the images in them and in the folders below; patterns
            with ``*``, ``?``, ``[...]`` and, for any number of folders, ``**``, in which upper and
            lower case are alike. Hidden files and folders are left out, unless they are named.
    """
    found = FoundImages()
    others: dict[Path, str] = {}
    for source in sources:
        path = user_path(source)
        try:
            if path.is_file():
                found.files[str(path)] = None
                found.names.setdefault(str(path), source)
                continue
            is_folder = path.is_dir()
        except (OSError, ValueError):  # Longer than any path may be.
            is_folder = False
        if is_folder:
            base = path
            paths = [file for file in path.rglob("*") if not _is_hidden(file.relative_to(path))]
            problem = Message("{source} is a folder without images.", source=source)
        elif glob.has_magic(source):
            base, pattern = _in_any_case(path)
            # That of a Path takes no absolute pattern, and finds hidden files.
            paths = [Path(name) for name in glob.iglob(pattern, recursive=True)]  # noqa: PTH207
            problem = Message("{source} matches no image.", source=source)
        else:
            base, paths = path, []
            problem = Message("{source} is not a file.", source=source)
        images = 0
        for file in sorted(file for file in paths if file.is_file()):
            name = str(file.relative_to(base))
            if file.suffix.lower() in _FOUND:
                images += 1
                found.files[str(file)] = None
                found.names.setdefault(str(file), name)
            else:
                others[file] = name
        if not images:
            found.files[source] = ImageError(ImageReason.NOT_FOUND, problem, _fix(source))
            found.names[source] = source
    found.names = _told_apart(found.names)
    found.left_out = [name for file, name in others.items() if str(file) not in found.files]
    return found


def _in_any_case(path: Path) -> tuple[Path, str]:
    """A pattern's folder without a pattern, and the pattern for names in upper and lower case."""
    parts = path.parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:first])
    return base, str(
        base.joinpath(*(_IN_PATTERNS.sub(_both_cases, part) for part in parts[first:]))
    )


def _both_cases(match: re.Match[str]) -> str:
    negation, characters, letter = match.groups()
    if letter:
        cases = {letter, *(case for case in (letter.lower(), letter.upper()) if len(case) == 1)}
        return f"[{''.join(sorted(cases))}]" if len(cases) > 1 else letter
    # A bracket that closes is one of the characters at the first place only.
    more = characters.lstrip("]")
    return f"[{negation}{characters}{more.lower()}{more.upper()}]"


def _told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """The names, of which those that several files have get more of the path."""
    told = dict(names)
    while True:
        counts = Counter(told.values())
        longer = {
            path: str(Path(*Path(path).parts[-len(Path(name).parts) - 1 :]))
            for path, name in told.items()
            if counts[name] > 1 and len(Path(name).parts) < len(Path(path).parts)
        }
        if not longer:
            return told
        told |= longer


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _fix(source: str) -> Message:
    if glob.has_magic(source):
        return Message(
            'Check the pattern; "**" stands for any number of folders: "photos/**/*.jpg".'
        )
    if user_path(source).is_dir():
        return Message(
            "Name its images themselves, if their names end otherwise: {folder}/*",
            folder=source.rstrip("/"),
        )
    return Message("Check the path.")
