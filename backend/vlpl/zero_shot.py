"""Zero-shot scores: how well each label's text fits an image, made comparable across labels.

Cosines of an image with the label texts are biased twice: some labels score high on every image,
some images score high on every label. So the scores of the whole image and of its best cell are
standardised per label, summed, and standardised per image (SPARC, CVPR 2025, does the same to CLIP
scores). Per-image standardisation over a handful of labels would erase the signal (with one label
everything becomes 0, with two always +1 and -1), so the image's mean and variance are shrunk
towards their population values as if `PRIOR_LABELS` neutral labels had been scored too.

All functions are batch-invariant to the bit, see `backend.vlpl.exact`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.vlpl import exact

PRIOR_LABELS = 20.0
"""Strength of the shrinkage of the per-image mean and variance, in labels."""
MIN_STD = 1e-3
"""Floor of a cosine's standard deviation, so that z stays bounded if all images are alike."""
MIN_SPREAD = 0.5
"""The same for the sum of both standardised scores, where 1 to 2 is usual."""
BLOCK = 200_000
"""Images times labels that are scored at once, to bound memory."""
_MIN_NORM = 1e-6
DEFAULT_SPREAD = 0.05
"""Standard deviation of a cosine over labels, if nothing has been measured yet."""


@dataclass(frozen=True)
class Statistics:
    """Frozen per-label standardisation: part of a model version, replaced only by a new version.

    Attributes:
        global_mean: (C,) mean cosine of whole images over the measured images.
        global_std: (C,) its standard deviation.
        cell_mean: (C,) the same for the best cell; None if the encoder gives no cells.
        cell_std: (C,) its standard deviation, or None.
        spread: standard deviation, over images and labels, of the summed standardised scores.
        count: number of measured images.
    """

    global_mean: tuple[float, ...]
    global_std: tuple[float, ...]
    cell_mean: tuple[float, ...] | None
    cell_std: tuple[float, ...] | None
    spread: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable mapping; floats survive the round trip exactly."""
        return {
            "global_mean": list(self.global_mean),
            "global_std": list(self.global_std),
            "cell_mean": None if self.cell_mean is None else list(self.cell_mean),
            "cell_std": None if self.cell_std is None else list(self.cell_std),
            "spread": self.spread,
            "count": self.count,
        }

    def of(self, labels: Sequence[int]) -> Statistics:
        """The statistics of some of the labels, by their places."""

        def some(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(values[place] for place in labels)

        return replace(
            self,
            global_mean=some(self.global_mean),
            global_std=some(self.global_std),
            cell_mean=None if self.cell_mean is None else some(self.cell_mean),
            cell_std=None if self.cell_std is None else some(self.cell_std),
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        """Inverse of `as_dict`.

        Raises:
            KeyError: a field is missing.
            ValueError: the lists differ in length, a value is not finite, or a deviation is not
                positive.
        """

        def floats(name: str) -> tuple[float, ...] | None:
            values = data[name]
            return None if values is None else tuple(float(value) for value in values)

        mean, std = floats("global_mean"), floats("global_std")
        cell_mean, cell_std = floats("cell_mean"), floats("cell_std")
        if mean is None or std is None or (cell_mean is None) != (cell_std is None):
            raise ValueError("statistics need a mean and a standard deviation together")
        if len({len(x) for x in (mean, std, cell_mean, cell_std) if x is not None}) != 1:
            raise ValueError("statistics differ in their number of labels")
        spread = float(data["spread"])
        deviations = (*std, *(cell_std or ()), spread)
        if not all(map(math.isfinite, (*mean, *(cell_mean or ()), *deviations))):
            raise ValueError("statistics must be finite")
        if min(deviations) <= 0:
            raise ValueError("standard deviations must be positive")
        return cls(mean, std, cell_mean, cell_std, spread, int(data["count"]))


class LabelVectors(NamedTuple):
    """Text embeddings of labels as `raw_scores` needs them, from `label_vectors`.

    Attributes:
        weights: (C, D) float64, on the grid `exact.TEXT_GRID`.
        norms: (C,) float64, their lengths.
    """

    weights: Tensor
    norms: Tensor


def label_vectors(text: Tensor) -> LabelVectors:
    """Text embeddings, rounded and measured once for any number of images.

    Args:
        text: (C, D), L2-normalised.

    Raises:
        ValueError: embeddings are not finite and normalised.
    """
    weights = exact.on_grid(text, exact.TEXT_GRID)
    norms = exact.squared_norm(weights).sqrt()
    if not bool((norms <= exact.MAX_NORM).all()):
        raise ValueError("text embeddings must be finite and L2-normalised")
    return LabelVectors(weights, norms)


def raw_scores(
    image: Tensor, cells: Tensor | None, labels: LabelVectors
) -> tuple[Tensor, Tensor | None]:
    """Cosine similarities of whole images and of their best cells with each label.

    Embeddings are rounded to float16 first, as the store keeps them, so that a fresh and a stored
    embedding give the same bytes.

    Args:
        image: (N, D), L2-normalised.
        cells: (N, K, D), L2-normalised, or None.
        labels: C label embeddings of dimension D.

    Returns:
        Global scores (N, C), and best-cell scores (N, C) or None; float32 in [-1, 1].

    Raises:
        ValueError: the shapes do not fit, or embeddings are not finite and normalised.
    """
    weights = labels.weights
    if image.ndim != 2 or weights.ndim != 2 or image.shape[1] != weights.shape[1]:
        raise ValueError(f"cannot score {tuple(image.shape)} against {tuple(weights.shape)}")
    if cells is not None and (
        cells.ndim != 3 or cells.shape[::2] != image.shape or cells.shape[1] == 0
    ):
        raise ValueError(f"cells {tuple(cells.shape)} do not fit images {tuple(image.shape)}")
    whole = image.new_empty((len(image), len(weights)), dtype=torch.float32)
    best = None if cells is None else torch.empty_like(whole)
    rows = max(1, min(exact.ROWS, BLOCK // max(1, len(weights))))
    for start in range(0, len(image), rows):
        block = slice(start, start + rows)
        vectors = image[block, None]
        if cells is not None:
            vectors = torch.cat([vectors, cells[block]], dim=1)
        cosines = _cosines(vectors, labels)
        whole[block] = cosines[:, 0]
        if best is not None:
            best[block] = cosines[:, 1:].amax(dim=1)
    return whole, best


def _cosines(vectors: Tensor, labels: LabelVectors) -> Tensor:
    """Cosines (..., C) float32 of vectors (..., D)."""
    values, norms = exact.stored(vectors)
    scale = (norms.sqrt()[..., None] * labels.norms).clamp_min(_MIN_NORM)
    return (exact.product(values, labels.weights) / scale).clamp(-1.0, 1.0).float()


def fit_statistics(global_: Tensor, cells: Tensor | None) -> Statistics:
    """Measure the mean and standard deviation of both scores, per label, over a set of images.

    Args:
        global_: (N, C) from `raw_scores`, N >= 2; about 25 images are enough.
        cells: (N, C) from `raw_scores`, or None.

    Raises:
        ValueError: there are fewer than two images, or the shapes differ.
    """
    if global_.ndim != 2 or len(global_) < 2:
        raise ValueError("statistics need at least two images")
    if cells is not None and cells.shape != global_.shape:
        raise ValueError("global and cell scores differ in shape")
    mean, std = _moments(global_)
    total = (global_.double() - mean) / std
    cell_mean: tuple[float, ...] | None = None
    cell_std: tuple[float, ...] | None = None
    if cells is not None:
        c_mean, c_std = _moments(cells)
        total = total + (cells.double() - c_mean) / c_std
        cell_mean, cell_std = tuple(c_mean.tolist()), tuple(c_std.tolist())
    spread = max(float(total.square().mean().sqrt()), MIN_SPREAD)
    return Statistics(
        tuple(mean.tolist()), tuple(std.tolist()), cell_mean, cell_std, spread, len(global_)
    )


def _moments(scores: Tensor) -> tuple[Tensor, Tensor]:
    values = scores.double()
    return values.mean(0), values.std(0, correction=0).clamp_min(MIN_STD)


def fuse(
    global_: Tensor,
    cells: Tensor | None,
    statistics: Statistics | None = None,
    spread: float = DEFAULT_SPREAD,
) -> Tensor:
    """One score per image and label, from the global and the best-cell score.

    With statistics (u the sum of both scores standardised per label, m and v its mean and
    variance over the image's C labels, k = `PRIOR_LABELS`, s = ``statistics.spread``):

        z = (u - m C / (C + k)) / sqrt((C v + k s^2) / (C + k))

    Without: the mean of both scores, centred on the image's mean, in units of a standard deviation
    shrunk towards ``spread`` in the same way. With a single label and no statistics there is
    nothing to compare with, and z is 0.

    Args:
        global_: (N, C) cosines.
        cells: (N, C) cosines or None.
        statistics: of these C labels, or None.
        spread: a cosine's usual standard deviation over labels; used only without statistics.

    Returns:
        z (N, C) float32, of about zero mean and unit variance.

    Raises:
        ValueError: the shapes or numbers of labels differ, or cell scores are missing.
    """
    if global_.ndim != 2 or (cells is not None and cells.shape != global_.shape):
        raise ValueError("global and cell scores must both be (N, C)")
    labels = global_.shape[1]
    if labels == 0:
        return global_.float()
    if statistics is None:
        total = global_.double() if cells is None else (global_.double() + cells.double()) / 2
        total = total / spread
        mean, variance = exact.row_moments(total)
        shrunk = (labels * variance + PRIOR_LABELS) / (labels + PRIOR_LABELS)
        return ((total - mean) / shrunk.sqrt()).float()
    total = standardised(global_, cells, statistics)
    mean, variance = exact.row_moments(total)
    weight = labels + PRIOR_LABELS
    shrunk = (labels * variance + PRIOR_LABELS) / weight
    return ((total - mean * labels / weight) / shrunk.sqrt()).float()


def standardised(global_: Tensor, cells: Tensor | None, statistics: Statistics) -> Tensor:
    """u / s of `fuse`: the sum of both scores standardised per label, of about unit variance.

    Args:
        global_: (N, C) cosines.
        cells: (N, C) cosines or None.
        statistics: of these C labels.

    Returns:
        (N, C) float64.

    Raises:
        ValueError: the numbers of labels differ, or cell scores are missing.
    """
    labels = global_.shape[1]
    if len(statistics.global_mean) != labels:
        raise ValueError(f"statistics of {len(statistics.global_mean)} labels for {labels} labels")
    total = _standardise(global_, statistics.global_mean, statistics.global_std)
    if statistics.cell_mean is not None and statistics.cell_std is not None:
        if cells is None:
            raise ValueError("these statistics need cell scores")
        total = total + _standardise(cells, statistics.cell_mean, statistics.cell_std)
    return total / statistics.spread


def _standardise(scores: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    centre = torch.tensor(mean, dtype=torch.float64, device=scores.device)
    width = torch.tensor(std, dtype=torch.float64, device=scores.device)
    return (scores.double() - centre) / width


def probabilities(z: Tensor, a0: float, b0: float) -> Tensor:
    """Zero-shot probability sigmoid(a0 z + b0).

    Args:
        z: (N, C) from `fuse`.
        a0: slope, logits per unit of z.
        b0: offset, logits.

    Returns:
        (N, C) float32 in [0, 1].
    """
    return exact.sigmoid(a0 * z.double() + b0).float()
