"""The columns of the formats that are tables: one row per label, or one per image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from backend.projects.export.formats.content import Content, LabelKey
from backend.projects.export.rows import ExportedImage, ExportedTask, Presence

SCHEMA_VERSION = 2
"""Of the tables; the first one ended with ``version``."""
_PRESENT = {Presence.PRESENT: True, Presence.ABSENT: False, Presence.UNKNOWN: None}


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


_TASK = _field("task", pa.int64(), "Label Studio's id of the task")
_IMAGE = _field("image", pa.string(), "the image's address in the task's data")
_FILE = [
    _field("name", pa.string(), "what the image was called before it came to Label Studio"),
    _field("file_name", pa.string(), "of the copy of the image; null without --images"),
    _field("width", pa.int32(), "in pixels, upright; null where it is not known"),
    _field("height", pa.int32(), "in pixels, upright; null where it is not known"),
    _field("split", pa.string(), "train, validation, test or aside; null without --split"),
]
PER_LABEL = pa.schema(
    [
        _TASK,
        _IMAGE,
        _field("control", pa.string(), "name of the control in the labeling config"),
        _field("label", pa.string(), "the label: its value, or its path in a taxonomy"),
        _field("state", pa.string(), "approved, known, pseudo or unknown: how it is known"),
        _field("present", pa.bool_(), "whether the label is on the image; null: unknown"),
        _field("probability", pa.float64(), "0 to 1, as suggested; null where no score is kept"),
        _field("provenance", pa.string(), "how the task was reviewed; empty where it was not"),
        _field("version", pa.string(), "the model version of the probability"),
        _field("presence", pa.string(), "present, absent or unknown: `present` in a word"),
        *_FILE,
    ]
)
"""One row per label of an image."""
PER_IMAGE = pa.schema(
    [
        _TASK,
        _IMAGE,
        *_FILE,
        _field(
            "reviewed", pa.bool_(), "whether a person decided about all of its predicted labels"
        ),
    ]
)
"""One row per image; a column per label follows."""


def label_rows(tasks: Iterable[ExportedTask]) -> Iterator[dict[str, Any]]:
    """A row per label, with the columns of `PER_LABEL`."""
    for task in tasks:
        for image in task.images:
            about = _about(image)
            for state in image.labels:
                yield {
                    **about,
                    "control": state.control.name,
                    "label": state.label.key,
                    "state": state.state.value,
                    "present": _PRESENT[state.presence],
                    "probability": state.probability,
                    "provenance": str(state.provenance),
                    "version": state.version,
                    "presence": state.presence.value,
                }


def image_rows(
    tasks: Iterable[ExportedTask], columns: Mapping[LabelKey, str]
) -> Iterator[dict[str, Any]]:
    """A row per image, with the columns of `PER_IMAGE` and those of the labels."""
    for task in tasks:
        for image in task.images:
            row = {**_about(image), "reviewed": image.reviewed, **dict.fromkeys(columns.values())}
            for state in image.labels:
                name = columns.get((state.control.name, state.label.key))
                if name is not None:
                    row[name] = _PRESENT[state.presence]
            yield row


def image_schema(columns: Mapping[LabelKey, str]) -> pa.Schema:
    """`PER_IMAGE` with a column per label."""
    labels = [
        _field(name, pa.bool_(), f"whether {label} ({control}) is on the image; null: unknown")
        for (control, label), name in columns.items()
    ]
    return pa.schema([*PER_IMAGE, *labels])


def described(schema: pa.Schema, content: Content) -> pa.Schema:
    """The schema with what the whole table holds, as JSON under ``label-studio-clip``."""
    about = {
        "schema": SCHEMA_VERSION,
        "project": content.project,
        "states": [state.value for state in content.states],
        "model_version": content.version,
    }
    return schema.with_metadata({"label-studio-clip": json.dumps(about)})


def _about(image: ExportedImage) -> dict[str, Any]:
    return {
        "task": image.task,
        "image": image.image,
        "name": image.name,
        "file_name": image.file_name or None,
        "width": image.width,
        "height": image.height,
        "split": None if image.split is None else image.split.value,
    }
