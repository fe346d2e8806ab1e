"""Checks of images that are to be read where they lie, instead of through Label Studio."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity, named_tasks
from backend.errors import ImageError, counted
from backend.images.direct import DirectReadError, DirectSource, Outcome, Place
from backend.images.guard import time_limit
from backend.images.local_files import VARIABLES, local_roots
from backend.images.validators import UNKNOWN
from backend.inference.task_images import images_of_task
from backend.messages.message import Message

_SLOW = Message("All these images are fetched through Label Studio, which takes longer.")


def roots(context: Context) -> Iterator[Finding]:
    """The folders that images are to be read from can be read."""
    for place, root in local_roots(context.settings).items():
        problem = _problem(root)
        if problem:
            yield Finding(
                "direct-roots",
                Severity.WARNING,
                Message(
                    "{variable}={root}: {problem}.",
                    variable=VARIABLES[place],
                    root=root,
                    problem=problem,
                ),
                _SLOW,
                Message(
                    "Mount the folder of Label Studio there, readable for the user of this "
                    "process, or unset {variable}.",
                    variable=VARIABLES[place],
                ),
            )


def _problem(root: Path) -> str | None:
    try:
        with os.scandir(root) as entries:
            # As a folder is on which nothing is mounted.
            return None if next(entries, None) else Message("it is empty")
    except OSError as error:
        return os.strerror(error.errno or 0)


def images(context: Context) -> Iterator[Finding]:
    """The images of a few tasks lie where they are to be read, and are those of Label Studio."""
    settings = context.settings
    if not local_roots(settings) and not settings.read_bucket_list:
        return
    values: defaultdict[str, set[int]] = defaultdict(set)
    for task in context.sample:
        for control in context.config.controls:
            for value in images_of_task(control, task):
                values[value].add(int(task["id"]))
    tried: Counter[Place] = Counter()
    problems: defaultdict[tuple[Place, Outcome], list[tuple[str, set[int]]]] = defaultdict(list)
    for value, tasks in sorted(values.items()):
        for source in context.direct_sources:
            place = source.place_of(value)
            if place is None:
                continue
            tried[place] += 1
            try:
                _compare(context, source, value)
            except DirectReadError as error:
                problems[place, error.outcome].append((error.reason, tasks))
            except ImageError:
                # Label Studio does not serve it either, which is for the check of images to say.
                continue
    if values and not tried.total():
        yield Finding(
            "direct-images",
            Severity.NOTE,
            Message(
                "None of {images} tried lies where images may be read directly.",
                images=counted(len(values), "image"),
            ),
            _SLOW,
            Message(
                "Compare the addresses in the tasks' data with LS_CLIP_LOCAL_FILES_ROOT, "
                "LS_CLIP_UPLOADS_ROOT and LS_CLIP_READ_BUCKETS."
            ),
        )
    for (place, outcome), failures in problems.items():
        reason, _ = failures[0]
        affected = set().union(*(tasks for _, tasks in failures))
        yield Finding(
            "direct-images",
            Severity.WARNING,
            Message(
                "{count} of {images} tried cannot be read directly ({place}, {outcome}; {tasks}): "
                "{reason}.",
                count=len(failures),
                images=counted(tried[place], "image"),
                place=place,
                outcome=outcome,
                tasks=named_tasks(affected),
                reason=reason,
            ),
            Message("They are fetched through Label Studio, which takes longer."),
            _FIXES[place],
        )


def _compare(context: Context, source: DirectSource, value: str) -> None:
    """Read an image both ways.

    Raises:
        DirectReadError: it cannot be read directly, or is not the one that Label Studio serves.
        ImageError: Label Studio does not serve it.
    """
    served = context.fetcher.fetch(value)
    with time_limit(context.settings.fetch_timeout):
        file = source.read(value, UNKNOWN)
    if file is None or file.data != served:
        raise DirectReadError(Outcome.DIFFERS, Message("Label Studio serves other bytes"))


_FIXES = {
    Place.LOCAL_FILES: Message(
        "Set LS_CLIP_LOCAL_FILES_ROOT to the folder that is Label Studio's "
        "LOCAL_FILES_DOCUMENT_ROOT, as it is seen from here."
    ),
    Place.UPLOADS: Message(
        "Set LS_CLIP_UPLOADS_ROOT to the folder media/upload of Label Studio's data, as it is "
        "seen from here."
    ),
    Place.BUCKETS: Message(
        "Give this process the bucket's credentials, region and endpoint (AWS_...), or take the "
        "bucket out of LS_CLIP_READ_BUCKETS."
    ),
}

CHECKS = (
    Check(
        "direct-roots",
        Message("No folder that images are to be read from is missing."),
        Message("Images are fetched otherwise."),
        roots,
    ),
)

PROJECT_CHECKS = (
    Check(
        "direct-images",
        Message("No image that may be read directly is left to Label Studio."),
        Message("They are fetched otherwise."),
        images,
        ("config", "direct-roots"),
        project=True,
    ),
)
