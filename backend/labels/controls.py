"""Controls of the labeling config and their labels: what an annotator can choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from backend.labels.renames import SEPARATOR, Renames
from backend.labels.visibility import Condition, Ticks

MAX_OPTIONS = 1000
"""Labels that one task's data may define; each is embedded while its annotator waits."""


class ControlKind(StrEnum):
    """The two tags that we predict, by the name that Label Studio gives their results."""

    CHOICES = "choices"
    TAXONOMY = "taxonomy"


def label_key(stored: Any) -> str:
    """The key of a label, see `Label.key`, from a value or a path as Label Studio stores it."""
    return SEPARATOR.join(map(str, stored)) if isinstance(stored, list | tuple) else str(stored)


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

    @cached_property
    def key(self) -> str:
        """The path as one string, unique within its control."""
        return label_key(self.path)


@dataclass(frozen=True)
class Control:
    """A ``<Choices>`` or ``<Taxonomy>`` on an image.

    The names of the fields, like those of `Label`, are part of `LabelConfig.digest`, except for
    those that `content_of` leaves out.

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
        conditions: under which it is on the screen (``visibleWhen``); empty: always.
        targets: names of all tags that it points at, ``to_name`` among them; empty: only that one.
        former: former keys of its labels, each with the key that replaced it, see `Renames`.
        required: whether an annotator cannot submit without selecting a label in it.
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
    conditions: tuple[Condition, ...] = ()
    targets: tuple[str, ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    required: bool = False

    @cached_property
    def renames(self) -> Renames:
        """What former names of its labels mean today."""
        live = frozenset(label.key for label in self.labels)
        return Renames(dict(self.former), live, self.paths)

    def is_shown(self, ticks: Ticks) -> bool:
        """Whether an annotator who has selected this sees the control."""
        return all(condition.is_met(ticks) for condition in self.conditions)

    def for_task(self, data: Mapping[str, Any]) -> Control:
        """The control with the labels, at most `MAX_OPTIONS`, that this task's data defines."""
        if self.options_field is None:
            return self
        options = field_value(data, self.options_field)
        if not isinstance(options, list):
            return self
        labels = unique_labels(_dynamic_labels(options, (), self.paths))
        return replace(self, labels=tuple(labels[:MAX_OPTIONS]))

    def chosen(self, result: Iterable[Any], *, any_image: bool = False) -> list[str] | None:
        """Keys of the labels that an annotation selects in this control.

        Args:
            result: of the annotation.
            any_image: whether the image tag may have another name, as in another project.

        Returns:
            Keys in order, also of labels that the control does not have (any more), see `keys_of`.
            None if an item does not fit, because the control's tag was changed: it is of another
            kind, or about another image.
        """
        keys: list[str] = []
        for item in result:
            if isinstance(item, Mapping) and item.get("from_name") == self.name:
                value = item.get("value")
                stored = value.get(self.kind) if isinstance(value, Mapping) else None
                target = item.get("to_name") or self.to_name
                fits = any_image or target in {self.to_name, *self.targets}
                if not isinstance(stored, list) or not fits:
                    return None
                keys += self.keys_of(stored)
        return keys

    def keys_of(self, stored: Iterable[Any]) -> list[str]:
        """Keys of labels from how Label Studio stores them, or stored them under a former tag.

        Former names are replaced. Where the tag was changed the stored form is translated if it can
        only mean one label: a path (``allowNested``) selects each of its elements in a flat
        control, a single name the label of a tree that ends in it, and a value the label that has
        an alias by now.
        """
        keys: list[str] = []
        for entry in stored:
            if isinstance(entry, list | tuple) and not self.paths:
                keys += [self._current_key(str(element)) for element in entry]
            else:
                keys.append(self._current_key(label_key(entry)))
        return keys

    def _current_key(self, key: str) -> str:
        current = self.renames.current(key)
        keys = self._keys_by_name.get(current, ())
        return keys[0] if len(keys) == 1 else current

    @cached_property
    def _keys_by_name(self) -> dict[str, tuple[str, ...]]:
        """What a label was called, or is -> the keys of the labels that it may mean."""
        by_name: dict[str, tuple[str, ...]] = {}
        for label in self.labels:
            for name in {label.text, label.path[-1]}:
                by_name[name] = (*by_name.get(name, ()), label.key)
        return by_name | {label.key: (label.key,) for label in self.labels}

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


def content_of(control: Control) -> dict[str, Any]:
    """All of a control that decides predictions, as JSON-serialisable values.

    What it points at besides its image and former names decide none, and conditions and whether it
    is required only where that is so.
    """
    content = asdict(control)
    del content["targets"], content["former"]
    if not control.conditions:
        del content["conditions"]
    if not control.required:
        del content["required"]
    return content


def known_labels(control: Control, data: Mapping[str, Any], field: str) -> frozenset[int]:
    """Indices of the labels that a task's data names as known beforehand.

    Args:
        control: with this task's labels, see `Control.for_task`.
        data: the task's.
        field: the field of the data that holds a label or a list of labels, each given by its key,
            its stored value or its text, or by a former key; empty: there is none.

    Returns:
        Indices into ``control.labels``; values that are not a label are ignored.
    """
    if not field:
        return frozenset()
    value = field_value(data, field)
    given = {str(name).strip() for name in (value if isinstance(value, list) else [value])}
    names = given | {control.renames.current(name) for name in given}
    return frozenset(
        index
        for index, label in enumerate(control.labels)
        if names & {label.key, label.path[-1], label.text}
    )
