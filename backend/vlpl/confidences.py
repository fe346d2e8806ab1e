"""How the confidences of a project's tasks are spread, in a form that a store can keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

LEVELS = 101
"""Quantiles that are kept: every hundredth part of the tasks."""


@dataclass(frozen=True)
class Confidences:
    """Quantiles of the confidences of some tasks.

    Attributes:
        quantiles: `LEVELS` of them, from the lowest to the highest; in [0, 1].
        count: tasks that were measured.
    """

    quantiles: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, confidences: Sequence[float]) -> Confidences:
        """The quantiles of these confidences, of which there is at least one."""
        levels = np.quantile(np.asarray(confidences, dtype=np.float64), np.linspace(0, 1, LEVELS))
        return cls(tuple(round(float(level), 6) for level in levels), len(confidences))

    def at(self, share: float) -> float:
        """The confidence that this share of tasks, in [0, 1], does not exceed; 6 digits."""
        grid = np.linspace(0.0, 1.0, LEVELS)
        return round(float(np.interp(share, grid, self.quantiles)), 6)

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable mapping; floats survive the round trip exactly."""
        return {"quantiles": list(self.quantiles), "count": self.count}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidences:
        """Inverse of `as_dict`.

        Raises:
            KeyError: a field is missing.
            ValueError: there are not so many quantiles, or they do not rise, or leave [0, 1].
        """
        quantiles = tuple(float(value) for value in data["quantiles"])
        bounded = (0.0, *quantiles, 1.0)
        if len(quantiles) != LEVELS or not all(map(math.isfinite, quantiles)):
            raise ValueError(f"{LEVELS} finite quantiles are needed")
        if any(low > high for low, high in pairwise(bounded)):
            raise ValueError("quantiles must rise from 0 to 1")
        return cls(quantiles, int(data["count"]))
