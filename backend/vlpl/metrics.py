"""Measures of multi-label suggestions, over (N, C) tensors; the truth is 0/1 or boolean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.vlpl.clicks import task_clicks


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1, each in [0, 1]; 0 where undefined."""

    precision: float
    recall: float
    f1: float


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Area under each label's precision-recall curve, as in scikit-learn.

    AP = sum over thresholds (R_n - R_(n-1)) P_n; tied scores form one threshold.

    Args:
        scores: (N, C), any real values.
        truth: (N, C), 0 or 1.

    Returns:
        (C,) float64 in [0, 1]; NaN for a label without positives.

    Raises:
        ValueError: the shapes differ.
    """
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise ValueError(f"{tuple(scores.shape)} scores for {tuple(truth.shape)} labels")
    scores, truth = scores.double(), truth.bool()
    ordered, order = scores.sort(dim=0, descending=True, stable=True)
    hits = truth.gather(0, order).double()
    retrieved = hits.cumsum(0)
    precision = retrieved / torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    # Within a run of ties only the precision at its end counts: copy it to the whole run.
    last = torch.ones_like(truth)
    last[:-1] = ordered[:-1] != ordered[1:]
    index = torch.arange(len(scores), device=scores.device)[:, None].expand_as(last)
    ends = torch.where(last, index, len(scores)).flip(0).cummin(0).values.flip(0)
    if not len(scores):
        return retrieved.sum(0)
    return (hits * precision.gather(0, ends)).sum(0) / retrieved[-1]


def mean_average_precision(scores: Tensor, truth: Tensor, min_positives: int = 1) -> float:
    """Mean of `average_precision` over the labels with ``min_positives`` positives or more.

    Args:
        scores: (N, C), any real values.
        truth: (N, C), 0 or 1.
        min_positives: at least 1.

    Returns:
        In [0, 1]; NaN if no label has enough positives.

    Raises:
        ValueError: the shapes differ.
    """
    kept = truth.bool().sum(0) >= max(min_positives, 1)
    if not bool(kept.any()):
        return float("nan")
    return float(average_precision(scores, truth)[kept].mean())


def _rates(hit: Tensor, suggested: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and F1 from counts of any shape; 0 where the denominator is 0."""
    precision = hit / suggested.clamp_min(1)
    recall = hit / true.clamp_min(1)
    return precision, recall, 2 * hit / (suggested + true).clamp_min(1)


def _mean_rates(predicted: Tensor, truth: Tensor, dim: int | None) -> Rates:
    predicted, truth = predicted.bool(), truth.bool()
    if predicted.ndim != 2 or predicted.shape != truth.shape:
        raise ValueError(f"{tuple(predicted.shape)} suggestions for {tuple(truth.shape)} labels")
    both = (predicted & truth, predicted, truth)
    counts = [part.double().sum() if dim is None else part.double().sum(dim) for part in both]
    precision, recall, f1 = (float(part.mean()) for part in _rates(*counts))
    return Rates(precision, recall, f1)


def micro(predicted: Tensor, truth: Tensor) -> Rates:
    """Rates over all (image, label) pairs together.

    Args:
        predicted: (N, C) boolean, whether the label is suggested.
        truth: (N, C), 0 or 1.

    Raises:
        ValueError: the shapes differ.
    """
    return _mean_rates(predicted, truth, None)


def macro(predicted: Tensor, truth: Tensor) -> Rates:
    """Rates of each label, averaged over labels; a label that occurs nowhere counts as 0.

    Arguments and errors as for `micro`.
    """
    return _mean_rates(predicted, truth, 0)


def expected_calibration_error(probability: Tensor, truth: Tensor, bins: int = 15) -> float:
    """ECE = sum over bins n_b / n |mean truth - mean probability| (Naeini et al., AAAI 2015).

    Args:
        probability: in [0, 1], of any shape.
        truth: the same shape, 0 or 1.
        bins: number of bins of equal width over [0, 1].

    Returns:
        In [0, 1].

    Raises:
        ValueError: the shapes differ, or there are no entries.
    """
    p, y = probability.double().flatten(), truth.double().flatten()
    if p.shape != y.shape or not len(p):
        raise ValueError("probabilities and truth must be of one, non-empty shape")
    index = (p * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=p.device).index_add_(0, index, y - p)
    return float(gap.abs().sum() / len(p))


def expected_clicks(predicted: Tensor, truth: Tensor) -> tuple[float, float]:
    """Clicks per image: labels to add plus labels to remove, with and without suggestions.

    Args:
        predicted: (N, C) boolean, whether the label is suggested.
        truth: (N, C), 0 or 1.

    Returns:
        (clicks with suggestions, clicks from an empty task), both means over images.

    Raises:
        ValueError: the shapes differ, or there are no images.
    """
    predicted, truth = predicted.bool(), truth.bool()
    if predicted.shape != truth.shape or not len(truth):
        raise ValueError("suggestions and truth must be of one, non-empty shape")
    clicks = task_clicks(predicted.cpu().numpy(), truth.cpu().numpy())
    return float(clicks.mean()), float(truth.sum(1).double().mean())


def bootstrap_interval(
    metric: Callable[[Tensor, Tensor], float],
    scores: Tensor,
    truth: Tensor,
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric, over images (Efron 1979).

    Args:
        metric: called with resampled rows of scores and truth.
        scores: (N, ...), N >= 1.
        truth: (N, ...).
        resamples: number of resamples of N rows each.
        level: coverage, in (0, 1).
        seed: of the resamples.

    Returns:
        (low, high). Resamples where the metric is NaN are left out; both are NaN if all are.
    """
    values = [metric(scores[rows], truth[rows]) for rows in _resamples(len(truth), resamples, seed)]
    return percentile_interval(torch.tensor(values, dtype=torch.float64), level)


def percentile_interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) that holds this share of the values in its middle.

    Args:
        values: (R,) of a metric on R resamples. NaN is left out; both ends are NaN if all are.
        level: in (0, 1).
    """
    values = values[~values.isnan()]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def bootstrap_map(
    scores: Tensor,
    truth: Tensor,
    *,
    min_positives: int = 1,
    resamples: int = 200,
    seed: int = 0,
) -> Tensor:
    """`mean_average_precision` of resamples of the images, for paired differences (Efron 1979).

    Two rankings of the same images get the same resamples. The labels are those with
    ``min_positives`` positives or more among all images; a resample where one has none goes
    without it.

    Args:
        scores: (N, C), any real values, N >= 1.
        truth: (N, C), 0 or 1.
        min_positives: at least 1.
        resamples: R, of N images each.
        seed: of the resamples.

    Returns:
        (R,) float64 in [0, 1]; NaN if no label has enough positives.
    """
    truth = truth.bool()
    kept = (truth.sum(0) >= max(min_positives, 1)).nonzero().flatten().tolist()
    rows = _resamples(len(truth), resamples, seed)
    # How often each resample holds each image: the images are sorted once per label, not R times.
    times = torch.zeros(rows.shape).scatter_add_(1, rows, torch.ones(rows.shape))
    means = [_resampled_ap(scores[:, label], truth[:, label], times) for label in kept]
    if not means:
        return torch.full((resamples,), float("nan"), dtype=torch.float64)
    return torch.stack(means).nanmean(0)


def _resampled_ap(scores: Tensor, truth: Tensor, times: Tensor) -> Tensor:
    """Average precision of one label, (R,), where resample r holds image n times[r, n] times."""
    ordered, order = scores.double().sort(descending=True, stable=True)
    positive = truth[order].nonzero().flatten()
    # Tied scores form one threshold: the last image with a score like this one's.
    ends = torch.searchsorted(-ordered, -ordered[positive], right=True) - 1
    held = times[:, order]
    true = (held * truth[order]).cumsum(1)
    precision = true[:, ends].double() / held.cumsum(1)[:, ends].clamp_min(1)
    return (held[:, positive] * precision).sum(1) / true[:, -1]


def _resamples(count: int, resamples: int, seed: int) -> Tensor:
    """Rows of ``count`` images drawn with replacement: (resamples, count)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (resamples, count), generator=generator)
