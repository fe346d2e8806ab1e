"""Puts tables into documents."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, start: str, end: str, text: str) -> None:
    """Replace the text between two markers of a document.

    Raises:
        ValueError: a marker is missing.
    """
    head, opened, rest = page.read_text().partition(start)
    _, closed, tail = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"{page} lacks {end if opened else start}")
    page.write_text(f"{head}{start}\n\n{text}\n\n{end}{tail}")
