"""The prediction log: what each task was shown, and which images it has, by project.

Label Studio loses which prediction an annotation came from when predictions are deleted, and of a
deleted task it reports only the id. So both are kept in the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from backend.storage.maintenance import erase_images, erase_rows
from backend.storage.store import Store
from backend.storage.tables import TableVersion, chunks, sql_list, sql_text

LOOKUP_TASKS = 2000
"""Tasks per query."""
_SHOWN = pa.schema(
    [
        pa.field("project", pa.string()),
        pa.field("task", pa.int64()),
        pa.field("model_version", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("choices", pa.string()),
    ]
)
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
    """

    task: int
    model_version: str
    score: float
    choices: Mapping[str, list[Any]] | None


@dataclass(frozen=True)
class Purged:
    """Numbers of logged predictions and of images that `PredictionLog.purge` removed."""

    predictions: int
    images: int


_HEAD_FILES = frozenset({"serving.json", "serving-copy.json", "trained-on.json"})
"""Files of a project's state that are about its heads; the others are settings."""


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
        shown, images = tables.version("snapshots", _SHOWN), tables.version("task_images", _IMAGES)
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
        """Record predictions that were shown.

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
        ]
        self._store.tables.append("snapshots", pa.table(columns, schema=_SHOWN))

    def of_tasks(
        self, project: str, tasks: Iterable[int]
    ) -> dict[tuple[int, str], LoggedPrediction]:
        """(task, model version) -> what the task was shown, the last one if there are several.

        Raises:
            StoreError: the store cannot be read.
        """
        logged: dict[tuple[int, str], LoggedPrediction] = {}
        for part in chunks(sorted(set(tasks)), LOOKUP_TASKS):
            for row in self._store.tables.rows(
                "snapshots", _SHOWN, _condition(project, part)
            ).to_pylist():
                logged[row["task"], row["model_version"]] = LoggedPrediction(
                    row["task"], row["model_version"], row["score"], json.loads(row["choices"])
                )
        return logged

    def has(self, project: str, tasks: Sequence[int]) -> bool:
        """Whether anything is recorded for one of these tasks; ``project`` as for `purge`.

        Raises:
            StoreError: the store cannot be read.
        """
        wheres = [_condition(project, part) for part in chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        return any(
            len(self._store.tables.rows(name, schema, where, ["task"]))
            for name, schema in (("snapshots", _SHOWN), ("task_images", _IMAGES))
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
        parts = [None] if tasks is None else [*chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        wheres = [_condition(project, part) for part in parts]
        addresses: set[str] = set()
        predictions = 0
        for where in wheres:
            linked = self._store.tables.rows("task_images", _IMAGES, where, ["address"])
            addresses |= set(linked["address"].to_pylist())
            predictions += len(self._store.tables.rows("snapshots", _SHOWN, where, ["task"]))
        if predictions:
            erase_rows(self._store, "snapshots", _SHOWN, wheres)
        if addresses:
            erase_rows(self._store, "task_images", _IMAGES, wheres)
        for part in chunks(sorted(addresses), LOOKUP_TASKS):
            where = f"address IN ({sql_list(part)})"
            others = self._store.tables.rows("task_images", _IMAGES, where)
            addresses -= set(others["address"].to_pylist())
        images = erase_images(self._store, addresses)
        if tasks is None:
            for folder in ("statistics", "heads"):
                self._store.artifacts.erase(folder, lambda name: name.startswith(project))
            for name in self._store.artifacts.folder_names("projects"):
                if name.startswith(project):
                    # The known-label field and the labels' ages stay: without them, old reviews
                    # would be misread.
                    self._store.artifacts.erase(f"projects/{name}", _HEAD_FILES.__contains__)
            self._store.generation.change()
        return Purged(predictions, images)


def _condition(project: str, tasks: Sequence[int] | None) -> str:
    condition = f"project = {sql_text(project)}"
    if project.endswith("."):
        condition = f"starts_with(project, {sql_text(project)})"
    return condition if tasks is None else f"{condition} AND task IN ({sql_list(tasks)})"
