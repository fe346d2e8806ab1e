"""What each task was shown, and which images it has: our own memory of Label Studio's predictions.

Label Studio forgets which prediction an annotation came from as soon as predictions are deleted,
and says of a deleted task only its number. Both are kept in the store, by project.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from backend.storage.maintenance import erase, erase_images
from backend.storage.store import Store
from backend.storage.tables import chunks, listed, quoted

LOOKUP_TASKS = 2000
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
    """One prediction as a person got to see it.

    Attributes:
        task: the task's id.
        model_version: the version.
        score: its confidence in [0, 1].
        choices: control name -> what was ticked, as Label Studio stores it; None for a blind task,
            whose suggestions were held back.
    """

    task: int
    model_version: str
    score: float
    choices: Mapping[str, list[Any]] | None


@dataclass(frozen=True)
class Purged:
    """What `PredictionLog.purge` removed."""

    predictions: int
    images: int


OF_HEADS = frozenset({"serving.json", "trained-on.json"})
"""Files of a project that are about its heads."""


class PredictionLog:
    """See the module. Thread-safe.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def link_images(self, project: str, images: Iterable[tuple[int, str]]) -> None:
        """Remember which images (addresses) belong to which tasks.

        Args:
            project: ``<id>.<unix time of creation>``.
            images: task id and address; what is known is not stored twice.

        Raises:
            StoreError: the store cannot be read or written.
        """
        wanted = set(images)
        known: set[tuple[int, str]] = set()
        for tasks in chunks(sorted({task for task, _ in wanted}), LOOKUP_TASKS):
            rows = self._store.tables.rows("task_images", _IMAGES, _of(project, tasks))
            known |= set(zip(rows["task"].to_pylist(), rows["address"].to_pylist(), strict=True))
        fresh = sorted(wanted - known)
        if fresh:
            columns = [[project] * len(fresh), *map(list, zip(*fresh, strict=True))]
            self._store.tables.append("task_images", pa.table(columns, schema=_IMAGES))

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
        """What these tasks were shown: (task, model version) -> snapshot.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[tuple[int, str], LoggedPrediction] = {}
        for part in chunks(sorted(set(tasks)), LOOKUP_TASKS):
            for row in self._store.tables.rows("snapshots", _SHOWN, _of(project, part)).to_pylist():
                found[row["task"], row["model_version"]] = LoggedPrediction(
                    row["task"], row["model_version"], row["score"], json.loads(row["choices"])
                )
        return found

    def has(self, project: str, tasks: Sequence[int]) -> bool:
        """Whether anything is kept of one of these tasks; project as for `purge`.

        Raises:
            StoreError: the store cannot be read.
        """
        wheres = [_of(project, part) for part in chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        return any(
            len(self._store.tables.rows(name, schema, where, ["task"]))
            for name, schema in (("snapshots", _SHOWN), ("task_images", _IMAGES))
            for where in wheres
        )

    def purge(self, project: str, tasks: Sequence[int] | None = None) -> Purged:
        """Erase what is kept of a project or of some of its tasks: snapshots, and embeddings of
        images that no other task has.

        Args:
            project: ``<id>.<unix time of creation>``, or ``<id>.`` for all of that number.
            tasks: their ids; None: the whole project, its statistics and heads included.

        Raises:
            StoreError: the store cannot be read or written.
        """
        parts = [None] if tasks is None else [*chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        wheres = [_of(project, part) for part in parts]
        addresses: set[str] = set()
        snapshots = 0
        for where in wheres:
            tied = self._store.tables.rows("task_images", _IMAGES, where, ["address"])
            addresses |= set(tied["address"].to_pylist())
            snapshots += len(self._store.tables.rows("snapshots", _SHOWN, where, ["task"]))
        if snapshots:
            erase(self._store, "snapshots", _SHOWN, wheres)
        if addresses:
            erase(self._store, "task_images", _IMAGES, wheres)
        for some in chunks(sorted(addresses), LOOKUP_TASKS):
            others = self._store.tables.rows("task_images", _IMAGES, f"address IN ({listed(some)})")
            addresses -= set(others["address"].to_pylist())
        images = erase_images(self._store, addresses)
        if tasks is None:
            for folder in ("statistics", "heads"):
                self._store.artifacts.erase(folder, lambda name: name.startswith(project))
            for name in self._store.artifacts.folder_names("projects"):
                if name.startswith(project):
                    # Which field holds known labels, and since when there is which label, are
                    # settings: without them old reviews would be misread.
                    self._store.artifacts.erase(f"projects/{name}", OF_HEADS.__contains__)
            self._store.generation.change()
        return Purged(snapshots, images)


def _of(project: str, tasks: Sequence[int] | None) -> str:
    mine = f"project = {quoted(project)}"
    if project.endswith("."):
        mine = f"starts_with(project, {quoted(project)})"
    return mine if tasks is None else f"{mine} AND task IN ({listed(tasks)})"
