"""How an attribute of the labeling config reads a task's data: ``$image``, ``$pages[0].url``, ...

Label Studio 1.23.2 looks for ``$`` followed by ASCII letters, digits and ``_.[]{}``. An attribute
that is nothing but one such reference has the value that it names, of any type; in a longer text
each reference is replaced by its value (https://labelstud.io/tags/image, `value`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_REFERENCE = re.compile(r"\$[\w.\[\]{}]+", re.ASCII)
_STEP = re.compile(r"[^.\[\]]+")


def is_reference(text: str) -> bool:
    """Whether a text is one reference and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def has_reference(text: str) -> bool:
    """Whether a text has a reference in it."""
    return _REFERENCE.search(text) is not None


def fields_of(text: str) -> frozenset[str]:
    """Keys of a task's data that the references of a text begin with.

    ``$a.b`` may mean the key ``a.b`` or ``b`` within ``a``: both are named.
    """
    paths = [reference[1:] for reference in _REFERENCE.findall(text)]
    return frozenset(paths) | {step.group() for path in paths if (step := _STEP.search(path))}


def field_value(data: Mapping[str, Any], path: str) -> Any:
    """The value at a path in a task's data; None if there is none.

    Args:
        data: the task's.
        path: a key, or several, with dots or brackets between: ``a``, ``a.b``, ``a[0].b``.
    """
    if path in data:
        return data[path]
    value: Any = data
    for step in _STEP.findall(path):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def value_of(text: str, data: Mapping[str, Any]) -> Any:
    """What an attribute comes to for a task; None if the data lacks a field that it refers to."""
    if is_reference(text):
        return field_value(data, text[1:])
    values = [field_value(data, reference[1:]) for reference in _REFERENCE.findall(text)]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    filled = iter(values)
    return _REFERENCE.sub(lambda _: str(next(filled)), text)


def texts_of(text: str, data: Mapping[str, Any]) -> Sequence[str]:
    """The texts that an attribute comes to: one, or those of a list that it refers to."""
    value = value_of(text, data)
    values = value if isinstance(value, list) else [value]
    return [entry for entry in values if isinstance(entry, str) and entry.strip()]
