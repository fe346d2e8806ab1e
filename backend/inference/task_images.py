"""The images of a task: of each control, one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.images.address import fetch_address
from backend.labels.config import LabelConfig
from backend.labels.controls import Control

LARGEST_ID = 2**63 - 1
"""The largest number of a task that a database and the store can hold."""


@dataclass(frozen=True)
class TaskInput:
    """One task as a model version reads it, worked out once.

    Attributes:
        number: the task's id, None if it has none that a database can hold.
        data: the task's data; empty if it is not an object.
        controls: of the labeling config, with this task's own labels where it brings them along.
        images: control name -> addresses of its images, ready to be fetched; empty if it has none.
    """

    number: int | None
    data: Mapping[str, Any]
    controls: tuple[Control, ...]
    images: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, task: Mapping[str, Any], config: LabelConfig) -> TaskInput:
        """Read a task as Label Studio sends it; only ``id`` and ``data`` are looked at."""
        data = task_data(task)
        controls = tuple(control.for_task(data) for control in config.controls)
        images = {control.name: images_of_task(control, task) for control in controls}
        return cls(task_id(task), data, controls, images)


def task_data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's data; empty if it is not an object."""
    data = task.get("data")
    return data if isinstance(data, Mapping) else {}


def images_of_task(control: Control, task: Mapping[str, Any]) -> tuple[str, ...]:
    """Addresses of a task's images for this control, ready to be fetched, each once."""
    values = control.image_values_of(task_data(task))
    # JSON can carry half a character ("\ud800"), which no address has and no encoding can write.
    whole = [value.encode(errors="replace").decode() for value in values]
    return tuple(dict.fromkeys(fetch_address(value, task_id(task)) for value in whole))


def image_of(control: Control, task: Mapping[str, Any]) -> str | None:
    """The first of these addresses; None if there is none."""
    return next(iter(images_of_task(control, task)), None)


def task_id(task: Mapping[str, Any]) -> int | None:
    """The task's number, if it has one that a database can hold."""
    number = task.get("id")
    # True is an int to Python, and no id to a database.
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return number if abs(number) <= LARGEST_ID else None
