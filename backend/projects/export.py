"""Exports a project's images with the state of every label, e.g. to train another model.

Each label of each task has a `State`. Our evidence (the text with probabilities) is not exported.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.images.address import compact_address
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.inference.task_images import image_of
from backend.labels.controls import Control
from backend.labels.label import Label
from backend.labelstudio.client import LabelStudioClient
from backend.projects.label_states import State
from backend.runtime import Runtime
from backend.storage.tables import chunks
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.head import Provenance
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN

FORMATS = {"coco": "coco.json", "csv": "csv", "parquet": "parquet", "labelstudio": "json"}
"""Format -> suffix of its file name."""
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
    """One label of one task: a row of the CSV and Parquet files.

    Attributes:
        task: the task's id.
        image: the image's address in the task's data; a ``data:`` URI is replaced by its hash.
        control: name of the control.
        label: the label's key: its value, or the path down a taxonomy.
        state: how we know about it.
        present: whether it is on the image; None where that is unknown.
        probability: of the current version, in [0, 1]; None where the image is not embedded.
        provenance: how the task was reviewed (`Provenance`); empty where it was not.
        version: the model version of the probability.
    """

    task: int
    image: str
    control: str
    label: str
    state: State
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
        runtime: of this process; images that are not embedded are not fetched.
        number: the project.
        pulled: its approvals.
        pseudo: whether suggestions count as pseudo-labels; else such labels are unknown.

    Raises:
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    version = runtime.versions.get(pulled.config, pulled.key)
    predictor = Predictor(version, runtime.embedder)
    approvals = {
        (name, approval.task): approval
        for by_control in (pulled.approvals, pulled.of_own_labels)
        for name, of_control in by_control.items()
        for approval in of_control
    }
    for tasks in chunks(studio.tasks.iterate(number), CHUNK):
        predictions = predictor.predict_stored(tasks)
        for task, prediction in zip(tasks, predictions, strict=True):
            controls = []
            here = [plain.for_task(task["data"]) for plain in pulled.config.controls]
            decided = {
                control.name: approval
                for control in here
                if (approval := approvals.get((control.name, int(task["id"])))) is not None
                # An annotation made from a prediction: no person has decided.
                and approval.provenance != Provenance.BULK
            }
            suggested = _suggested(here, decided, prediction) if pseudo else {}
            for control in here:
                # A data: URI would repeat the whole image in the row of each label.
                image = compact_address(image_of(control, task) or "")
                own = suggested.get(control.name, frozenset())
                approval = decided.get(control.name)
                states = _states(task, image, control, approval, prediction, suggested=own)
                controls.append((control, states))
            yield ExportedTask(int(task["id"]), task["data"], tuple(controls), prediction.score)


def _suggested(
    controls: Sequence[Control], decided: Mapping[str, Approval], prediction: Prediction
) -> dict[str, frozenset[str]]:
    """Control name -> keys of the labels that are suggested where nobody has decided.

    Nothing in a control that is hidden by what people decided, and where they did not by what is
    suggested.
    """
    scored = {part.control.name: replace(part, shown=True) for part in prediction.scored}
    suggested: dict[str, frozenset[str]] = {}
    ticks: dict[str, frozenset[str]] = {}
    for control in controls:
        part, approval = scored.get(control.name), decided.get(control.name)
        states = (UNKNOWN,) * len(control.labels) if approval is None else approval.states
        keys = frozenset(label.key for label in part.suggested) if part is not None else frozenset()
        suggested[control.name] = keys
        ticks[control.name] = frozenset(
            label.path[-1]
            for label, state in zip(control.labels, states, strict=True)
            if state == POSITIVE or (state == UNKNOWN and label.key in keys)
        )
    return {
        control.name: suggested[control.name] for control in controls if control.is_shown(ticks)
    }


def _states(
    task: Mapping[str, Any],
    image: str,
    control: Control,
    approval: Approval | None,
    prediction: Prediction,
    *,
    suggested: frozenset[str],
) -> tuple[LabelState, ...]:
    probabilities = prediction.probabilities.get(control.name, {})
    states = []
    for place, label in enumerate(control.labels):
        decision = UNKNOWN if approval is None else approval.states[place]
        provenance = "" if approval is None else approval.provenance
        present: bool | None = None
        if decision in {POSITIVE, NEGATIVE}:
            state = State.KNOWN if provenance == Provenance.KNOWN else State.APPROVED
            present = decision == POSITIVE
        elif label.key in suggested:
            state, present = State.PSEUDO, True
        else:
            state = State.UNKNOWN
        states.append(
            LabelState(
                int(task["id"]),
                image,
                control.name,
                label.key,
                state,
                present,
                probabilities.get(label.key),
                provenance if decision != UNKNOWN else "",
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
    """Write a file, completely or not at all.

    Args:
        format_name: one of `FORMATS`.
        tasks: what to write.
        path: the file; an existing one is replaced.
    """
    writers: dict[str, Callable[[Iterable[ExportedTask], Path], int]] = {
        "coco": _write_coco,
        "csv": _write_csv,
        "parquet": _write_parquet,
        "labelstudio": _write_labelstudio,
    }
    states: Counter[str] = Counter()

    def counting() -> Iterator[ExportedTask]:
        for task in tasks:
            states.update(row.state for row in _rows(task))
            yield task

    draft = path.with_name(f".{path.name}.part")
    try:
        count = writers[format_name](counting(), draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Written(count, states)


def _rows(task: ExportedTask) -> list[LabelState]:
    return [state for _, states in task.controls for state in states]


def _write_csv(tasks: Iterable[ExportedTask], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS.names)
        writer.writeheader()
        for task in tasks:
            writer.writerows(asdict(state) for state in _rows(task))
            count += 1
    return count


def _write_parquet(tasks: Iterable[ExportedTask], path: Path) -> int:
    count = 0
    with pq.ParquetWriter(path, _COLUMNS) as writer:
        for part in chunks(tasks, CHUNK):
            rows = [asdict(state) for task in part for state in _rows(task)]
            writer.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS))
            count += len(part)
    return count


def _write_coco(tasks: Iterable[ExportedTask], path: Path) -> int:
    """Write image-level labels: one annotation without a box for each label that is present.

    Each image lists the categories that a person marked as absent. Those that it does not mention
    are unknown.
    """
    categories: dict[tuple[str, str], int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for task in tasks:
        rows = _rows(task)
        absent: list[int] = []
        images.append(
            {
                "id": task.task,
                "file_name": rows[0].image if rows else "",
                "reviewed": bool(rows) and all(row.state == State.APPROVED for row in rows),
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
                    "image_id": task.task,
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
    """Write tasks as Label Studio imports them.

    Reviewed tasks get an annotation, all others a prediction.
    """
    content = []
    for task in tasks:
        item: dict[str, Any] = {"data": dict(task.data)}
        approved = _items(task, {State.APPROVED, State.KNOWN})
        reviewed = any(row.state == State.APPROVED for row in _rows(task))
        if reviewed:
            item["annotations"] = [{"result": approved}]
        suggested = _items(task, {State.APPROVED, State.KNOWN, State.PSEUDO})
        version = next((row.version for row in _rows(task)), "")
        if not reviewed and suggested:
            item["predictions"] = [
                {"model_version": version, "score": task.score, "result": suggested}
            ]
        content.append(item)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(content)


def _items(task: ExportedTask, states: set[State]) -> list[dict[str, Any]]:
    """One result item per control, with the labels that are present in one of these states."""
    items = []
    for control, rows in task.controls:
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
