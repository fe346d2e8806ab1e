"""Labels as other programs write them into one cell, field or result."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from backend.labels.controls import Control, ControlKind
from backend.labels.label import label_key
from backend.labels.label_files import label_name
from backend.projects.archives.request import ArchiveRequest

MAX_LITERAL = 100_000
"""Characters of a cell that is read as a list."""
_STRING = r"""(?:[bBuU]?'(?:[^'\\]|\\.)*'|[bBuU]?"(?:[^"\\]|\\.)*")"""
_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\((\[.*\])(?:,\s*dtype=[^()\[\]]*)?\)", re.DOTALL)
"""A NumPy array as it is shown, such as ``array(['cat', 'dog'], dtype=object)``."""
_NUMPY_STRING = re.compile(rf"(?:np|numpy)\.str_\(({_STRING})\)|({_STRING})", re.DOTALL)
_BESIDE = re.compile(rf"({_STRING})\s*(?=[bBuU]?['\"])|{_STRING}", re.DOTALL)
"""A string, and if it has another one beside it, the space between them: NumPy prints no commas."""


def labels_of(value: Any, request: ArchiveRequest, control: Control | None = None) -> list[str]:
    """The labels that a cell or a field names.

    Args:
        value: a text, a number, a list, ``{"choices": [...]}`` or ``{"taxonomy": [[...]]}``, or one
            of these written as JSON or as Python does.
        request: says what separates labels.
        control: of the labeling config, whose labels these are; None: any.

    Returns:
        Names in order; keys where they are stored as Label Studio does.
    """
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, Mapping):
        return stored_labels(value, control)
    if isinstance(value, list | tuple):
        return [name for entry in value for name in _labels_of_entry(entry, control)]
    text = label_name(str(value))
    if not text or request.names.has(text):
        return [text] if text else []
    if len(text) <= MAX_LITERAL:
        literal = _literal(text)
        if literal is not None:
            return labels_of(literal, request, control)
    return [name for part in _split(text, request.separators) if (name := label_name(part))]


def stored_labels(value: Mapping[str, Any], control: Control | None) -> list[str]:
    """The labels that the ``value`` of a result item selects, as keys.

    Args:
        value: as Label Studio stores it.
        control: of the labeling config; None: the config has none of this name.
    """
    keys: list[str] = []
    for kind in ControlKind:
        stored = value.get(kind)
        if isinstance(stored, list):
            keys += control.keys_of(stored) if control else [label_key(entry) for entry in stored]
    return [name for key in keys if (name := label_name(key))]


def _labels_of_entry(entry: Any, control: Control | None) -> list[str]:
    if isinstance(entry, Mapping):
        return stored_labels(entry, control)
    if isinstance(entry, list | tuple):
        return stored_labels({ControlKind.TAXONOMY: [entry]}, control)
    name = label_name(str(entry)) if isinstance(entry, str | int) else ""
    return [name] if name else []


def _literal(text: str) -> list[Any] | dict[str, Any] | None:
    """What a cell holds if it is JSON, or a list as Python or NumPy print it; None if neither."""
    shown = _ARRAY.fullmatch(text)
    text = shown[1] if shown else text
    if text[0] not in "[{":
        return None
    found: Any = None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(_with_commas(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return found if isinstance(found, list | dict) else None


def _with_commas(text: str) -> str:
    """The text with a comma after each string that has another one beside it.

    Python takes two such strings for one, and would make a label of two.
    """
    text = _NUMPY_STRING.sub(lambda found: found[1] or found[2], text)
    return _BESIDE.sub(lambda found: f"{found[1]}, " if found[1] else found[0], text)


def _split(text: str, separators: str) -> list[str]:
    if not separators:
        return [text]
    # Labels may have spaces, so that these separate only where nothing else is named.
    characters = "".join(separators.split())
    return re.split(f"[{re.escape(characters)}]", text) if characters else text.split()
