"""Pseudo-labels: what zero-shot scores say about labels that nobody has looked at.

Always from the frozen zero-shot scores, never from a head's own output, which would feed on itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.vlpl.metrics import PseudoQuality
from backend.vlpl.objectives import (
    NEGATIVE,
    POSITIVE,
    PSEUDO_NEGATIVE,
    PSEUDO_POSITIVE,
    UNKNOWN,
    check_labels,
)

TEMPERATURE = 0.01
"""Of the paper's softmax over labels, for CLIP cosines."""
CONFIDENCE = 0.9
FIRST = 60
"""The strictest threshold that `fit_threshold` tests accepts at least so many labels."""
GROWTH = 1.05
_NORMAL_QUANTILE = 1.2815515655446004  # of CONFIDENCE


@dataclass(frozen=True)
class Preset:
    """A rule that turns scores into pseudo-labels.

    Attributes:
        name: ``paper``, ``released`` or ``fitted``.
        score: what the threshold is compared with: ``softmax`` (over the labels, of cosine / 0.01)
            or ``z`` (`zero_shot.fuse`).
        threshold: pseudo-positive if score > threshold; None: no pseudo-positives.
        negative_fraction: the lowest-scored share of an image's labels become pseudo-negatives.
        note: what a person should know about it.
    """

    name: str
    score: Literal["softmax", "z"]
    threshold: float | None
    negative_fraction: float
    note: str = ""


PAPER = Preset("paper", "softmax", 0.3, 0.2, "negatives are live, as in the paper's text")
"""The threshold is the released code's default. The paper's text names no fraction that we could
check; the released code carries 0, 0.1 ... 0.4 as the values tried, of which this is the middle."""
RELEASED = Preset("released", "softmax", 0.3, 0.0, "the published code: no pseudo-negatives")


def softmax_scores(cosine: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """softmax(cosine / temperature) over the labels: (N, C) float32, rows sum to 1."""
    return (cosine.float() / temperature).softmax(dim=1)


def assign(scores: Tensor, observed: Tensor, preset: Preset) -> Tensor:
    """Fill unknown entries with pseudo-labels.

    Args:
        scores: (N, C), of the kind that ``preset.score`` names; only their order matters for
            negatives.
        observed: (N, C) integers, see `backend.vlpl.objectives`; pseudo-labels already in it are
            dropped.
        preset: the rule.

    Returns:
        (N, C) int64. Observed entries are as they were. An entry that is both over the threshold
        and among the lowest stays unknown.

    Raises:
        ValueError: shapes differ, or observed holds other values.
    """
    check_labels(observed)
    if scores.shape != observed.shape:
        raise ValueError(f"{tuple(scores.shape)} scores for {tuple(observed.shape)} labels")
    known = observed.abs() == POSITIVE
    over = torch.zeros_like(known)
    if preset.threshold is not None:
        over = scores > preset.threshold
    count = int(preset.negative_fraction * scores.shape[1])
    low = scores.argsort(dim=1, stable=True).argsort(dim=1) < count
    result = torch.full_like(observed, UNKNOWN, dtype=torch.int64)
    result[over & ~low] = PSEUDO_POSITIVE
    result[low & ~over] = PSEUDO_NEGATIVE
    return torch.where(known, observed.long(), result)


def lower_bound(hits: Tensor, count: Tensor) -> Tensor:
    """One-sided Wilson lower bound of a proportion at confidence 0.9.

    Args:
        hits: number of successes.
        count: number of trials; 0 gives 0.

    Source: Wilson 1927; see Brown, Cai and DasGupta, Statistical Science 2001.
    """
    n = count.double().clamp_min(1)
    share = hits.double() / n
    square = _NORMAL_QUANTILE**2
    centre = share + square / (2 * n)
    width = _NORMAL_QUANTILE * (share * (1 - share) / n + square / (4 * n * n)).sqrt()
    return torch.where(count > 0, (centre - width) / (1 + square / n), 0.0)


def chance(hits: int, count: int, rate: float) -> float:
    """P(X >= hits) for X binomial(count, rate): how surprising that many hits would be.

    At most 1 - `CONFIDENCE` exactly where the Clopper-Pearson lower bound of the proportion at
    that confidence reaches ``rate``.

    Args:
        hits: 0 ... count.
        count: number of trials.
        rate: in (0, 1).
    """
    misses = torch.arange(count - hits + 1, dtype=torch.float64)
    ways = math.lgamma(count + 1) - torch.lgamma(misses + 1) - torch.lgamma(count - misses + 1)
    log = ways + misses * math.log(1 - rate) + (count - misses) * math.log(rate)
    return min(1.0, float(log.logsumexp(0).exp()))


def stages(count: int, first: int) -> list[int]:
    """Sizes of growing sets: ``first``, a twentieth more each time, up to ``count``."""
    sizes = [first]
    while sizes[-1] < count:
        sizes.append(max(sizes[-1] + 1, int(sizes[-1] * GROWTH)))
    return [size for size in sizes if size <= count]


def fit_threshold(
    scores: Tensor, labels: Tensor, target: float = 0.95, negative_fraction: float = 0.5
) -> Preset:
    """The ``fitted`` preset: the lowest threshold whose precision is surely high enough.

    Surely: the lower confidence bound of pseudo-positive precision on reviewed images, not its
    estimate, reaches the target (an estimate fitted to 0.95 misses it on half of all new data).

    Thresholds are tested in a fixed order, the strictest first, and the first that fails ends the
    search (fixed-sequence testing, Angelopoulos et al., "Learn then Test", arXiv 2110.01052). So
    the bound holds for the threshold that is returned; to scan all thresholds for the lowest one
    that passes would find some that pass by luck. The strictest accepts `FIRST` labels, or a
    quarter of the number of images where that is more. The promise, precision below the target in
    at most one of ten projects, takes labels for independent; those of one image are nearly so.

    Args:
        scores: (N, C) z of `zero_shot.fuse`.
        labels: (N, C) observed labels of the same images; unknown entries are left out.
        target: precision to reach, in (0, 1).
        negative_fraction: passed on.

    Returns:
        A preset. Its threshold is None, and its note says so, when even the strictest threshold
        fails, or there are fewer labels than that: with few reviewed images nothing can be sure.

    Raises:
        ValueError: shapes differ.
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
        note = f"no threshold reaches precision {target:g} with confidence {CONFIDENCE:g}"
        note += f" on {images} reviewed images: no pseudo-positives"
        return Preset("fitted", "z", None, negative_fraction, note)
    below = values[last] if last < len(values) else values[last - 1] - 1.0
    note = f"precision {float(hits[last - 1] / last):.3f} on {last} labels"
    return Preset("fitted", "z", float((values[last - 1] + below) / 2), negative_fraction, note)


def quality(pseudo: Tensor, truth: Tensor) -> PseudoQuality:
    """How right pseudo-labels are.

    Args:
        pseudo: (N, C) from `assign`.
        truth: (N, C), 0 or 1.

    Raises:
        ValueError: shapes differ.
    """
    if pseudo.shape != truth.shape:
        raise ValueError(f"{tuple(pseudo.shape)} pseudo-labels for {tuple(truth.shape)} labels")
    present = truth.bool()
    free = (pseudo != POSITIVE) & (pseudo != NEGATIVE)
    positive, negative = pseudo == PSEUDO_POSITIVE, pseudo == PSEUDO_NEGATIVE

    def share(part: Tensor, whole: Tensor) -> float:
        return float(part.sum() / whole.sum()) if bool(whole.any()) else float("nan")

    return PseudoQuality(
        share(positive & present, positive),
        share(positive & present, free & present),
        share(negative & ~present, negative),
        share(positive | negative, free),
        float(positive.sum() / max(len(pseudo), 1)),
    )
