"""How good a head is at each of its labels, and where too little is known to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from backend.vlpl.decisions import POSITIVE
from backend.vlpl.judge import MIN_POSITIVES
from backend.vlpl.metrics import average_precision


class Source(StrEnum):
    """Which tasks a label's figures come from; the values stand in files and in JSON answers."""

    JUDGED = "judged"
    """Randomly chosen tasks that the head was not trained on."""
    CROSS_VALIDATION = "cross-validation"
    """Tasks that it was trained on, by heads that were fitted without them."""
    NONE = "none"
    """There are too few positives of either."""


@dataclass(frozen=True)
class LabelFigures:
    """Of one label.

    Attributes:
        label: its key.
        reviewed: reviewed tasks that have it.
        judged: those of them that the head was judged on.
        source: where the next three come from.
        average_precision: in [0, 1]; None without a source.
        precision: share of its ticks that are right, in [0, 1]; None without a source or a tick.
        recall: share of the tasks with it on which it is ticked, in [0, 1]; None without a source.
        missing: positives without which the figures come from a lesser source than judged tasks:
            judged ones, or without any source of either kind.
    """

    label: str
    reviewed: int
    judged: int
    source: Source
    average_precision: float | None = None
    precision: float | None = None
    recall: float | None = None
    missing: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**self.__dict__, "source": self.source.value}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelFigures:
        """Inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or damaged.
        """
        return cls(
            str(content["label"]),
            int(content["reviewed"]),
            int(content["judged"]),
            Source(content["source"]),
            _rate(content["average_precision"]),
            _rate(content["precision"]),
            _rate(content["recall"]),
            int(content["missing"]),
        )


@dataclass(frozen=True)
class Held:
    """Predictions for tasks that were not trained on.

    Attributes:
        probability: (N, C) in [0, 1].
        known: (N, C) integers, see `objectives`.
    """

    probability: Tensor
    known: Tensor


def label_figures(
    labels: Sequence[str],
    reviewed: Sequence[int],
    judged: Held,
    held_out: Held,
    thresholds: Sequence[float],
    *,
    single: bool = False,
) -> tuple[LabelFigures, ...]:
    """The figures of each label, of judged tasks where these have `MIN_POSITIVES` of it.

    Args:
        labels: the C labels.
        reviewed: per label, the reviewed tasks that have it.
        judged: of randomly chosen tasks.
        held_out: of the tasks that the head was trained on, by cross-validation.
        thresholds: per label, it is ticked from this probability on.
        single: whether only the most probable of the labels over their thresholds is ticked.
    """
    by_source = [
        (Source.JUDGED, _rates(judged, thresholds, single)),
        (Source.CROSS_VALIDATION, _rates(held_out, thresholds, single)),
    ]
    figures = []
    for place, (label, support) in enumerate(zip(labels, reviewed, strict=True)):
        positives = [rates.positives[place] for _, rates in by_source]
        found = next(
            (
                (source, rates)
                for (source, rates), count in zip(by_source, positives, strict=True)
                if count >= MIN_POSITIVES
            ),
            None,
        )
        if found is None:
            missing = MIN_POSITIVES - max(positives)
            figures.append(LabelFigures(label, support, positives[0], Source.NONE, missing=missing))
            continue
        source, rates = found
        figures.append(
            LabelFigures(
                label,
                support,
                positives[0],
                source,
                _finite(rates.average_precision[place]),
                _finite(rates.precision[place]),
                _finite(rates.recall[place]),
                max(0, MIN_POSITIVES - positives[0]),
            )
        )
    return tuple(figures)


@dataclass(frozen=True)
class _Rates:
    """Per label; NaN where undefined."""

    positives: list[int]
    average_precision: list[float]
    precision: list[float]
    recall: list[float]


def _rates(held: Held, thresholds: Sequence[float], single: bool) -> _Rates:
    known = held.known.abs() == POSITIVE
    truth = held.known == POSITIVE
    ticked = held.probability >= torch.tensor(thresholds, dtype=held.probability.dtype)
    if single and len(ticked):
        best = held.probability.masked_fill(~ticked, -1.0).argmax(1, keepdim=True)
        ticked &= torch.zeros_like(ticked).scatter(1, best, True)
    hits, ticks = (ticked & truth).sum(0).double(), (ticked & known).sum(0).double()
    positives = truth.sum(0)
    ranked = held.probability.double().masked_fill(~known, -torch.inf)
    return _Rates(
        positives.tolist(),
        average_precision(ranked, truth).tolist(),
        (hits / ticks).tolist(),
        (hits / positives).tolist(),
    )


def _rate(content: Any) -> float | None:
    return None if content is None else float(content)


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
