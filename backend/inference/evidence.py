"""What a person sees beside a suggestion: the probabilities, and the task's confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from backend.labels.controls import Control, all_ticked
from backend.labels.label import Label
from backend.messages.message import Message

BLIND_LINES = (
    Message("No suggestions here, on purpose: please tick what you see."),
    Message(
        "A few tasks are answered unaided, so that it can be measured how good suggestions are."
    ),
)
"""What stands beside a task that is shown without suggestions: nothing of what they would be."""
NEAR_MISSES = 5
"""Labels below the threshold that are shown as well, at most."""


@dataclass(frozen=True)
class ScoredControl:
    """A control with the probabilities (C,) and thresholds (C,) of its labels.

    Attributes:
        control: with this task's labels.
        probabilities: float32, in [0, 1].
        thresholds: labels are ticked from this probability on; above 1: never.
        known: places of labels that the task's data names; they are ticked.
        unreadable: places of labels that the encoder cannot read, so that their probabilities mean
            nothing.
        shown: whether the control is on the screen while the prediction is as it is; in one that
            is not, nothing is ticked.
        hidden: places of labels that are not on the screen then; they are not ticked.
    """

    control: Control
    probabilities: NDArray[np.float32]
    thresholds: Sequence[float]
    known: frozenset[int] = frozenset()
    unreadable: frozenset[int] = frozenset()
    shown: bool = True
    hidden: frozenset[int] = frozenset()

    @cached_property
    def _order(self) -> list[int]:
        """Labels by probability, the first of equals first: the answer depends on no sort."""
        order: list[int] = np.argsort(-self.probabilities, kind="stable").tolist()
        return order

    @cached_property
    def _values(self) -> list[float]:
        values: list[float] = self.probabilities.tolist()
        return values

    @cached_property
    def _ticked(self) -> set[int]:
        if not self.shown:
            return set()
        over = {
            index
            for index, (p, threshold) in enumerate(zip(self._values, self.thresholds, strict=True))
            if p >= threshold
        } | self.known
        return self._allowed(over)

    @cached_property
    def _selected(self) -> set[int]:
        """What the prediction selects: what is ticked, else what the config preselects."""
        return self._ticked or (self._allowed(self._preselected) if self.shown else set())

    def _allowed(self, places: Iterable[int]) -> set[int]:
        """Those that are on the screen; if the control takes so many only, the most probable."""
        shown, most = set(places) - self.hidden, self.control.most_ticks
        if most is None or len(shown) <= most:
            return shown
        ordered = [index for index in self._order if index in shown]
        # What is known is certain; others may be as probable.
        return set(sorted(ordered, key=lambda index: index not in self.known)[:most])

    @property
    def _preselected(self) -> set[int]:
        labels = self.control.labels
        return {index for index, label in enumerate(labels) if label.preselected}

    @property
    def preselected(self) -> list[Label]:
        """Labels that Label Studio selects without a prediction, in the config's order.

        It does so whether the control is shown or not, and whatever is suggested.
        """
        places = sorted(self._preselected)[: self.control.most_ticks]
        return [self.control.labels[index] for index in places]

    @property
    def suggested(self) -> list[Label]:
        """Labels to select, in the config's order: those that are ticked, else the preselected."""
        return [self.control.labels[index] for index in sorted(self._selected)]

    @property
    def near(self) -> list[tuple[Label, float]]:
        """The most probable labels that are not ticked, with their probabilities."""
        rest = (
            index
            for index in self._order
            if index not in self._ticked | self.unreadable | self.hidden
        )
        nearest = islice(rest, NEAR_MISSES)
        return [(self.control.labels[index], self._values[index]) for index in nearest]

    @property
    def ticked(self) -> list[tuple[Label, float]]:
        """Ticked labels with their probabilities, most probable first."""
        ordered = [index for index in self._order if index in self._ticked]
        return [(self.control.labels[index], self._values[index]) for index in ordered]

    @property
    def guessed(self) -> list[tuple[Label, float]]:
        """Those of `ticked` that are not known beforehand."""
        known = {self.control.labels[place] for place in self.known}
        return [item for item in self.ticked if item[0] not in known]

    @property
    def expected_changes(self) -> float:
        """How many boxes a person is expected to change, if the probabilities are right."""
        if not self.shown:
            return 0.0
        return math.fsum(
            1.0 - p if index in self._selected else p
            for index, p in enumerate(self._values)
            if index not in self.unreadable | self.hidden
        )


def with_visibility(
    scored: Sequence[ScoredControl], preselected: Sequence[Control] = ()
) -> list[ScoredControl]:
    """The controls of one task, each with what the rest of the prediction lets be shown of it.

    Args:
        scored: the controls.
        preselected: controls that are left out, with the labels that are selected in them.
    """
    items = list(scored)
    others = {**all_ticked(preselected)}
    conditional = sum(bool(label.conditions) for item in items for label in item.control.labels)
    if conditional:
        # What is hidden ticks nothing, which may hide more: one label after another at worst.
        for _ in range(conditional + 1):
            ticks = others | _ticks(items)
            items = [
                replace(
                    item,
                    hidden=frozenset(
                        place
                        for place, label in enumerate(item.control.labels)
                        if not label.is_shown(ticks)
                    ),
                )
                for item in items
            ]
    if not any(item.control.conditions for item in items):
        return items
    ticks = others | _ticks(items)
    return [replace(item, shown=item.control.is_shown(ticks)) for item in items]


def _ticks(scored: Sequence[ScoredControl]) -> dict[str, frozenset[str]]:
    return {
        item.control.name: frozenset(label.stored for label in item.suggested) for item in scored
    }


def confidence(scored: Sequence[ScoredControl]) -> float:
    """The task's confidence: 1 / (1 + the number of boxes a person is expected to change).

    In (0, 1]: 1 if every box is certain, 0.5 if one change is expected, 0.25 if three are. Label
    Studio's uncertainty sampling serves the lowest first.
    """
    return round(1.0 / (1.0 + sum(control.expected_changes for control in scored)), 6)


def evidence_lines(scored: Sequence[ScoredControl], source: str) -> list[str]:
    """Lines for the read-only TextArea: ticked labels, near misses, and where they come from.

    A label that is known beforehand is no suggestion, although it is ticked.
    """
    lines: list[str] = []
    for item in scored:
        own = list(_lines(item))
        name = item.control.name
        lines += (
            [Message("{control} – {line}", control=name, line=line) for line in own]
            if len(scored) > 1
            else own
        )
    return [*lines, source]


def _lines(item: ScoredControl) -> Iterator[Message]:
    yield Message("suggested: {labels}", labels=_listed(item.guessed) or _nothing(item))
    if item.known:
        names = ", ".join(item.control.labels[place].key for place in sorted(item.known))
        yield Message("known beforehand: {labels}", labels=names)
    if item.suggested and not item.ticked:
        names = ", ".join(label.key for label in item.suggested)
        yield Message("preselected by the labeling config: {labels}", labels=names)
    if item.unreadable:
        names = ", ".join(item.control.labels[place].key for place in sorted(item.unreadable))
        yield Message("cannot be read by the encoder: {labels}", labels=names)
    if item.near:
        yield Message("not ticked: {labels}", labels=_listed(item.near))


def _nothing(item: ScoredControl) -> Message:
    if not item.shown:
        return Message("nothing, it is not shown")
    return Message("nothing beyond what is known") if item.ticked else Message("nothing")


def _listed(labels: Sequence[tuple[Label, float]]) -> str:
    return ", ".join(f"{label.key} {100 * p:.0f} %" for label, p in labels)
