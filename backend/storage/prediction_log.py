"""The prediction log: what each task was shown, and which images it has, by project.

Label Studio loses which prediction an annotation came from when predictions are deleted, and of a
deleted task it reports only the id. So both are kept in the store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from backend.storage.maintenance import erase_images, erase_rows
from backend.storage.score_files import ScoreFiles
from backend.storage.store import Store
from backend.storage.tables import TableVersion, chunks, sql_list, sql_text

LOOKUP_TASKS = 2000
"""Tasks per query."""
_UNDATED = pa.schema(
    [
        pa.field("project", pa.string()),
        pa.field("task", pa.int64()),
        pa.field("model_version", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("choices", pa.string()),
    ]
)
"""Of the table that the first release wrote. It refuses a table with another column, so what is
logged now has a table of its own."""
_SHOWN = _UNDATED.append(pa.field("shown_at", pa.float64()))
_LOGS = (("snapshots", _UNDATED), ("shown", _SHOWN))
"""Tables of the log, the older one first."""
_IMAGES = pa.schema(
    [
        pa.field("project", pa.string()),
        pa.field("task", pa.int64()),
        pa.field("address", pa.string()),
    ]
)


@dataclass(frozen=True)
class LoggedPrediction:
    """One prediction as its annotator saw it.

    Attributes:
        task: the task's id.
        model_version: the version.
        score: its confidence in [0, 1].
        choices: control name -> the suggested labels, as Label Studio stores them; None for a
            blind task, whose suggestions were held back.
        shown_at: unix time, by the clock of the process that logged it, of its first entry; None
            if it was logged by a release that did not record it, or is not logged yet.
    """

    task: int
    model_version: str
    score: float
    choices: Mapping[str, list[Any]] | None
    shown_at: float | None = None


@dataclass(frozen=True)
class Purged:
    """Numbers of logged predictions and of images that `PredictionLog.purge` removed."""

    predictions: int
    images: int


_PURGED_FILES = (
    "review-order.json",
    "review-round.json",
    "serving.json",
    "serving-copy.json",
    "trained-on.json",
)
"""Files of a project's state that are about its heads or its tasks; the others are settings."""


class PredictionLog:
    """The log of all projects, see the module. Thread-safe.

    Args:
        store: where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def version(self) -> TableVersion:
        """Another after every change of the log, by any process; one append adds 1 to its number.

        Raises:
            StoreError: the store cannot be read.
        """
        tables = self._store.tables
        shown, images = tables.version("shown", _SHOWN), tables.version("task_images", _IMAGES)
        return TableVersion(images.generation, shown.number + images.number)

    def link_images(self, project: str, images: Iterable[tuple[int, str]]) -> bool:
        """Record which images belong to which tasks.

        Args:
            project: ``<id>.<unix time of creation>``.
            images: task id and address in the store; what is recorded already is skipped.

        Returns:
            Whether something was stored, in one append.

        Raises:
            StoreError: the store cannot be read or written.
        """
        wanted = set(images)
        known: set[tuple[int, str]] = set()
        for tasks in chunks(sorted({task for task, _ in wanted}), LOOKUP_TASKS):
            rows = self._store.tables.rows("task_images", _IMAGES, _condition(project, tasks))
            known |= set(zip(rows["task"].to_pylist(), rows["address"].to_pylist(), strict=True))
        fresh = sorted(wanted - known)
        if fresh:
            columns = [[project] * len(fresh), *map(list, zip(*fresh, strict=True))]
            self._store.tables.append("task_images", pa.table(columns, schema=_IMAGES))
        return bool(fresh)

    def add(self, project: str, shown: Sequence[LoggedPrediction]) -> None:
        """Record predictions that are shown from now on.

        Raises:
            StoreError: the store cannot be written.
        """
        if not shown:
            return
        columns = [
            [project] * len(shown),
            [prediction.task for prediction in shown],
            [prediction.model_version for prediction in shown],
            [prediction.score for prediction in shown],
            [json.dumps(prediction.choices, ensure_ascii=False) for prediction in shown],
            [time.time()] * len(shown),
        ]
        self._store.tables.append("shown", pa.table(columns, schema=_SHOWN))

    def of_tasks(
        self, project: str, tasks: Iterable[int]
    ) -> dict[tuple[int, str], LoggedPrediction]:
        """(task, model version) -> what the task was shown, the last one if there are several.

        Its time is that of the first one: the same version was seen from then on.

        Raises:
            StoreError: the store cannot be read.
        """
        logged: dict[tuple[int, str], LoggedPrediction] = {}
        for part in chunks(sorted(set(tasks)), LOOKUP_TASKS):
            where = _condition(project, part)
            for name, schema in self._logs():
                for row in self._store.tables.rows(name, schema, where).to_pylist():
                    key = row["task"], row["model_version"]
                    shown_at = row.get("shown_at")
                    before = logged.get(key)
                    if before is not None and shown_at is not None:
                        shown_at = min(shown_at, before.shown_at) if before.shown_at else None
                    choices = json.loads(row["choices"])
                    logged[key] = LoggedPrediction(*key, row["score"], choices, shown_at)
        return logged

    def addresses(self, project: str) -> set[str]:
        """Addresses in the store of all images that the project's tasks have, or had.

        Raises:
            StoreError: the store cannot be read.
        """
        rows = self._store.tables.rows(
            "task_images", _IMAGES, _condition(project, None), ["address"]
        )
        return set(rows["address"].to_pylist())

    def tasks(self, project: str, among: Sequence[int] | None = None) -> set[int]:
        """Ids of a project's tasks of which an image is known; a purged task is not among them.

        Args:
            project: its key.
            among: only these; None: all.

        Raises:
            StoreError: the store cannot be read.
        """
        parts = [None] if among is None else [*chunks(sorted(set(among)), LOOKUP_TASKS)]
        found: set[int] = set()
        for part in parts:
            where = _condition(project, part)
            rows = self._store.tables.rows("task_images", _IMAGES, where, ["task"])
            found |= set(rows["task"].to_pylist())
        return found

    def erase_unlinked(self, addresses: Iterable[str]) -> int:
        """Erase the embeddings of those images that no task of any project has.

        Args:
            addresses: in the store.

        Returns:
            Number of images whose embeddings were erased.

        Raises:
            StoreError: the store cannot be read or written.
        """
        alone = set(addresses)
        for part in chunks(sorted(alone), LOOKUP_TASKS):
            where = f"address IN ({sql_list(part)})"
            rows = self._store.tables.rows("task_images", _IMAGES, where, ["address"])
            alone -= set(rows["address"].to_pylist())
        return erase_images(self._store, alone) if alone else 0

    def has(self, project: str, tasks: Sequence[int]) -> bool:
        """Whether anything is recorded for one of these tasks; ``project`` as for `purge`.

        Raises:
            StoreError: the store cannot be read.
        """
        wheres = [_condition(project, part) for part in chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        return ScoreFiles(self._store).has(project, tasks) or any(
            len(self._store.tables.rows(name, schema, where, ["task"]))
            for name, schema in (*self._logs(), ("task_images", _IMAGES))
            for where in wheres
        )

    def purge(self, project: str, tasks: Sequence[int] | None = None) -> Purged:
        """Erase all data of a project or of some of its tasks from the disk.

        That is what the tasks were shown, and the embeddings of images that no other task has.

        Args:
            project: its key, ``<id>.<unix time of creation>``, or ``<id>.`` for all projects that
                ever had this id.
            tasks: their ids; None: the whole project, including its statistics and heads.

        Raises:
            StoreError: the store cannot be read or written.
        """
        # Imports torch, which those who only read the log do without.
        from backend.storage.banks import Banks

        parts = [None] if tasks is None else [*chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        wheres = [_condition(project, part) for part in parts]
        addresses: set[str] = set()
        predictions = 0
        for where in wheres:
            linked = self._store.tables.rows("task_images", _IMAGES, where, ["address"])
            addresses |= set(linked["address"].to_pylist())
        for name, schema in self._logs():
            there = sum(len(self._store.tables.rows(name, schema, w, ["task"])) for w in wheres)
            if there:
                erase_rows(self._store, name, schema, wheres)
            predictions += there
        own = set(addresses)
        for part in chunks(sorted(addresses), LOOKUP_TASKS):
            for where in wheres:
                others = f"address IN ({sql_list(part)}) AND NOT ({where})"
                rows = self._store.tables.rows("task_images", _IMAGES, others)
                own -= set(rows["address"].to_pylist())
        keys = None if tasks is None else set(self._store.vectors.keys_of(own).values())
        Banks(self._store).purge(project, keys)
        ScoreFiles(self._store).purge(project, tasks)
        images = erase_images(self._store, own)
        if addresses:
            # Late: they lead to the images, should this have to be repeated.
            erase_rows(self._store, "task_images", _IMAGES, wheres)
        # Once more, and last: who draws a bank or keeps scores meanwhile looks up, before it
        # writes, which images there are.
        Banks(self._store).purge(project, keys)
        ScoreFiles(self._store).purge(project, tasks)
        if tasks is None:
            for folder in ("statistics", "confidences", "heads"):
                self._store.artifacts.erase(folder, lambda name: name.startswith(project))
            for name in self._store.artifacts.folder_names("projects"):
                if name.startswith(project):
                    # The known-label field, the labels' ages and their former names stay: without
                    # them, old reviews would be misread.
                    self._store.artifacts.erase(f"projects/{name}", _is_purged)
            self._store.generation.change()
        return Purged(predictions, images)

    def _logs(self) -> list[tuple[str, pa.Schema]]:
        """Name and schema of the log's tables that are there."""
        there = self._store.tables.names()
        return [(name, schema) for name, schema in _LOGS if name in there]


def _is_purged(file: str) -> bool:
    # Also one that was never given its name.
    return file.startswith(_PURGED_FILES)


def _condition(project: str, tasks: Sequence[int] | None) -> str:
    condition = f"project = {sql_text(project)}"
    if project.endswith("."):
        condition = f"starts_with(project, {sql_text(project)})"
    return condition if tasks is None else f"{condition} AND task IN ({sql_list(tasks)})"
