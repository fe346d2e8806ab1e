"""Whether a new head may replace the serving one, judged on tasks that neither was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import isnan

import torch
from torch import Tensor

from backend.vlpl.decisions import POSITIVE
from backend.vlpl.metrics import (
    average_precision,
    bootstrap_interval,
    bootstrap_map,
    mean_average_precision,
    percentile_interval,
)

RESAMPLES = 400
LEVEL = 0.95
MIN_SIGNIFICANT = 5
"""Fewest judged tasks for a significant difference: resamples of fewer vary too little."""
TOLD_FROM = 20
"""Fewest judged tasks of which a difference is told: the intervals of fewer are too narrow."""
MIN_POSITIVES = 3
"""Fewest judged positives of a label that counts in mAP, and of all labels for a rejection: the
average precision of fewer is chance."""
COLLAPSE = 0.5
"""A label has collapsed if its AP falls below this share of what it was."""
COLLAPSE_FROM = 5
"""Fewest judged positives of a label for which a fall of its AP counts."""


class Measure(StrEnum):
    """What is compared; the values are keys of `Verdict.metrics`."""

    MAP = "mAP"
    POOLED = "pooled AP"


class Ground(StrEnum):
    """What a verdict rests on."""

    NO_TASK = "no judged task"
    NO_POSITIVE = "no judged positive"
    FEW_TASKS = "too few judged tasks"
    FEW_POSITIVES = "no label with enough judged positives"
    NO_WORSE = "not significantly worse"
    WORSE = "significantly worse"
    COLLAPSED = "a label collapses"


@dataclass(frozen=True)
class Difference:
    """A measure of the candidate less that of the serving head, in [-1, 1].

    Attributes:
        measure: of what.
        value: on all judged tasks.
        low: lower end of its paired bootstrap interval (Efron 1979; 95 %).
        high: the upper end.
    """

    measure: Measure
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Attributes:
        accepted: whether the candidate may serve.
        ground: why, or what is missing to say more.
        metrics: ``mAP``, over labels with `MIN_POSITIVES` judged positives or more, and ``pooled
            AP`` (all labels ranked together) of the candidate, in [0, 1]; the same of the serving
            head with the prefix ``serving``; ``mAP low`` and ``mAP high``, the interval of the
            difference of mAP; and ``judged``, the number of tasks. What cannot be measured is
            missing.
        judged: number of judged tasks.
        most_positives: judged positives of the label that has the most.
        difference: what decided; None without a measure.
        fallen: the labels that collapse.
    """

    accepted: bool
    ground: Ground
    metrics: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    most_positives: int = 0
    difference: Difference | None = None
    fallen: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether there was a judged positive to measure with."""
        return Measure.POOLED in self.metrics


def judge(candidate: Tensor, serving: Tensor, known: Tensor, labels: tuple[str, ...]) -> Verdict:
    """Accept the candidate unless it is significantly worse, or a label collapses.

    Significantly: the interval of the difference of mAP, or of pooled AP, lies below 0, on
    `MIN_SIGNIFICANT` tasks with `MIN_POSITIVES` positives or more. Pooled AP falls when each label
    ranks the tasks well, but the labels rank badly against each other, which mAP does not show.

    Args:
        candidate: (N, C) probabilities of the new head.
        serving: (N, C) probabilities of the head that serves now.
        known: (N, C) integers, see `objectives`, of randomly chosen tasks whose whole image a
            person reviewed. An unknown entry (of a label that was added later) is left out of every
            measure.
        labels: the C label names.

    Raises:
        ValueError: the shapes differ.
    """
    if candidate.shape != known.shape or serving.shape != known.shape:
        raise ValueError("candidate, serving and what is known differ in shape")
    truth = (known == POSITIVE).double()
    # An entry that ranks below every known one changes no average precision.
    unknown = known.abs() != POSITIVE
    candidate = candidate.double().masked_fill(unknown, -torch.inf)
    serving = serving.double().masked_fill(unknown, -torch.inf)
    count, positives = len(truth), truth.sum(0)
    metrics = {"judged": float(count)}
    if not count or not bool(truth.any()):
        return Verdict(True, Ground.NO_POSITIVE if count else Ground.NO_TASK, metrics, count)
    differences = []
    for name, difference in (
        (Measure.MAP, _map_difference),
        (Measure.POOLED, _pooled_difference),
    ):
        new, old, low, high = difference(candidate, serving, truth)
        if not isnan(new):
            differences.append(Difference(name, new - old, low, high))
            metrics |= {name: new, f"serving {name}": old}
            if name == Measure.MAP:
                metrics |= {"mAP low": low, "mAP high": high}
    told = differences[0]
    evident = count >= MIN_SIGNIFICANT and int(positives.sum()) >= MIN_POSITIVES
    worse = next((one for one in differences if one.high < 0), None) if evident else None
    most = int(positives.max())
    if worse is not None:
        return Verdict(False, Ground.WORSE, metrics, count, most, worse)
    mine, theirs = average_precision(candidate, truth), average_precision(serving, truth)
    fallen = ((mine < COLLAPSE * theirs) & (positives >= COLLAPSE_FROM)).tolist()
    names = tuple(label for label, bad in zip(labels, fallen, strict=True) if bad)
    if names:
        return Verdict(False, Ground.COLLAPSED, metrics, count, most, told, names)
    ground = Ground.NO_WORSE
    if told.measure != Measure.MAP:
        ground = Ground.FEW_POSITIVES
    if count < TOLD_FROM:
        ground = Ground.FEW_TASKS
    return Verdict(True, ground, metrics, count, most, told)


def _map_difference(
    candidate: Tensor, serving: Tensor, truth: Tensor
) -> tuple[float, float, float, float]:
    """mAP of both, and the interval of their difference; NaN without a label that counts."""
    mine = mean_average_precision(candidate, truth, MIN_POSITIVES)
    theirs = mean_average_precision(serving, truth, MIN_POSITIVES)
    resampled = [
        bootstrap_map(scores, truth, min_positives=MIN_POSITIVES, resamples=RESAMPLES)
        for scores in (candidate, serving)
    ]
    return (mine, theirs, *percentile_interval(resampled[0] - resampled[1], LEVEL))


def _pooled_difference(
    candidate: Tensor, serving: Tensor, truth: Tensor
) -> tuple[float, float, float, float]:
    """The same of pooled AP."""
    both = torch.cat([candidate, serving], dim=1)
    interval = bootstrap_interval(_difference, both, truth, resamples=RESAMPLES, level=LEVEL)
    return (_pooled(candidate, truth), _pooled(serving, truth), *interval)


def _pooled(scores: Tensor, truth: Tensor) -> float:
    """Average precision of all (task, label) entries ranked together; NaN without a positive."""
    if not bool(truth.any()):
        return float("nan")
    return float(average_precision(scores.reshape(-1, 1), truth.reshape(-1, 1)))


def _difference(both: Tensor, truth: Tensor) -> float:
    """Pooled AP of the candidate less that of the serving head, side by side: (N, 2 C)."""
    candidate, serving = both.chunk(2, dim=1)
    return _pooled(candidate, truth) - _pooled(serving, truth)
