"""Out again: a project's images with the state of every label, for training a model of one's own.

Each label of each task is ``approved`` (a person said that it is there, or is not), ``known`` (the
task's data names it), ``pseudo`` (nobody looked; the current version suggests it) or ``unknown``.
Our evidence never gets out.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.images.address import compact_address
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.inference.task_images import image_of
from backend.labels.controls import Control, Label
from backend.labelstudio.client import LabelStudioClient
from backend.runtime import Runtime
from backend.storage.tables import chunks
from backend.training.approvals import Approval
from backend.training.head_trainer import Pulled
from backend.vlpl.head import Provenance
from backend.vlpl.objectives import NEGATIVE, POSITIVE

FORMATS = {"coco": "coco.json", "csv": "csv", "parquet": "parquet", "labelstudio": "json"}
"""Format -> what its file's name ends with."""
CHUNK = 1000
_COLUMNS = pa.schema(
    [
        pa.field("task", pa.int64()),
        pa.field("image", pa.string()),
        pa.field("control", pa.string()),
        pa.field("label", pa.string()),
        pa.field("state", pa.string()),
        pa.field("present", pa.bool_()),
        pa.field("probability", pa.float64()),
        pa.field("provenance", pa.string()),
        pa.field("version", pa.string()),
    ]
)


@dataclass(frozen=True)
class LabelState:
    """One label of one task.

    Attributes:
        task: the task's id.
        image: the image's address, as it stands in the task's data; one that stands there itself
            (``data:``) is named by its hash.
        control: name of the control.
        label: its key: the value, or the way down a tree.
        state: ``approved``, ``known``, ``pseudo`` or ``unknown``.
        present: whether it is on the image; None where that is unknown.
        probability: of the current version, in [0, 1]; None where the image is not embedded.
        provenance: how the task was reviewed, `approvals`; empty where it was not.
        version: the model version of the probability.
    """

    task: int
    image: str
    control: str
    label: str
    state: str
    present: bool | None
    probability: float | None
    provenance: str
    version: str


@dataclass(frozen=True)
class ExportedTask:
    """One task with all its labels."""

    task: int
    data: Mapping[str, Any]
    controls: tuple[tuple[Control, tuple[LabelState, ...]], ...]
    score: float | None


def exported(
    studio: LabelStudioClient, runtime: Runtime, number: int, pulled: Pulled, pseudo: bool
) -> Iterator[ExportedTask]:
    """All tasks of a project.

    Args:
        studio: the Label Studio.
        runtime: of this process; nothing is fetched, what is embedded is scored.
        number: the project.
        pulled: what was approved there.
        pseudo: whether suggestions count as pseudo-labels; else such labels are unknown.

    Raises:
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    version = runtime.versions.get(pulled.config, pulled.key)
    predictor = Predictor(version, runtime.embedder)
    approvals = {
        (name, one.task): one
        for part in (pulled.approvals, pulled.of_own_labels)
        for name, found in part.items()
        for one in found
    }
    for tasks in chunks(studio.tasks.iterate(number), CHUNK):
        predictions = predictor.predict_stored(tasks)
        for task, prediction in zip(tasks, predictions, strict=True):
            controls = []
            for plain in pulled.config.controls:
                control = plain.for_task(task["data"])
                approval = approvals.get((control.name, int(task["id"])))
                # A file of its own in each of its labels' rows would be nobody's wish.
                image = compact_address(image_of(control, task) or "")
                states = _states(task, image, control, approval, prediction, pseudo=pseudo)
                controls.append((control, states))
            yield ExportedTask(int(task["id"]), task["data"], tuple(controls), prediction.score)


def _states(
    task: Mapping[str, Any],
    image: str,
    control: Control,
    approval: Approval | None,
    prediction: Prediction,
    *,
    pseudo: bool,
) -> tuple[LabelState, ...]:
    if approval is not None and approval.provenance == Provenance.BULK:
        # Annotations from predictions: nobody has looked.
        approval = None
    scored = next((one for one in prediction.scored if one.control.name == control.name), None)
    probabilities = prediction.probabilities.get(control.name, {})
    suggested = {label.key for label in scored.suggested} if scored is not None else set()
    states = []
    for place, label in enumerate(control.labels):
        said = 0 if approval is None else approval.states[place]
        provenance = "" if approval is None else approval.provenance
        if said in {POSITIVE, NEGATIVE}:
            state, present = (
                ("known" if provenance == Provenance.KNOWN else "approved"),
                said == POSITIVE,
            )
        elif pseudo and label.key in suggested:
            state, present = "pseudo", True
        else:
            state, present = "unknown", None
        states.append(
            LabelState(
                int(task["id"]),
                image,
                control.name,
                label.key,
                state,
                present,
                probabilities.get(label.key),
                provenance if said else "",
                prediction.model_version,
            )
        )
    return tuple(states)


@dataclass(frozen=True)
class Written:
    """How many tasks a file holds, and how many labels of each state."""

    tasks: int
    states: Counter[str]


def write(format_name: str, tasks: Iterable[ExportedTask], path: Path) -> Written:
    """Write a file, all or nothing.

    Args:
        format_name: one of `FORMATS`.
        tasks: what to write.
        path: the file; one that is there is replaced.
    """
    writers: dict[str, Callable[[Iterable[ExportedTask], Path], int]] = {
        "coco": _write_coco,
        "csv": _write_csv,
        "parquet": _write_parquet,
        "labelstudio": _write_labelstudio,
    }
    states: Counter[str] = Counter()

    def counting() -> Iterator[ExportedTask]:
        for one in tasks:
            states.update(row.state for row in _rows(one))
            yield one

    draft = path.with_name(f".{path.name}.part")
    try:
        count = writers[format_name](counting(), draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Written(count, states)


def _rows(one: ExportedTask) -> list[LabelState]:
    return [state for _, states in one.controls for state in states]


def _write_csv(tasks: Iterable[ExportedTask], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS.names)
        writer.writeheader()
        for one in tasks:
            writer.writerows(asdict(state) for state in _rows(one))
            count += 1
    return count


def _write_parquet(tasks: Iterable[ExportedTask], path: Path) -> int:
    count = 0
    with pq.ParquetWriter(path, _COLUMNS) as writer:
        for part in chunks(tasks, CHUNK):
            rows = [asdict(state) for one in part for state in _rows(one)]
            writer.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS))
            count += len(part)
    return count


def _write_coco(tasks: Iterable[ExportedTask], path: Path) -> int:
    """Image-level labels: an annotation without a box for each label that is there.

    An image names the categories that a person said are absent; those that it does not name at all
    are unknown.
    """
    categories: dict[tuple[str, str], int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for one in tasks:
        rows = _rows(one)
        absent: list[int] = []
        images.append(
            {
                "id": one.task,
                "file_name": rows[0].image if rows else "",
                "reviewed": bool(rows) and all(row.state == "approved" for row in rows),
                "absent": absent,
            }
        )
        for row in rows:
            category = categories.setdefault((row.control, row.label), len(categories) + 1)
            if row.present is False:
                absent.append(category)
            if not row.present:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": one.task,
                    "category_id": category,
                    "attributes": {
                        "state": row.state,
                        "probability": row.probability,
                        "provenance": row.provenance,
                        "version": row.version,
                    },
                }
            )
    content = {
        "images": images,
        "categories": [
            {"id": number, "name": label, "supercategory": control}
            for (control, label), number in categories.items()
        ],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(images)


def _write_labelstudio(tasks: Iterable[ExportedTask], path: Path) -> int:
    """Tasks as Label Studio imports them: people's labels as annotations, others as predictions."""
    content = []
    for one in tasks:
        item: dict[str, Any] = {"data": dict(one.data)}
        approved = _items(one, {"approved", "known"})
        reviewed = any(row.state == "approved" for row in _rows(one))
        if reviewed:
            item["annotations"] = [{"result": approved}]
        suggested = _items(one, {"approved", "known", "pseudo"})
        version = next((row.version for row in _rows(one)), "")
        if not reviewed and suggested:
            item["predictions"] = [
                {"model_version": version, "score": one.score, "result": suggested}
            ]
        content.append(item)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(content)


def _items(one: ExportedTask, states: set[str]) -> list[dict[str, Any]]:
    """One result item a control, of the labels that are there by these states."""
    items = []
    for control, rows in one.controls:
        chosen: Sequence[Label] = [
            label
            for label, row in zip(control.labels, rows, strict=True)
            if row.present and row.state in states
        ]
        if chosen:
            items.append(
                {
                    "from_name": control.name,
                    "to_name": control.to_name,
                    "type": control.kind,
                    "value": control.result_value(list(chosen)),
                }
            )
    return items
