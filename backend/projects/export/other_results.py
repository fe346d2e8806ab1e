"""What annotations hold besides the answers that every format has: counted, or kept as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.labels.config import EVIDENCE_NAME, LabelConfig
from backend.labels.controls import Control
from backend.labels.label import label_key
from backend.training.provenance import unix_time

Item = Mapping[str, Any]
"""Of a Label Studio result."""


class OtherResults:
    """Collects results of other controls: boxes, texts, and choices that no format can hold.

    Args:
        kept: whether they are kept; else they are only counted.

    Attributes:
        of: task id -> the items of each person's last annotation, the newest one first.
        tasks: why a control's answers are not exported -> how many tasks have some.
    """

    def __init__(self, *, kept: bool) -> None:
        self.of: dict[int, Sequence[Sequence[Item]]] = {}
        self.tasks: Counter[str] = Counter()
        self._kept = kept

    def look(self, task: Mapping[str, Any], config: LabelConfig) -> None:
        """Take what an annotated task has.

        Args:
            task: as Label Studio lists it.
            config: of the project, with all controls that are exported.
        """
        last: dict[Any, list[Item]] = {}
        for annotation in sorted(task["annotations"], key=_when):
            # Without a time of work, and made from a prediction: no person has decided.
            is_bulk = annotation.get("lead_time") is None and annotation.get("parent_prediction")
            if annotation.get("was_cancelled") or is_bulk:
                continue
            person = annotation.get("completed_by")
            key = person.get("id") if isinstance(person, Mapping) else person
            # The newest one comes last.
            last.pop(key, None)
            last[key] = [*_others(annotation.get("result") or [], config)]
        found = [items for items in reversed(last.values()) if items]
        names = {item.get("from_name") for items in found for item in items}
        self.tasks.update(reason for name, reason in config.unread if name in names)
        if self._kept and found:
            self.of[int(task["id"])] = found


def _others(result: Sequence[Any], config: LabelConfig) -> Iterator[Item]:
    controls = {control.name: control for control in config.controls}
    for item in result:
        if not isinstance(item, Mapping) or item.get("from_name") == EVIDENCE_NAME:
            continue
        control = controls.get(item.get("from_name", ""))
        if control is None:
            yield item
        elif hidden := _hidden(item, control):
            yield {**item, "value": {control.kind.value: hidden}}


def _hidden(item: Item, control: Control) -> list[Any]:
    """What an item selects that nobody can select in the control any more."""
    value = item.get("value")
    stored = value.get(control.kind) if isinstance(value, Mapping) else None
    entries = stored if isinstance(stored, list) else []
    return [entry for entry in entries if label_key(entry) in control.hidden]


def _when(annotation: Mapping[str, Any]) -> tuple[float, int]:
    return unix_time(annotation, "updated_at", "created_at") or 0.0, int(annotation["id"])
