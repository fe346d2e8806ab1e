"""What a person reads beside a suggestion: the probabilities, and the task's confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backend.labels import Control, Label

NEAR_MISSES = 5
"""Labels below the threshold that are shown all the same."""


@dataclass(frozen=True)
class ScoredControl:
    """A control with the probabilities (C,) and thresholds (C) of its labels."""

    control: Control
    probabilities: NDArray[np.float32]
    thresholds: Sequence[float]

    @cached_property
    def _ticked(self) -> list[int]:
        over = [
            index
            for index, (p, threshold) in enumerate(
                zip(self.probabilities, self.thresholds, strict=True)
            )
            if float(p) >= threshold
        ]
        if not self.control.multiple and over:
            # The first of equals, so that the answer does not depend on a sort.
            return [max(over, key=lambda index: (float(self.probabilities[index]), -index))]
        return over

    @property
    def suggested(self) -> list[Label]:
        """Labels to tick, in the config's order."""
        return [self.control.labels[index] for index in self._ticked]

    @property
    def near(self) -> list[tuple[Label, float]]:
        """The most probable labels that are not ticked, with their probabilities."""
        rest = [index for index in range(len(self.probabilities)) if index not in self._ticked]
        rest.sort(key=lambda index: (-float(self.probabilities[index]), index))
        return [
            (self.control.labels[index], float(self.probabilities[index]))
            for index in rest[:NEAR_MISSES]
        ]

    @property
    def ticked(self) -> list[tuple[Label, float]]:
        """Ticked labels with their probabilities, most probable first."""
        ordered = sorted(self._ticked, key=lambda index: (-float(self.probabilities[index]), index))
        return [(self.control.labels[index], float(self.probabilities[index])) for index in ordered]

    @property
    def expected_changes(self) -> float:
        """How many boxes a person is expected to change, if the probabilities are right."""
        ticked = set(self._ticked)
        return sum(
            1.0 - float(p) if index in ticked else float(p)
            for index, p in enumerate(self.probabilities)
        )


def confidence(scored: Sequence[ScoredControl]) -> float:
    """The task's confidence: 1 / (1 + the number of boxes a person is expected to change).

    In (0, 1]: 1 if every box is certain, 0.5 if one change is expected, 0.25 if three are. Label
    Studio's uncertainty sampling serves the lowest first.
    """
    return round(1.0 / (1.0 + sum(one.expected_changes for one in scored)), 6)


def evidence_lines(scored: Sequence[ScoredControl], source: str) -> list[str]:
    """Lines for the read-only TextArea: ticked labels, near misses, and where they come from."""
    lines = []
    for one in scored:
        prefix = f"{one.control.name} – " if len(scored) > 1 else ""
        ticked = _listed(one.ticked) or "nothing"
        lines.append(f"{prefix}suggested: {ticked}")
        if one.near:
            lines.append(f"{prefix}not ticked: {_listed(one.near)}")
    return [*lines, source]


def _listed(labels: Sequence[tuple[Label, float]]) -> str:
    return ", ".join(f"{label.key} {100 * p:.0f} %" for label, p in labels)
