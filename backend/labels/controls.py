"""Controls of the labeling config and their labels: what an annotator can choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

MAX_OPTIONS = 1000
"""Labels that one task's data may define; each is embedded while its annotator waits."""


class ControlKind(StrEnum):
    """The two tags that we predict, by the name that Label Studio gives their results."""

    CHOICES = "choices"
    TAXONOMY = "taxonomy"


def label_key(stored: Any) -> str:
    """The key of a label, see `Label.key`, from a value or a path as Label Studio stores it."""
    return " / ".join(map(str, stored)) if isinstance(stored, list | tuple) else str(stored)


@dataclass(frozen=True)
class Label:
    """One choice of a control.

    Attributes:
        path: what Label Studio stores: ``(value,)``, or the path from the root of a tree.
        text: what the text tower reads unless there are prompts.
        prompts: complete texts to use instead.
        threshold: suggest from this probability in [0, 1] on; None: the control's.
    """

    path: tuple[str, ...]
    text: str
    prompts: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def key(self) -> str:
        """The path as one string, unique within its control."""
        return label_key(self.path)


@dataclass(frozen=True)
class Control:
    """A ``<Choices>`` or ``<Taxonomy>`` on an image.

    The names of the fields, like those of `Label`, are part of `LabelConfig.digest`.

    Attributes:
        name: ``from_name`` of its results.
        to_name: the image tag it labels.
        kind: the ``type`` of its results.
        multiple: whether more than one label may be suggested.
        paths: whether Label Studio stores each label as a list of path elements.
        image_field: the task-data field that holds the image, dots for nesting.
        labels: in the order of the config; empty if they come from ``options_field``.
        threshold: suggest from this probability in [0, 1] on; None: the encoder's own.
        options_field: the task-data field with this task's labels (``value="$options"``).
    """

    name: str
    to_name: str
    kind: ControlKind
    multiple: bool
    paths: bool
    image_field: str
    labels: tuple[Label, ...]
    threshold: float | None = None
    options_field: str | None = None

    def for_task(self, data: Mapping[str, Any]) -> Control:
        """The control with the labels, at most `MAX_OPTIONS`, that this task's data defines."""
        if self.options_field is None:
            return self
        options = field_value(data, self.options_field)
        if not isinstance(options, list):
            return self
        labels = unique_labels(_dynamic_labels(options, (), self.paths))
        return replace(self, labels=tuple(labels[:MAX_OPTIONS]))

    def chosen(self, result: Iterable[Any]) -> list[str] | None:
        """Keys of the labels that an annotation selects in this control.

        Args:
            result: of the annotation.

        Returns:
            Keys in order, also of labels that the control does not have (any more). None if an
            item is of another kind, because the control's tag was changed.
        """
        keys: list[str] = []
        for item in result:
            if isinstance(item, Mapping) and item.get("from_name") == self.name:
                value = item.get("value")
                stored = value.get(self.kind) if isinstance(value, Mapping) else None
                if not isinstance(stored, list):
                    return None
                keys += map(label_key, stored)
        return keys

    def result_value(self, labels: list[Label]) -> dict[str, Any]:
        """The ``value`` of a Label Studio result item that selects these labels."""
        stored = [list(label.path) if self.paths else label.path[-1] for label in labels]
        return {self.kind.value: stored}


def field_value(data: Mapping[str, Any], field: str) -> Any:
    """The value of a field in a task's data, dots for nesting; None if there is none."""
    if field in data:
        return data[field]
    value: Any = data
    for part in field.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _dynamic_labels(options: list[Any], above: tuple[str, ...], paths: bool) -> list[Label]:
    labels = []
    for option in options:
        entry = option if isinstance(option, Mapping) else {"value": option}
        value = entry.get("value")
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            continue
        text = str(value)
        alias = entry.get("alias")
        stored = alias if isinstance(alias, str) and alias else text
        path = (*above, stored)
        if text.strip() and _is_encodable(text + stored):
            labels.append(Label(path=path if paths else (stored,), text=text))
        children = entry.get("children")
        if isinstance(children, list):
            labels += _dynamic_labels(children, path, paths)
    return labels


def _is_encodable(text: str) -> bool:
    """Whether the text has no lone surrogate ("\\ud800" in JSON), which UTF-8 cannot encode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def unique_labels(labels: list[Label]) -> list[Label]:
    """The labels without repetitions; the first of equals stays, as in Label Studio."""
    first: dict[tuple[str, ...], Label] = {}
    for label in labels:
        first.setdefault(label.path, label)
    return list(first.values())


def known_labels(control: Control, data: Mapping[str, Any], field: str) -> frozenset[int]:
    """Indices of the labels that a task's data names as known beforehand.

    Args:
        control: with this task's labels, see `Control.for_task`.
        data: the task's.
        field: the field of the data that holds a label or a list of labels, each given by its key,
            its stored value or its text; empty: there is none.

    Returns:
        Indices into ``control.labels``; values that are not a label are ignored.
    """
    if not field:
        return frozenset()
    value = field_value(data, field)
    names = {str(name).strip() for name in (value if isinstance(value, list) else [value])}
    return frozenset(
        index
        for index, label in enumerate(control.labels)
        if names & {label.key, label.path[-1], label.text}
    )
