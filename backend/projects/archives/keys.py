"""What recognises an image of an archive when the archive, or another one, is imported again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.images.address import compact_address

SOURCE = "clip_source"
"""The field of a task's data with the key of its image: an address, or a file's path with a mark of
its content."""
_DIGITS = 12
_MARK = re.compile(rf"#[0-9a-f]{{{_DIGITS}}}$")


def key_of_file(name: str, file: Path) -> str:
    """The key of a file that is uploaded: another image of the same name has another one.

    Args:
        name: its path in the archive.
        file: where it is.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.", "Correct it.") from error
    return f"{name}#{digest[:_DIGITS]}"


def key_of_content(name: str, content: bytes) -> str:
    """The key of a file with this content, as `key_of_file` gives it."""
    return f"{name}#{hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def key_of_pages(addresses: Sequence[str]) -> str:
    """The key of a task with a list of images; of one alone, its address."""
    if len(addresses) == 1:
        return compact_address(addresses[0])
    digest = hashlib.sha256("\n".join(addresses).encode()).hexdigest()
    return f"{compact_address(addresses[0])}#{digest[:_DIGITS]}"


def addresses_in(value: Any) -> list[str]:
    """The addresses in the field of a task's data that holds its image, or a list of them."""
    pages = value if isinstance(value, list) else [value]
    return [page.strip() for page in pages if isinstance(page, str) and page.strip()]


def name_of(key: str) -> str:
    """The path or the address in a key."""
    return _MARK.sub("", key)
