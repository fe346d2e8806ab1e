"""JSON files: UTF-8, a line for each item of a list, with every character that a task may hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_list(path: Path, items: Iterable[Any]) -> None:
    """Write a JSON list as a file.

    Args:
        path: the file.
        items: JSON-serialisable.

    Raises:
        OSError: the file cannot be written.
    """
    _write(path, _lines(items))


def write_lists(path: Path, about: Mapping[str, Any], lists: Mapping[str, Sequence[Any]]) -> None:
    """Write a JSON object that holds lists as a file.

    Args:
        path: the file.
        about: names and values that come first.
        lists: names and lists.

    Raises:
        OSError: the file cannot be written.
    """

    def parts() -> Iterator[str]:
        start = "{"
        for name, value in about.items():
            yield f"{start}{_text(name)}: {_text(value)}"
            start = ",\n"
        for name, items in lists.items():
            yield f"{start}{_text(name)}: "
            yield from _lines(items)
            start = ",\n"
        yield "}\n"

    _write(path, parts())


def _lines(items: Iterable[Any]) -> Iterator[str]:
    start = "[\n"
    for item in items:
        yield f"{start}{_text(item)}"
        start = ",\n"
    yield "[]" if start == "[\n" else "\n]"


def _text(value: Any) -> str:
    # Indented, it would take six times as long.
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, parts: Iterable[str]) -> None:
    # Half a character ("\ud800") is written as JSON's escape for it.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(parts)
