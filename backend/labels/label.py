"""One label of a control, and the labels that a task's data brings along (``value="$options"``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from backend.labels.renames import SEPARATOR
from backend.labels.task_values import has_reference, value_of
from backend.labels.visibility import Condition, Ticks, all_met

MAX_OPTIONS = 1000
"""Labels that one task's data may define; each is embedded while its annotator waits."""


def label_key(stored: Any) -> str:
    """The key of a label, see `Label.key`, from a value or a path as Label Studio stores it."""
    return SEPARATOR.join(map(str, stored)) if isinstance(stored, list | tuple) else str(stored)


@dataclass(frozen=True)
class Label:
    """One choice of a control.

    The names of the fields are part of `LabelConfig.digest`, those with their default excepted
    where `content` says so.

    Attributes:
        path: what Label Studio stores: ``(value,)``, or the path from the root of a tree.
        text: what the text tower reads unless there are prompts.
        prompts: complete texts to use instead.
        threshold: suggest from this probability in [0, 1] on; None: the control's.
        conditions: under which it is on the screen (``visibleWhen`` of a ``<View>`` around it
            within the control); empty: always.
        preselected: whether Label Studio ticks it in a task without a prediction.
        skipped: whether it is never predicted (``model_skip``); people are asked for it.
    """

    path: tuple[str, ...]
    text: str
    prompts: tuple[str, ...] = ()
    threshold: float | None = None
    conditions: tuple[Condition, ...] = ()
    preselected: bool = False
    skipped: bool = False

    @cached_property
    def key(self) -> str:
        """The path as one string, unique within its control."""
        return label_key(self.path)

    @property
    def stored(self) -> str:
        """What the annotator's choice is called in results: the last element of the path."""
        return self.path[-1]

    @property
    def is_filled_in(self) -> bool:
        """Whether its name comes from the task's data: ``<Choice value="$field"/>``."""
        return has_reference(self.text)

    def is_shown(self, ticks: Ticks) -> bool:
        """Whether an annotator who has selected this sees the label."""
        return all_met(self.conditions, ticks)

    def filled_in(self, data: Mapping[str, Any]) -> Label | None:
        """The label with the task's data for its references; None if the data lacks one.

        An alias stays as it is written.
        """
        if not self.is_filled_in:
            return self
        text = value_of(self.text, data)
        if not isinstance(text, str | int | float):
            return None
        path = (str(text),) if self.path == (self.text,) else self.path
        return replace(self, path=path, text=str(text))

    def content(self) -> dict[str, Any]:
        """All of the label that decides predictions, as JSON-serialisable values."""
        content = asdict(self)
        # What is skipped is in no prediction, and in no digest.
        del content["skipped"]
        if not self.conditions:
            del content["conditions"]
        if not self.preselected:
            del content["preselected"]
        return content


def prompts_of(text: str) -> tuple[str, ...]:
    """The prompts in a ``model_prompt``: texts with ``|`` between them."""
    return tuple(prompt for part in text.split("|") if (prompt := part.strip()))


def unique_labels(labels: Iterable[Label]) -> list[Label]:
    """The labels without repetitions; the first of equals stays, as in Label Studio."""
    first: dict[tuple[str, ...], Label] = {}
    for label in labels:
        first.setdefault(label.path, label)
    return list(first.values())


def labels_of_options(options: Sequence[Any], *, paths: bool, leaves_only: bool) -> list[Label]:
    """The labels that a list in a task's data defines, in order.

    Args:
        options: objects with a ``value``, and perhaps an ``alias``, ``children``, ``selected``,
            ``visible``, ``readonly``. Label Studio shows an empty box for anything else.
        paths: whether it is a tree, whose labels are stored as paths; else children are not shown.
        leaves_only: whether only what has no children can be selected.
    """
    return _options(options, (), paths=paths, leaves_only=leaves_only)


def _options(
    options: Sequence[Any],
    above: tuple[str, ...],
    *,
    paths: bool,
    leaves_only: bool,
) -> list[Label]:
    labels = []
    seen: set[str] = set()
    for option in options:
        if not isinstance(option, Mapping):
            continue
        text = option.get("value")
        # Of equal branches of a tree Label Studio shows the first only.
        if not isinstance(text, str) or (paths and text in seen):
            continue
        seen.add(text)
        alias = option.get("alias")
        stored = alias if isinstance(alias, str) and alias else text
        path = (*above, stored)
        children = option.get("children") if paths else None
        below = children if isinstance(children, list) else []
        can_be_chosen = paths or not (
            option.get("visible") is False or option.get("readonly") is True
        )
        if text.strip() and _is_encodable(text + stored) and can_be_chosen:
            chosen = option.get("selected") is True
            if not (leaves_only and below):
                labels.append(Label(path if paths else (stored,), text, preselected=chosen))
        labels += _options(below, path, paths=paths, leaves_only=leaves_only)
    return labels


def _is_encodable(text: str) -> bool:
    """Whether the text has no lone surrogate ("\\ud800" in JSON), which UTF-8 cannot encode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
