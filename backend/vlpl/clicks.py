"""Clicks that a task costs with suggestions, beside those that it costs from nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 10
"""Tasks from which on an interval says something: of fewer it is too narrow."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Probabilities that are tried where suggestions cost more than they save."""
RESAMPLES = 400
LEVEL = 0.95
_SEED = 0


class Effect(StrEnum):
    """What suggestions do to the number of clicks, as far as that can be told."""

    SAVE = "save"
    COST = "cost"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Clicks:
    """Means over tasks, with 95 % bootstrap intervals over the tasks (Efron 1979).

    Attributes:
        tasks: how many were measured, 1 at least.
        per_task: clicks to correct the suggestions of a task.
        interval: of ``per_task``.
        from_nothing: clicks where nothing is suggested.
        saved: ``from_nothing`` less ``per_task``; below 0 where suggestions cost clicks.
        saved_interval: of ``saved``; the two numbers of a task are resampled together.
        threshold: a probability for all labels from which on ticks would cost no more than nothing
            on these tasks; None if that was not looked for, or none was found.
    """

    tasks: int
    per_task: float
    interval: tuple[float, float]
    from_nothing: float
    saved: float
    saved_interval: tuple[float, float]
    threshold: float | None = None

    @classmethod
    def of(
        cls, with_suggestions: NDArray[np.int64], from_nothing: NDArray[np.int64]
    ) -> Clicks | None:
        """Of (N,) clicks of the same tasks, see `task_clicks`; None for no task."""
        count = len(with_suggestions)
        if not count:
            return None
        pairs = np.stack([with_suggestions, from_nothing - with_suggestions], axis=1).astype(float)
        generator = np.random.default_rng(_SEED)
        means = np.stack(
            [pairs[generator.integers(count, size=count)].mean(0) for _ in range(RESAMPLES)]
        )
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0).tolist()
        per_task, saved = pairs.mean(0).tolist()
        return cls(
            count,
            per_task,
            (low[0], high[0]),
            float(from_nothing.mean()),
            saved,
            (low[1], high[1]),
        )

    @property
    def effect(self) -> Effect:
        """Unclear if the interval of what is saved holds 0, or tasks are fewer than `FEWEST`."""
        low, high = self.saved_interval
        if self.tasks < FEWEST or low <= 0 <= high:
            return Effect.UNCLEAR
        return Effect.SAVE if low > 0 else Effect.COST

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {
            "tasks": self.tasks,
            "per_task": self.per_task,
            "interval": list(self.interval),
            "from_nothing": self.from_nothing,
            "saved": self.saved,
            "saved_interval": list(self.saved_interval),
            "threshold": self.threshold,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Clicks:
        """Inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or damaged.
        """
        threshold = content["threshold"]
        return cls(
            int(content["tasks"]),
            float(content["per_task"]),
            _interval(content["interval"]),
            float(content["from_nothing"]),
            float(content["saved"]),
            _interval(content["saved_interval"]),
            None if threshold is None else float(threshold),
        )


def task_clicks(
    suggested: NDArray[np.bool_],
    present: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
    *,
    single: bool = False,
) -> NDArray[np.int64]:
    """Clicks of each task: labels to add plus labels to remove.

    Args:
        suggested: (N, C), whether the label is ticked.
        present: (N, C), whether it should be.
        known: (N, C), whether that is known; other labels cost nothing. None: all are.
        single: whether only one label can be ticked: then the click that ticks another one takes
            the former tick away.

    Returns:
        (N,).

    Raises:
        ValueError: the shapes differ.
    """
    if suggested.shape != present.shape or (known is not None and known.shape != present.shape):
        raise ValueError("suggestions, truth and what is known must be of one shape")
    counted = np.ones_like(present) if known is None else known
    add = (present & ~suggested & counted).sum(1)
    remove = (suggested & ~present & counted).sum(1)
    clicks: NDArray[np.int64] = np.maximum(add, remove) if single else add + remove
    return clicks


def harmless_threshold(clicks: Clicks, at: Callable[[float], float]) -> float | None:
    """The least of `THRESHOLDS` at which suggestions would cost no more clicks than nothing.

    Args:
        clicks: as they are.
        at: mean clicks of a task if labels were ticked from this probability on.

    Returns:
        None if none is needed, or if none would do.
    """
    if clicks.effect != Effect.COST:
        return None
    return next((step for step in THRESHOLDS if at(step) <= clicks.from_nothing), None)


def _interval(content: Any) -> tuple[float, float]:
    low, high = content
    return float(low), float(high)
