"""Controls of the labeling config and their labels: what an annotator can choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from backend.labels.label import (
    MAX_OPTIONS,
    Label,
    label_key,
    labels_of_options,
    unique_labels,
)
from backend.labels.renames import Renames
from backend.labels.task_values import field_value, fields_of, texts_of, value_of
from backend.labels.visibility import Condition, Ticks, all_met


class ControlKind(StrEnum):
    """The two tags that we predict, by the name that Label Studio gives their results."""

    CHOICES = "choices"
    TAXONOMY = "taxonomy"


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
        image_field: the task-data field that holds the image, dots for nesting; the whole
            attribute if it is more than one field, see ``image_values``.
        labels: in the order of the config; without those that ``options_field`` adds.
        threshold: suggest from this probability in [0, 1] on; None: the encoder's own.
        options_field: the task-data field with this task's further labels (``value="$options"``).
        conditions: under which it is on the screen (``visibleWhen``); empty: always.
        targets: names of all tags that it points at, ``to_name`` among them; empty: only that one.
        former: former keys of its labels, each with the key that replaced it, see `Renames`.
        required: whether an annotator cannot submit without selecting a label in it.
        image_values: ``value`` or ``valueList`` of the images that it points at, where that is
            more than one field with one image; empty: ``$image_field``.
        limit: how many labels may be selected (``maxUsages``); None: any number.
        leaves_only: whether only labels with nothing below them can be selected.
        hidden: keys of other choices of the config: those that nobody can select, or are skipped.
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
    image_values: tuple[str, ...] = ()
    limit: int | None = None
    leaves_only: bool = False
    hidden: tuple[str, ...] = ()

    @cached_property
    def has_own_labels(self) -> bool:
        """Whether its labels differ from task to task, because they come from their data."""
        return self.options_field is not None or self._is_filled_in

    @property
    def _is_filled_in(self) -> bool:
        """Whether a label's name has a reference; Label Studio shows those of a tree as written."""
        return not self.paths and any(label.is_filled_in for label in self.labels)

    @property
    def most_ticks(self) -> int | None:
        """How many labels a prediction may tick; None: any number."""
        return self.limit if self.multiple else 1

    @cached_property
    def data_fields(self) -> frozenset[str]:
        """Keys of a task's data that it reads."""
        texts = [*self._image_values, *([f"${self.options_field}"] if self.options_field else [])]
        # Without a reference a text names no field; those of a tree are shown as written.
        texts += [] if self.paths else [label.text for label in self.labels]
        return frozenset[str]().union(*map(fields_of, texts))

    @property
    def _image_values(self) -> tuple[str, ...]:
        return self.image_values or (f"${self.image_field}",)

    def image_values_of(self, data: Mapping[str, Any]) -> list[str]:
        """The addresses of a task's images for this control, as its data has them, each once."""
        found = [text for value in self._image_values for text in texts_of(value, data)]
        return list(dict.fromkeys(found))

    @cached_property
    def renames(self) -> Renames:
        """What former names of its labels mean today."""
        live = frozenset(label.key for label in self.labels)
        return Renames(dict(self.former), live, self.paths)

    def is_shown(self, ticks: Ticks) -> bool:
        """Whether an annotator who has selected this sees the control."""
        return all_met(self.conditions, ticks)

    def for_task(self, data: Mapping[str, Any]) -> Control:
        """The control with this task's labels.

        Those of the config come first, filled in; then those that the task's data defines, at most
        `MAX_OPTIONS`. What the data calls as a hidden choice of the config is called is none:
        Label Studio would select both.
        """
        if not self.has_own_labels:
            return self
        hidden = {key if self.paths else str(value_of(key, data) or key) for key in self.hidden}
        filled = [(one, one if self.paths else one.filled_in(data)) for one in self.labels]
        labels = [
            label
            for written, label in filled
            if label is not None
            and label.text.strip()
            and (label is written or label.key not in hidden)
        ]
        options = field_value(data, self.options_field) if self.options_field else None
        if isinstance(options, list):
            found = labels_of_options(options, paths=self.paths, leaves_only=self.leaves_only)
            labels += [label for label in found if label.key not in hidden][:MAX_OPTIONS]
        return replace(self, labels=tuple(unique_labels(labels)))

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

    def result_value(self, labels: Iterable[Label]) -> dict[str, Any]:
        """The ``value`` of a Label Studio result item that selects these labels."""
        stored = [list(label.path) if self.paths else label.stored for label in labels]
        return {self.kind.value: stored}


def all_ticked(controls: Iterable[Control]) -> Ticks:
    """What is selected in controls all of whose labels are, see `LabelConfig.preselected`."""
    return {
        control.name: frozenset(label.stored for label in control.labels) for control in controls
    }


_LEFT_OUT_IF = {
    "conditions": (),
    "required": False,
    "image_values": (),
    "limit": None,
    "leaves_only": False,
}
"""Fields of a control that later releases brought, with what they are where they decide nothing."""


def content_of(control: Control) -> dict[str, Any]:
    """All of a control that decides predictions, as JSON-serialisable values.

    What it points at besides its images, former names and what nobody can select decide none, and
    what most controls do not have only where they have it: so that digests stay as they were.
    """
    content = asdict(control)
    content["labels"] = [label.content() for label in control.labels]
    del content["targets"], content["former"], content["hidden"]
    for name, default in _LEFT_OUT_IF.items():
        if getattr(control, name) == default:
            del content[name]
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
    entries = value if isinstance(value, list) else [value]
    given = {str(name).strip() for name in entries if name is not None}
    names = given | {control.renames.current(name) for name in given}
    return frozenset(
        index
        for index, label in enumerate(control.labels)
        if names & {label.key, label.path[-1], label.text}
    )
