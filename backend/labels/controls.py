"""A control of the labeling config and its labels: what a task may choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

MAX_OPTIONS = 1000
"""Labels that one task may bring along; each has to be embedded while its annotator waits."""


def key_of(stored: Any) -> str:
    """The key of a label as Label Studio stores it: a value, or the way down a tree."""
    return " / ".join(map(str, stored)) if isinstance(stored, list | tuple) else str(stored)


@dataclass(frozen=True)
class Label:
    """One choice of a control.

    Attributes:
        path: what Label Studio stores: ``(value,)``, or the way down a tree.
        text: what the text tower reads unless there are prompts.
        prompts: complete texts to use instead.
        threshold: suggest from this probability on; None: the control's.
    """

    path: tuple[str, ...]
    text: str
    prompts: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def key(self) -> str:
        """The path as one string, unique within its control."""
        return key_of(self.path)


@dataclass(frozen=True)
class Control:
    """A ``<Choices>`` or ``<Taxonomy>`` on an image.

    Attributes:
        name: ``from_name`` of its results.
        to_name: the image tag it labels.
        kind: ``choices`` or ``taxonomy``.
        multiple: whether more than one label may be suggested.
        paths: whether Label Studio stores each label as a list of path elements.
        image_field: the task-data field that holds the image, dots for nesting.
        labels: in the order of the config; empty while ``options_field`` is unread.
        threshold: suggest from this probability on; None: the encoder's own.
        options_field: the task-data field with this task's labels (``value="$options"``).
    """

    name: str
    to_name: str
    kind: str
    multiple: bool
    paths: bool
    image_field: str
    labels: tuple[Label, ...]
    threshold: float | None = None
    options_field: str | None = None

    def for_task(self, data: Mapping[str, Any]) -> Control:
        """The control with this task's own labels, if they come from the task's data."""
        if self.options_field is None:
            return self
        options = field_value(data, self.options_field)
        if not isinstance(options, list):
            return self
        labels = unique_labels(_dynamic_labels(options, (), self.paths))
        return replace(self, labels=tuple(labels[:MAX_OPTIONS]))

    def chosen(self, result: Iterable[Any]) -> list[str] | None:
        """Keys of the labels that result items select in this control, known to it or not.

        None if an item of this control holds something else: it was of another kind once.
        """
        found: list[str] = []
        for item in result:
            if isinstance(item, Mapping) and item.get("from_name") == self.name:
                value = item.get("value")
                stored = value.get(self.kind) if isinstance(value, Mapping) else None
                if not isinstance(stored, list):
                    return None
                found += map(key_of, stored)
        return found

    def result_value(self, labels: list[Label]) -> dict[str, Any]:
        """The ``value`` of a Label Studio result item that selects these labels."""
        stored = [list(label.path) if self.paths else label.path[-1] for label in labels]
        return {self.kind: stored}


def field_value(data: Mapping[str, Any], field: str) -> Any:
    """What stands in the task's data at ``a`` or ``a.b``; None if nothing does."""
    if field in data:
        return data[field]
    value: Any = data
    for part in field.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _dynamic_labels(options: list[Any], above: tuple[str, ...], paths: bool) -> list[Label]:
    found = []
    for option in options:
        entry = option if isinstance(option, Mapping) else {"value": option}
        value = entry.get("value")
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            continue
        text = str(value)
        alias = entry.get("alias")
        stored = alias if isinstance(alias, str) and alias else text
        path = (*above, stored)
        if text.strip() and _is_whole(text + stored):
            found.append(Label(path=path if paths else (stored,), text=text))
        children = entry.get("children")
        if isinstance(children, list):
            found += _dynamic_labels(children, path, paths)
    return found


def _is_whole(text: str) -> bool:
    """False for half a character ("\\ud800" in JSON), which can neither be read nor stored."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def unique_labels(labels: list[Label]) -> list[Label]:
    """Label Studio keeps the first of two equal values; so do we."""
    first: dict[tuple[str, ...], Label] = {}
    for label in labels:
        first.setdefault(label.path, label)
    return list(first.values())


def known_labels(control: Control, data: Mapping[str, Any], field: str) -> frozenset[int]:
    """Places of the labels that a task's data says are on its image.

    Args:
        control: with this task's labels.
        data: of the task.
        field: where it stands: a label, or a list of them; as stored, as shown, or as a path.
    """
    if not field:
        return frozenset()
    value = field_value(data, field)
    wanted = {str(one).strip() for one in (value if isinstance(value, list) else [value])}
    return frozenset(
        place
        for place, label in enumerate(control.labels)
        if wanted & {label.key, label.path[-1], label.text}
    )
