"""Pseudo-labels: guesses from zero-shot scores for labels that nobody has reviewed.

They always come from the frozen zero-shot scores, never from a head's own output: a head trained on
its own guesses would confirm them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.vlpl.decisions import POSITIVE, PSEUDO_NEGATIVE, PSEUDO_POSITIVE, UNKNOWN
from backend.vlpl.objectives import check_labels

CONFIDENCE = 0.9
"""One-sided confidence of `lower_bound` and `fit_threshold`."""
FIRST = 60
"""Fewest entries that the strictest threshold accepts which `fit_threshold` tests."""
GROWTH = 1.05
"""Each threshold accepts this many times as many entries as the one before."""
_NORMAL_QUANTILE = 1.2815515655446004  # of CONFIDENCE


@dataclass(frozen=True)
class Rule:
    """A rule that turns scores into pseudo-labels.

    Attributes:
        threshold: an entry becomes pseudo-positive if its score is above this value, in the units
            of the scores; None: there are no pseudo-positives.
        negative_fraction: share in [0, 1] of an image's labels that become pseudo-negatives: those
            with the lowest scores.
        note: how the rule was found, for a person to read.
    """

    threshold: float | None
    negative_fraction: float
    note: str = ""


def assign(scores: Tensor, observed: Tensor, rule: Rule) -> Tensor:
    """Fill unknown entries with pseudo-labels.

    Args:
        scores: (N, C), of the kind that the rule's threshold was chosen for; for the negatives
            only their order within an image matters.
        observed: (N, C) integers, see `backend.vlpl.objectives`; pseudo-labels already in it are
            dropped.
        rule: the threshold and the share of negatives.

    Returns:
        (N, C) int64. Observed entries are as they were. An entry that is both over the threshold
        and among the lowest stays unknown.

    Raises:
        ValueError: the shapes differ, or observed holds other values.
    """
    check_labels(observed)
    if scores.shape != observed.shape:
        raise ValueError(f"{tuple(scores.shape)} scores for {tuple(observed.shape)} labels")
    known = observed.abs() == POSITIVE
    over = torch.zeros_like(known)
    if rule.threshold is not None:
        over = scores > rule.threshold
    count = int(rule.negative_fraction * scores.shape[1])
    low = scores.argsort(dim=1, stable=True).argsort(dim=1) < count
    result = torch.full_like(observed, UNKNOWN, dtype=torch.int64)
    result[over & ~low] = PSEUDO_POSITIVE
    result[low & ~over] = PSEUDO_NEGATIVE
    return torch.where(known, observed.long(), result)


def lower_bound(hits: Tensor, count: Tensor) -> Tensor:
    """One-sided Wilson lower bound of proportions at confidence 0.9.

    Args:
        hits: numbers of successes, of any shape.
        count: numbers of trials, >= hits; 0 gives 0.

    Returns:
        float64 in [0, 1], of the same shape.

    Source: Wilson 1927; see Brown, Cai and DasGupta, Statistical Science 2001.
    """
    n = count.double().clamp_min(1)
    share = hits.double() / n
    square = _NORMAL_QUANTILE**2
    centre = share + square / (2 * n)
    width = _NORMAL_QUANTILE * (share * (1 - share) / n + square / (4 * n * n)).sqrt()
    return torch.where(count > 0, (centre - width) / (1 + square / n), 0.0)


def chance(hits: int, count: int, rate: float) -> float:
    """P(X >= hits) for X ~ binomial(count, rate): how surprising that many hits would be.

    It is at most 1 - `CONFIDENCE` exactly where the Clopper-Pearson lower bound of the proportion,
    at that confidence, reaches ``rate``.

    Args:
        hits: number of successes, 0 ... count.
        count: number of trials.
        rate: probability of a success, in (0, 1).

    Returns:
        In [0, 1].
    """
    misses = torch.arange(count - hits + 1, dtype=torch.float64)
    ways = math.lgamma(count + 1) - torch.lgamma(misses + 1) - torch.lgamma(count - misses + 1)
    log = ways + misses * math.log(1 - rate) + (count - misses) * math.log(rate)
    return min(1.0, float(log.logsumexp(0).exp()))


def stages(count: int, first: int) -> list[int]:
    """Sizes of growing sets: ``first``, then 5 % more each time, up to ``count``."""
    sizes = [first]
    while sizes[-1] < count:
        sizes.append(max(sizes[-1] + 1, int(sizes[-1] * GROWTH)))
    return [size for size in sizes if size <= count]


def fit_threshold(
    scores: Tensor, labels: Tensor, target: float = 0.95, negative_fraction: float = 0.5
) -> Rule:
    """The lowest threshold whose pseudo-positives reach a precision with confidence.

    The lower confidence bound of the precision on reviewed images has to reach the target, not its
    estimate (an estimate fitted to 0.95 misses 0.95 on half of all new data).

    Thresholds are tested in a fixed order, the strictest first, and the first that fails ends the
    search (fixed-sequence testing, Angelopoulos et al., "Learn then Test", arXiv 2110.01052). So
    the bound holds for the threshold that is returned; searching all thresholds for the lowest one
    that passes would find some that pass by luck. The strictest accepts `FIRST` entries, or a
    quarter of the number of images if that is more. The guarantee, precision below the target in at
    most one of ten projects, assumes independent entries; those of one image nearly are.

    Args:
        scores: (N, C) z of `zero_shot.fuse`.
        labels: (N, C) integers, the observed labels of the same images; unknown entries are left
            out.
        target: precision to reach, in (0, 1).
        negative_fraction: of the rule that is returned, in [0, 1].

    Returns:
        A rule. Its threshold is None, and its note says so, when even the strictest threshold
        fails, or when there are fewer entries than it accepts: a few reviewed images are too little
        evidence.

    Raises:
        ValueError: the shapes differ.
    """
    check_labels(labels)
    if scores.shape != labels.shape:
        raise ValueError(f"{tuple(scores.shape)} scores for {tuple(labels.shape)} labels")
    known = labels.abs() == POSITIVE
    images = int(known.any(1).sum())
    values, order = scores[known].double().sort(descending=True, stable=True)
    hits = (labels[known][order] == POSITIVE).long().cumsum(0)
    last = 0
    for size in stages(len(values), max(FIRST, images // 4)):
        # A threshold cannot cut through equal scores: take all that are tied.
        end = int((values >= values[size - 1]).sum())
        if chance(int(hits[end - 1]), end, target) > 1 - CONFIDENCE:
            break
        last = end
    if not last:
        note = "not guessed, because not even the surest suggestions on the reviewed images "
        note += f"({images}) are known to be right {100 * target:.0f} % of the time"
        return Rule(None, negative_fraction, note)
    below = values[last] if last < len(values) else values[last - 1] - 1.0
    note = "the surest suggestions are taken for true; on reviewed images "
    note += f"{100 * float(hits[last - 1] / last):.0f} % of {last} such are right"
    return Rule(float((values[last - 1] + below) / 2), negative_fraction, note)
