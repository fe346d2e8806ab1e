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

from backend.prediction import Prediction
from backend.store import Store, chunks, listed, quoted
from backend.upkeep import erase, erase_images

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
class Snapshot:
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
class Forgotten:
    """What `Snapshots.forget` removed."""

    snapshots: int
    images: int


OF_HEADS = frozenset({"serving.json", "trained-on.json"})
"""Files of a project that are about its heads."""


class Snapshots:
    """See the module. Thread-safe.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def tie(self, project: str, images: Iterable[tuple[int, str]]) -> None:
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
            rows = self._store.rows("task_images", _IMAGES, _of(project, tasks))
            known |= set(zip(rows["task"].to_pylist(), rows["address"].to_pylist(), strict=True))
        fresh = sorted(wanted - known)
        if fresh:
            columns = [[project] * len(fresh), *map(list, zip(*fresh, strict=True))]
            self._store.append("task_images", pa.table(columns, schema=_IMAGES))

    def add(self, project: str, predictions: Sequence[Prediction]) -> None:
        """Remember predictions; those without a result or a task are left out.

        Raises:
            StoreError: the store cannot be written.
        """
        shown = [one for one in predictions if one.result is not None and one.task is not None]
        if not shown:
            return
        columns = [
            [project] * len(shown),
            [one.task for one in shown],
            [one.model_version for one in shown],
            [one.score for one in shown],
            [json.dumps(_choices(one), ensure_ascii=False) for one in shown],
        ]
        self._store.append("snapshots", pa.table(columns, schema=_SHOWN))

    def of_tasks(self, project: str, tasks: Iterable[int]) -> dict[tuple[int, str], Snapshot]:
        """What these tasks were shown: (task, model version) -> snapshot.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[tuple[int, str], Snapshot] = {}
        for part in chunks(sorted(set(tasks)), LOOKUP_TASKS):
            for row in self._store.rows("snapshots", _SHOWN, _of(project, part)).to_pylist():
                found[row["task"], row["model_version"]] = Snapshot(
                    row["task"], row["model_version"], row["score"], json.loads(row["choices"])
                )
        return found

    def keeps(self, project: str, tasks: Sequence[int]) -> bool:
        """Whether anything is kept of one of these tasks; project as for `forget`.

        Raises:
            StoreError: the store cannot be read.
        """
        wheres = [_of(project, part) for part in chunks(sorted(set(tasks)), LOOKUP_TASKS)]
        return any(
            len(self._store.rows(name, schema, where, ["task"]))
            for name, schema in (("snapshots", _SHOWN), ("task_images", _IMAGES))
            for where in wheres
        )

    def forget(self, project: str, tasks: Sequence[int] | None = None) -> Forgotten:
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
            tied = self._store.rows("task_images", _IMAGES, where, ["address"])
            addresses |= set(tied["address"].to_pylist())
            snapshots += len(self._store.rows("snapshots", _SHOWN, where, ["task"]))
        if snapshots:
            erase(self._store, "snapshots", _SHOWN, wheres)
        if addresses:
            erase(self._store, "task_images", _IMAGES, wheres)
        for some in chunks(sorted(addresses), LOOKUP_TASKS):
            others = self._store.rows("task_images", _IMAGES, f"address IN ({listed(some)})")
            addresses -= set(others["address"].to_pylist())
        images = erase_images(self._store, addresses)
        if tasks is None:
            for folder in ("statistics", "heads"):
                self._store.erase_artefacts(folder, lambda name: name.startswith(project))
            for name in self._store.folder_names("projects"):
                if name.startswith(project):
                    # Which field holds known labels, and since when there is which label, are
                    # settings: without them old reviews would be misread.
                    self._store.erase_artefacts(f"projects/{name}", OF_HEADS.__contains__)
        return Forgotten(snapshots, images)


def _choices(prediction: Prediction) -> dict[str, list[Any]] | None:
    if prediction.blind:
        return None
    return {
        item["from_name"]: item["value"][item["type"]]
        for item in prediction.result or []
        if item["type"] in {"choices", "taxonomy"}
    }


def _of(project: str, tasks: Sequence[int] | None) -> str:
    mine = f"project = {quoted(project)}"
    if project.endswith("."):
        mine = f"starts_with(project, {quoted(project)})"
    return mine if tasks is None else f"{mine} AND task IN ({listed(tasks)})"
