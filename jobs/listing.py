"""A project's tasks as a run needs them: id, the data that the config uses, and the images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

from backend.inference.task_images import image_of
from backend.labels.config import LabelConfig
from backend.labelstudio.client import LabelStudioClient

AHEAD = 16
"""Shards that may be listed before the first of them is looked at."""
Task = dict[str, Any]
"""``id``, ``data``, and ``images``: the addresses of its images as they stand in the data."""


def wanted(
    studio: LabelStudioClient,
    project: int,
    only: str,
    config: LabelConfig,
    there: Collection[int],
    *,
    known_field: str = "",
    after: int = 0,
) -> Iterator[Task]:
    """The tasks that a run is about.

    Args:
        studio: the Label Studio.
        project: its number.
        only: ``unlabelled`` leaves out tasks with an annotation; ``missing`` those of them that
            have a prediction, of whatever version: that is what their annotator saw.
        config: decides which fields of a task's data are kept.
        there: tasks that are left out.
        known_field: the field with labels known beforehand, which is kept too.
        after: only tasks with a higher id.
    """
    fields = {control.image_field for control in config.controls}
    fields |= {control.options_field for control in config.controls if control.options_field}
    if known_field:
        fields.add(known_field)
    kept = fields | {field.split(".")[0] for field in fields}
    for task in studio.tasks.iterate(project, after=after):
        number = int(task["id"])
        if number in there:
            continue
        seen_by_someone = only == "missing" and task["total_predictions"]
        if task["total_annotations"] and (only == "unlabelled" or seen_by_someone):
            continue
        images = (image_of(control, task) for control in config.controls)
        yield {
            "id": number,
            "data": {name: value for name, value in task["data"].items() if name in kept},
            "images": sorted({value for value in images if value is not None}),
        }


def ahead(parts: Iterable[list[Task]]) -> Iterator[list[Task]]:
    """The same parts, listed by a thread while the caller works on those before.

    Raises:
        Exception: whatever the listing raises.
    """
    ready: Queue[list[Task] | Exception | None] = Queue(AHEAD)
    done = Event()

    def give(part: list[Task] | Exception | None) -> None:
        while not done.is_set():
            with suppress(Full):
                ready.put(part, timeout=1)
                return

    def produce() -> None:
        try:
            for part in parts:
                give(part)
                if done.is_set():
                    return
            give(None)
        except Exception as error:
            give(error)

    Thread(target=produce, name="listing", daemon=True).start()
    try:
        while (part := ready.get()) is not None:
            if isinstance(part, Exception):
                raise part
            yield part
    finally:
        done.set()


def by_image(tasks: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Image address -> the tasks that have it."""
    found: dict[str, list[int]] = {}
    for task in tasks:
        for value in task["images"]:
            found.setdefault(value, []).append(int(task["id"]))
    return found
