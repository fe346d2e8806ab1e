"""Whether a new head may replace the serving one, judged on tasks that neither was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from backend.vlpl.metrics import average_precision, bootstrap_interval, mean_average_precision
from backend.vlpl.objectives import POSITIVE

RESAMPLES = 400
LEVEL = 0.95
MIN_SIGNIFICANT = 5
"""Fewest judged tasks for a significant difference: resamples of fewer vary too little."""
COLLAPSE = 0.5
"""A label has collapsed if its AP falls below this share of what it was."""
COLLAPSE_FROM = 5
"""Fewest judged positives of a label for which a fall of its AP counts."""


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Attributes:
        accepted: whether the candidate may serve.
        reason: why, in words.
        metrics: ``mAP`` and ``pooled AP`` (all labels ranked together) of the candidate, in [0, 1];
            the same of the serving head with the prefix ``serving``; and ``judged``, the number of
            tasks. Without any judged positive, ``judged`` alone.
    """

    accepted: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there was a judged positive to measure with."""
        return "mAP" in self.metrics


def judge(candidate: Tensor, serving: Tensor, known: Tensor, labels: tuple[str, ...]) -> Verdict:
    """Accept the candidate unless it is significantly worse, or a label collapses.

    Significantly: the paired bootstrap interval (Efron 1979; 95 %, `MIN_SIGNIFICANT` tasks or more)
    of the difference of mAP, or of pooled AP, lies below 0. Pooled AP falls when each label ranks
    the tasks well, but the labels rank badly against each other, which mAP does not show.

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
    if not len(truth) or not bool(truth.any()):
        return Verdict(
            True, "no randomly chosen task with a label to judge it by", {"judged": len(truth)}
        )
    measured = {
        "judged": float(len(truth)),
        "mAP": mean_average_precision(candidate, truth),
        "serving mAP": mean_average_precision(serving, truth),
        "pooled AP": _pooled(candidate, truth),
        "serving pooled AP": _pooled(serving, truth),
    }
    for name, metric in (("mAP", mean_average_precision), ("pooled AP", _pooled)):
        low, high = bootstrap_interval(
            partial(_difference, metric),
            torch.cat([candidate, serving], dim=1),
            truth,
            resamples=RESAMPLES,
            level=LEVEL,
        )
        change = measured[name] - measured[f"serving {name}"]
        if high < 0 and len(truth) >= MIN_SIGNIFICANT:
            interval = f"between {low:+.3f} and {high:+.3f}"
            reason = f"{name} {change:+.3f} ({interval}): significantly worse"
            return Verdict(False, reason, measured)
    mine, theirs = average_precision(candidate, truth), average_precision(serving, truth)
    fallen = (mine < COLLAPSE * theirs) & (truth.bool().sum(0) >= COLLAPSE_FROM)
    if bool(fallen.any()):
        names = ", ".join(label for label, bad in zip(labels, fallen.tolist(), strict=True) if bad)
        return Verdict(False, f"these labels collapse: {names}", measured)
    change = measured["mAP"] - measured["serving mAP"]
    reason = f"mAP {change:+.3f} on {len(truth)} randomly chosen tasks"
    return Verdict(True, reason, measured)


def _pooled(scores: Tensor, truth: Tensor) -> float:
    """Average precision of all (task, label) entries ranked together; NaN without a positive."""
    if not bool(truth.any()):
        return float("nan")
    return float(average_precision(scores.reshape(-1, 1), truth.reshape(-1, 1)))


def _difference(metric: Callable[[Tensor, Tensor], float], both: Tensor, truth: Tensor) -> float:
    """metric(candidate) - metric(serving), of the scores of both side by side: (N, 2 C)."""
    candidate, serving = both.chunk(2, dim=1)
    return metric(candidate, truth) - metric(serving, truth)
