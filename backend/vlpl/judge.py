"""Whether a new head may take over from the one that serves, by tasks that neither saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from backend.vlpl.metrics import (
    average_precision,
    bootstrap_interval,
    mean_average_precision,
)
from backend.vlpl.objectives import POSITIVE

RESAMPLES = 400
LEVEL = 0.95
MIN_SURE = 5
"""Judged tasks from which a difference can be sure: resampling fewer varies too little."""
COLLAPSE = 0.5
"""A label whose AP falls below this share of what it was has collapsed."""
COLLAPSE_FROM = 5
"""Judged positives of a label from which a fall of its AP is no accident."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison says.

    Attributes:
        accepted: the candidate may serve.
        reason: why, in words.
        metrics: ``mAP``, ``pooled AP`` (all labels ranked together), each in [0, 1] and also with
            the prefix ``serving``, and ``judged`` tasks.
    """

    accepted: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there was anything to judge by."""
        return "mAP" in self.metrics


def judge(
    candidate: Tensor, serving: Tensor, known: Tensor, labels: tuple[str, ...], *, seed: int = 0
) -> Verdict:
    """Accept unless the candidate is surely worse, or a label collapses.

    Surely: the paired bootstrap interval (Efron 1979, 95 %, over `MIN_SURE` tasks or more) of the
    difference of mAP, or of pooled AP, lies below 0. Pooled AP falls when labels are ranked well
    one by one and badly against each other, which mAP does not see.

    Args:
        candidate: (N, C) probabilities of the new head.
        serving: (N, C) of what serves now.
        known: (N, C) integers, `objectives`, of randomly chosen tasks that a person looked at as a
            whole. What is unknown (a label that was added later) is left out of every measure.
        labels: their names.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes differ.
    """
    if candidate.shape != known.shape or serving.shape != known.shape:
        raise ValueError("candidate, serving and what is known differ in shape")
    truth = (known == POSITIVE).double()
    # Below all that is known an entry cannot change any label's ranking.
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
            seed=seed,
        )
        change = measured[name] - measured[f"serving {name}"]
        if high < 0 and len(truth) >= MIN_SURE:
            reason = f"{name} {change:+.3f} (between {low:+.3f} and {high:+.3f}): surely worse"
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
    if not bool(truth.any()):
        return float("nan")
    return float(average_precision(scores.reshape(-1, 1), truth.reshape(-1, 1)))


def _difference(metric: Callable[[Tensor, Tensor], float], both: Tensor, truth: Tensor) -> float:
    """metric(candidate) - metric(serving), of scores side by side: (N, 2 C)."""
    candidate, serving = both.chunk(2, dim=1)
    return metric(candidate, truth) - metric(serving, truth)
