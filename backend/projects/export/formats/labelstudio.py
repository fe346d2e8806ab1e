"""Tasks as Label Studio imports them: with an annotation where reviewed, else a prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from backend.labels.controls import Control
from backend.labels.label import Label
from backend.projects.export.formats.content import Content
from backend.projects.export.formats.json_text import write_list
from backend.projects.export.rows import ExportedTask, Presence
from backend.projects.label_states import KNOWN_FIELD, State

_DECIDED = frozenset({State.APPROVED, State.KNOWN})


def write(tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
    """Write tasks with their data; what is known of their images stands in ``meta``.

    Raises:
        OSError: the file cannot be written.
    """
    write_list(path, (_item(task, content.known_field) for task in tasks))


def _item(task: ExportedTask, known_field: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "data": dict(task.data),
        "meta": {
            "images": [
                {
                    "name": image.name,
                    **({} if image.split is None else {"split": image.split.value}),
                }
                for image in task.images
            ],
            # By which an import finds what was known.
            **({KNOWN_FIELD: known_field} if known_field else {}),
        },
    }
    is_reviewed = any(state.state == State.APPROVED for state in task.labels)
    if is_reviewed or task.others:
        first, *more = [*task.others] or [()]
        own = _result(task, _DECIDED) if is_reviewed else []
        item["annotations"] = [{"result": _joined(own, first)}, *({"result": one} for one in more)]
    if is_reviewed:
        return item
    suggested = _result(task, {*_DECIDED, State.PSEUDO})
    if suggested:
        item["predictions"] = [
            {"model_version": task.version, "score": task.score, "result": suggested}
        ]
    return item


def _result(task: ExportedTask, states: Set[State]) -> list[dict[str, Any]]:
    """One result item per control, with the labels that are present in one of these states."""
    chosen: dict[str, tuple[Control, list[Label]]] = {}
    for state in task.labels:
        if state.presence == Presence.PRESENT and state.state in states:
            _, labels = chosen.setdefault(state.control.name, (state.control, []))
            labels.append(state.label)
    return [
        {
            "from_name": control.name,
            "to_name": control.to_name,
            "type": control.kind,
            "value": control.result_value(labels),
        }
        for control, labels in chosen.values()
    ]


def _joined(
    result: list[dict[str, Any]], others: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """A result with other items; the choices of a control stand in one item."""
    own = {item["from_name"]: item["value"] for item in result}
    more: list[Mapping[str, Any]] = []
    for item in others:
        value = own.get(item.get("from_name"))
        if value is None:
            more.append(item)
        else:
            for kind, stored in item["value"].items():
                value[kind] = [*value.get(kind, []), *stored]
    return [*result, *more]
