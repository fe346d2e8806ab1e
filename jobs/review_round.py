"""The round of tasks that a project offers for review in a tab of its Data Manager.

A round covers the kinds of images of which nothing is reviewed yet (`backend.vlpl.coverage`). The
tab belongs to the people who use it: only its filters are written, and once it is deleted it comes
back only when the project is connected again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.inference.task_images import image_of
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.labelstudio.tasks import filters_of_tasks
from backend.runtime import Runtime
from backend.storage.project_state import ProjectState
from backend.storage.review_record import RoundRecord
from backend.storage.store import Store
from backend.vlpl.coverage import ROUND, next_round
from jobs.review_order import note_order

TAB_TITLE = f"next {ROUND}"
REVIEWED = 20
"""Of a full round: once so many of its tasks are reviewed, skipped or gone, the next one begins."""
MOST_OPEN = 20_000
"""Open tasks that a round is chosen from; of more, a random part."""
MOST_REVIEWED = 5_000
"""Reviewed tasks that are looked at; of more, a random part."""
_SEED = 0
_LOOKUP = 2_048
"""Images whose embeddings are read at once."""


class TaskState(StrEnum):
    """How far the review of a task is."""

    OPEN = "open"
    REVIEWED = "reviewed"
    SKIPPED = "skipped"
    """Somebody has skipped it and nobody has reviewed it: it is not offered again."""


@dataclass(frozen=True)
class ListedTask:
    """One task as a round is chosen from it.

    Attributes:
        number: its id.
        state: how far its review is.
        image: name in the store of the first control's image; None if the task has none.
    """

    number: int
    state: TaskState
    image: str | None


class RefreshBusyError(Exception):
    """Another process is refreshing the project's round."""


def list_tasks(
    runtime: Runtime, studio: LabelStudioClient, project: Mapping[str, Any]
) -> list[ListedTask]:
    """All tasks of a project.

    Args:
        runtime: of this process.
        studio: the Label Studio.
        project: as it describes it.

    Raises:
        LabelConfigError: its labeling config has no control that can be predicted.
        StudioError: Label Studio does not answer.
    """
    config = parse_config(project["label_config"])
    config.require_controls()
    tasks = []
    for task in studio.tasks.iterate(int(project["id"])):
        state = TaskState.SKIPPED if task["cancelled_annotations"] else TaskState.OPEN
        if task["total_annotations"]:
            state = TaskState.REVIEWED
        image = image_of(config.controls[0], task)
        # An image may stand in the task's data as a whole: only its name is kept.
        name = None if image is None else runtime.embedder.address(image)
        tasks.append(ListedTask(int(task["id"]), state, name))
    return tasks


def choose(runtime: Runtime, tasks: Sequence[ListedTask]) -> list[int]:
    """Ids of the tasks of the next round: with an embedding, and not reviewed or skipped.

    Raises:
        StoreError: the store cannot be read.
    """
    parts = []
    for state, most in ((TaskState.REVIEWED, MOST_REVIEWED), (TaskState.OPEN, MOST_OPEN)):
        part = [task for task in tasks if task.state is state and task.image is not None]
        if len(part) > most:
            part = random.Random(_SEED).sample(part, most)
        parts += sorted(part, key=lambda task: task.number)
    rows: list[NDArray[np.float16]] = []
    kept: list[ListedTask] = []
    for start in range(0, len(parts), _LOOKUP):
        block = parts[start : start + _LOOKUP]
        images = runtime.embedder.stored_images([task.image for task in block if task.image])
        for task in block:
            if task.image in images:
                rows.append(images[task.image])
                kept.append(task)
    if not kept:
        return []
    reviewed = np.array([task.state is TaskState.REVIEWED for task in kept])
    return [kept[place].number for place in next_round(np.stack(rows), reviewed)]


def find_tab(tabs: Sequence[Mapping[str, Any]], record: RoundRecord) -> Mapping[str, Any] | None:
    """The tab that shows the rounds: by the id that was recorded, else by its title.

    Args:
        tabs: of the project's Data Manager.
        record: of the project's round.
    """
    same = [tab for tab in tabs if tab["id"] == record.tab]
    same += [tab for tab in tabs if tab["data"].get("title") == TAB_TITLE]
    return same[0] if same else None


def refresh(
    runtime: Runtime,
    studio: LabelStudioClient,
    project: Mapping[str, Any],
    *,
    added: bool = False,
    connecting: bool = False,
    tasks: Sequence[ListedTask] | None = None,
    wait_seconds: float = 0.0,
) -> RoundRecord:
    """Begin the next round if it is time, and see that the tab shows the present one.

    Args:
        runtime: of this process.
        studio: the Label Studio.
        project: as it describes it.
        added: whether tasks may have been added since the round began.
        connecting: make the tab if it is not there, also if a person has deleted it.
        tasks: of the project, if they are listed already.
        wait_seconds: how long to wait for another process that does the same.

    Returns:
        The record afterwards.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        RefreshBusyError: see there.
        StudioError: Label Studio refuses a call, or does not answer.
        StoreError: the store cannot be read or written.
    """
    key = project_key(project)
    state = ProjectState(runtime.store, key)
    note_order(state, project)
    with runtime.store.locks.hold_if_free(f"round of {key}", wait_seconds) as held:
        if not held:
            raise RefreshBusyError
        before = state.round()
        if before is None and not connecting:
            # It was connected by a release without rounds.
            return RoundRecord()
        record = before or RoundRecord()
        tab = find_tab(studio.views.of_project(int(project["id"])), record)
        if tab is None and record.tab and not connecting:
            return state.change_round(lambda now: replace(now, failure=""))
        if _is_due(studio, int(project["id"]), record, added=added or connecting):
            chosen = choose(
                runtime, list_tasks(runtime, studio, project) if tasks is None else tasks
            )
            record = state.change_round(lambda now: now.followed_by(chosen, time.time()))
        number = _show(studio, int(project["id"]), record, tab)
        return state.change_round(lambda now: replace(now, tab=number, failure=""))


def note_failure(store: Store, project: str, reason: str) -> None:
    """Note why a project's round could not be refreshed, for `ls-clip doctor`.

    Args:
        store: where it is noted.
        project: ``<id>.<unix time of creation>``.
        reason: with its fix.

    Raises:
        StoreError: the store cannot be read or written.
    """
    state = ProjectState(store, project)
    if state.round() is not None:
        state.change_round(lambda now: replace(now, failure=reason))


def _is_due(studio: LabelStudioClient, project: int, record: RoundRecord, *, added: bool) -> bool:
    if not record.tasks:
        return added
    there = len(studio.tasks.still_open(project, record.tasks))
    is_full = len(record.tasks) >= ROUND
    return (added and there < ROUND) or (is_full and there <= ROUND - REVIEWED)


def _show(
    studio: LabelStudioClient, project: int, record: RoundRecord, tab: Mapping[str, Any] | None
) -> int:
    """Let the tab show the round; returns its id, 0 if there is none and nothing to show."""
    filters = filters_of_tasks(record.tasks)
    if tab is not None:
        if _shown(tab) != sorted(item["value"] for item in filters["items"]):
            studio.views.set_filters(project, tab, filters)
        return int(tab["id"])
    if not record.tasks:
        return 0
    hidden = studio.views.hidden_columns(project)
    data = {
        "title": TAB_TITLE,
        "type": "list",
        "target": "tasks",
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
        "filters": filters,
    }
    return int(studio.views.save(project, data)["id"])


def _shown(tab: Mapping[str, Any]) -> list[Any]:
    """Ids of the tasks that a tab's filters name; empty if they are others than ours."""
    filters = tab["data"].get("filters") or {}
    items = filters.get("items") or []
    ours = {("filter:tasks:id", "equal")}
    if (
        filters.get("conjunction") != "or"
        or {(item.get("filter"), item.get("operator")) for item in items} != ours
    ):
        return []
    values = [item.get("value") for item in items]
    return sorted(value for value in values if isinstance(value, int))
