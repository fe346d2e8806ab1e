"""A project's tasks as a run needs them: id, the data that the config uses, and the images."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

from backend.inference.embedder import Embedder
from backend.inference.task_images import images_of_task, task_data
from backend.labels.config import LabelConfig
from backend.labelstudio.client import LabelStudioClient
from backend.storage.prediction_log import PredictionLog
from jobs.run import Scope

AHEAD = 16
"""Shards that may be listed before the first of them is processed."""
Task = dict[str, Any]
"""``id``, ``data``, ``images`` (the addresses of its images as they stand in the data),
``annotated`` (whether it has an annotation), and ``only_scored`` (whether it gets no prediction:
its scores are kept if its images are stored)."""


def tasks_in_scope(
    studio: LabelStudioClient,
    project: int,
    scope: Scope,
    config: LabelConfig,
    left_out: Collection[int],
    *,
    to_score: Collection[int],
    known_field: str = "",
    after: int = 0,
) -> Iterator[Task]:
    """The tasks that a run is about, and those beside them that are to be scored.

    Args:
        studio: the Label Studio.
        project: its number.
        scope: `Scope.UNLABELLED` leaves out tasks with an annotation; `Scope.MISSING` those of
            them that have a prediction of any version, because that is what their annotator saw.
        config: decides which fields of a task's data are kept.
        left_out: ids of tasks that need no prediction.
        to_score: ids of tasks whose scores are to be kept, see `jobs.score_keeping`.
        known_field: the field with labels known beforehand, which is kept too.
        after: only tasks with a higher id.
    """
    kept = {field for control in config.controls for field in control.data_fields}
    if known_field:
        kept |= {known_field, known_field.split(".", maxsplit=1)[0]}
    for task in studio.tasks.iterate(project, after=after):
        number = int(task["id"])
        keeps_prediction = scope == Scope.MISSING and task["total_predictions"]
        only_scored = number in left_out or bool(
            task["total_annotations"] and (scope == Scope.UNLABELLED or keeps_prediction)
        )
        if only_scored and number not in to_score:
            continue
        images = {value for control in config.controls for value in images_of_task(control, task)}
        yield {
            "id": number,
            "data": {name: value for name, value in task_data(task).items() if name in kept},
            "images": sorted(images),
            "annotated": bool(task["total_annotations"]),
            "only_scored": only_scored,
        }


def prefetched(parts: Iterable[list[Task]]) -> Generator[list[Task]]:
    """The same parts, listed by a thread while the caller processes earlier ones.

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


def to_predict(tasks: Sequence[Task]) -> list[Task]:
    """Those that are to have a prediction."""
    # A run that an older release began knows no others.
    return [task for task in tasks if not task.get("only_scored")]


def tasks_by_image(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """Image address -> ids of the tasks that have it."""
    tasks_of: dict[str, list[int]] = {}
    for task in tasks:
        for value in task["images"]:
            tasks_of.setdefault(value, []).append(int(task["id"]))
    return tasks_of


def link_images(
    log: PredictionLog, project: str, embedder: Embedder, tasks: Sequence[Task]
) -> None:
    """Record whose these tasks' images are, as soon as the tasks are listed.

    Later a task may have been deleted, and its record purged: nobody would erase it again.

    Raises:
        StoreError: the store cannot be read or written.
    """
    log.link_images(project, image_links(embedder, tasks))


def still_there(log: PredictionLog, project: str, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that were not purged since they were listed.

    Raises:
        StoreError: the store cannot be read.
    """
    linked = log.tasks(project, [int(task["id"]) for task in tasks])
    return [task for task in tasks if task["id"] in linked or not task["images"]]


def image_links(embedder: Embedder, tasks: Sequence[Task]) -> list[tuple[int, str]]:
    """Task id and the image's address in the store, of all images of these tasks."""
    return [
        (int(task["id"]), embedder.address(value)) for task in tasks for value in task["images"]
    ]
