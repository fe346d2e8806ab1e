"""Which images a task has, for which control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.images.address import fetch_address
from backend.labels.controls import Control, field_value


def task_data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's data; empty if it is not an object."""
    data = task.get("data")
    return data if isinstance(data, Mapping) else {}


def image_of(control: Control, task: Mapping[str, Any]) -> str | None:
    """The address of a task's image for this control, ready to be fetched; None: there is none."""
    value = field_value(task_data(task), control.image_field)
    if not isinstance(value, str) or not value.strip():
        return None
    # JSON can carry half a character ("\ud800"), which no address has and no encoding can write.
    whole = value.encode(errors="replace").decode()
    return fetch_address(whole, task_id(task))


def task_id(task: Mapping[str, Any]) -> int | None:
    """The task's number, if it has one that a database can hold."""
    number = task.get("id")
    return number if isinstance(number, int) and abs(number) < 2**63 else None
