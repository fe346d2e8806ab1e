"""From calibrated probabilities to decisions.

Thresholds are fitted on held-out predictions (`selection.Selection.held_out`, or images kept
aside), never on rows that the head was trained on: there a head is overconfident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.vlpl.pseudo_labels import lower_bound, stages

Goal = Literal["precision", "recall", "f1"]
SHRINK = 20.0
"""Strength of the shrinkage of a label's rates towards the global ones, in entries."""
NEVER = 2.0
"""A threshold above every probability: the label is never suggested."""
EVIDENCE = 20
"""A precision that was measured on fewer suggestions than this counts as 0."""


@dataclass(frozen=True)
class _Counts:
    """Counts at each of T thresholds.

    Attributes:
        kept: (T, C) number of entries at or above the threshold.
        hits: (T, C) number of true entries among them.
        true: (1, C) number of true entries in all.
    """

    kept: Tensor
    hits: Tensor
    true: Tensor

    @classmethod
    def of(cls, probability: Tensor, truth: Tensor, grid: Tensor) -> _Counts:
        """Count (N, C) probabilities and truth; ``grid`` has T thresholds, ascending."""
        bucket = torch.bucketize(probability, grid, right=True)
        size = (len(grid) + 1, probability.shape[1])
        empty = torch.zeros(size, dtype=torch.float64)
        kept = empty.scatter_add(0, bucket, torch.ones_like(probability))
        hits = empty.scatter_add(0, bucket, truth)
        # An entry with bucket k is at or above the thresholds 0 ... k - 1.
        above = [part.flip(0).cumsum(0).flip(0)[1:] for part in (kept, hits)]
        return cls(above[0], above[1], truth.sum(0, keepdim=True))

    def ratio(self, goal: Goal) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of the goal's rate, (T, C)."""
        if goal == "precision":
            return self.hits, self.kept
        if goal == "recall":
            return self.hits, self.true.expand_as(self.hits)
        return self.hits, (self.kept + self.true) / 2

    def pooled(self) -> _Counts:
        """The counts of all labels together, as one column."""
        return _Counts(*(part.sum(1, keepdim=True) for part in (self.kept, self.hits, self.true)))


def _grid(p: Tensor) -> Tensor:
    """Ascending thresholds: 0, and values each of which keeps 5 % more entries than the next."""
    values = p.flatten().sort(descending=True).values
    picked = values[torch.tensor([size - 1 for size in stages(len(values), 1)])]
    grid: Tensor = torch.cat([picked, picked.new_zeros(1)]).unique()
    return grid


def _first_failure(grid: Tensor, rate: Tensor, goal: Goal, target: float) -> Tensor:
    """The threshold that serves a goal, one for each column of a (T, C) rate: (C,).

    Precision: starting at the strictest threshold that reaches the target, the lowest before one
    fails. Recall: starting at the laxest, the highest before one fails. F1: the best.
    """
    if goal == "f1":
        best: Tensor = grid[rate.argmax(0)]
        return best
    good = rate >= target
    steps = torch.arange(len(grid))[:, None]
    if goal == "recall":
        bad = torch.where(good, len(grid), steps).amin(0)
        highest: Tensor = grid[(bad - 1).clamp_min(0)]
        return torch.where(bad > 0, highest, 0.0)
    top = torch.where(good, steps, -1).amax(0)
    bad = torch.where(~good & (steps < top), steps, -1).amax(0)
    lowest: Tensor = grid[(bad + 1).clamp_max(len(grid) - 1)]
    return torch.where(top >= 0, lowest, NEVER)


def label_thresholds(
    probability: Tensor,
    truth: Tensor,
    goal: Goal = "precision",
    target: float = 0.9,
    shrink: float = SHRINK,
) -> tuple[Tensor, float]:
    """Thresholds per label for a goal, shrunk towards the global one for rare labels.

    The global rate P(t), over all labels together, is not the measured one but its lower confidence
    bound (Wilson, 90 % one-sided): a threshold fitted to the estimate of precision 0.9 misses 0.9
    on half of all new images. Thresholds are tried from the strict end (for recall from the lax
    end) and the first failure ends the search, see `pseudo_labels.fit_threshold`. A label's counts
    at t are pooled with ``shrink`` pseudo-counts at that bound, precision_c(t) = (tp_c + m P(t)) /
    (suggested_c + m), likewise recall over positives and F1 over their mean, where P is the plain
    rate. So a label without any positive gets the global threshold, and one with many positives
    its own. A precision counts only from `EVIDENCE` suggestions on.

    The goal is met on average over new images (mean over random splits) and over all labels
    together; a single label or a single project may miss it.

    Args:
        probability: (N, C) calibrated and held out, in [0, 1].
        truth: (N, C), 0 or 1.
        goal: which rate to reach.
        target: value of that rate, in (0, 1]; ignored for "f1", which is maximised.
        shrink: m, >= 0, in entries.

    Returns:
        Thresholds (C,) float64, and the global one. `NEVER` where the precision cannot be reached,
        for every label if all labels together do not reach it; 0 where the recall cannot.

    Raises:
        ValueError: the shapes differ, or there are no images or labels.

    Source: the shrinkage follows the warning of Lin and Lin, "On the thresholding strategy for
    infrequent labels in multi-label classification", CIKM 2023.
    """
    if probability.ndim != 2 or probability.shape != truth.shape or not probability.numel():
        raise ValueError("probabilities and truth must be of one, non-empty (N, C) shape")
    p, y = probability.double(), truth.double()
    grid = _grid(p)
    counts = _Counts.of(p, y, grid)
    top, bottom = counts.pooled().ratio(goal)
    rate = top / bottom.clamp_min(1e-9) if goal == "f1" else lower_bound(top, bottom)
    if goal == "precision":
        rate = rate.where(bottom >= EVIDENCE, 0.0)
    overall = float(_first_failure(grid, rate, goal, target))
    if overall > 1.0:
        return torch.full((p.shape[1],), NEVER, dtype=torch.float64), overall
    top, bottom = counts.ratio(goal)
    shrunk = (top + shrink * rate) / (bottom + shrink).clamp_min(1e-9)
    return _first_failure(grid, shrunk, goal, target), overall
