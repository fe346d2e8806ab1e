"""JSON files as people read them: UTF-8, indented, with every character that a task may hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write JSON as a file.

    Half a character ("\\ud800"), which task data may hold and UTF-8 cannot, is written as JSON's
    escape for it.

    Args:
        path: the file.
        content: JSON-serialisable.

    Raises:
        OSError: the file cannot be written.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, indent=1)
    parts: Iterable[str] = encoder.iterencode(content)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(parts)
