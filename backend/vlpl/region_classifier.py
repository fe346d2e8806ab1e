"""A Gaussian classifier of regions, fitted without labels: what a label looks like in this project.

Text says what a label means, not what it looks like here. The regions that match a label best, over
some hundred images, show it: their mean is the label's class mean, and all classes share one
covariance. After the Gaussian discriminant of PIAA (ICML 2026), on regions instead of patches.
Its score x of an image is made like the zero-shot one (whole image and best region, standardised
per label) and averaged with it: z' = (z + s x) / (1 + s), s = `SHARE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from backend.vlpl import zero_shot
from backend.vlpl.zero_shot import LabelVectors, Statistics

FROM = 400
"""Fewest images of a bank; below, nothing reliable was gained."""
UP_TO = 4000
"""Most images whose regions are looked at, which bounds memory."""
SHARE = 0.3
REGIONS = 64
"""Regions that a label's mean is taken over, at most."""
SHARPNESS = 1.5
"""Of the softmax over labels that weights these regions."""


@dataclass(frozen=True)
class RegionClassifier:
    """See the module; made by `fit`.

    Attributes:
        weights: (C, D) float32, L2-normalised; 0 for a label without regions.
        statistics: of its cosines, over the bank.
    """

    weights: Tensor
    statistics: Statistics

    @cached_property
    def _vectors(self) -> LabelVectors:
        return zero_shot.label_vectors(self.weights)

    def scores(self, image: Tensor, regions: Tensor) -> Tensor:
        """x, (N, C) float64, of about zero mean and unit variance.

        Args:
            image: (N, D), L2-normalised.
            regions: (N, K, D), L2-normalised.
        """
        whole, best = zero_shot.raw_scores(image, regions, self._vectors)
        return zero_shot.standardised(whole, best, self.statistics)

    def added(self, z: Tensor, image: Tensor, regions: Tensor) -> Tensor:
        """z', (N, C) float32, from z of `zero_shot.fuse`."""
        return ((z.double() + SHARE * self.scores(image, regions)) / (1.0 + SHARE)).float()


def fit(image: Tensor, regions: Tensor, labels: LabelVectors) -> RegionClassifier:
    """Fit the classifier to images that nobody has labelled.

    With zc the cosines of regions and labels, standardised per label and centred per region, and
    p = softmax(`SHARPNESS` zc), a label's regions v are the `REGIONS` best of those where it is the
    likeliest. mu = sum(p v) / sum(p), S is the covariance of v - mu over all labels, and
    W = (mu - mean mu) D inv((n - 1) S + tr(S) I) for n regions. A label that is nowhere the
    likeliest has W = 0.

    Args:
        image: (M, D), L2-normalised.
        regions: (M, K, D), L2-normalised.
        labels: of C labels; one whose text means nothing has a vector of length 0, and no regions.

    Raises:
        ValueError: there are fewer than two images, or the shapes do not fit.
    """
    cells = regions.reshape(-1, regions.shape[-1]).float()
    text = (labels.weights / labels.norms.clamp_min(1e-6)[:, None]).float()
    cosines = cells @ text.T
    deviation = cosines.std(0, correction=0).clamp_min(zero_shot.MIN_STD)
    scores = (cosines - cosines.mean(0)) / deviation
    has_text = labels.norms > 0
    scores -= scores[:, has_text].mean(1, keepdim=True)
    p = torch.softmax(SHARPNESS * scores.masked_fill(~has_text, -torch.inf), dim=1)
    likeliest = p.argmax(1)
    means, found, residuals = [], [], []
    for label in range(len(text)):
        own = (likeliest == label).nonzero().squeeze(1)
        best = own[p[own, label].topk(min(REGIONS, len(own))).indices]
        if not len(best):
            continue
        weight = p[best, label, None]
        mean = (weight * cells[best]).sum(0) / weight.sum()
        means.append(mean)
        residuals.append(cells[best] - mean)
        found.append(label)
    weights = torch.zeros(len(text), cells.shape[1], dtype=torch.float64)
    if found:
        spread = torch.cat(residuals).double()
        covariance = spread.T @ spread / len(spread)
        shrunk = (len(spread) - 1) * covariance
        shrunk += covariance.trace().clamp_min(1e-12) * torch.eye(len(covariance))
        centred = torch.stack(means).double()
        centred = centred - centred.mean(0)
        weights[found] = torch.linalg.solve(shrunk, centred.T).T
    weights = torch.nn.functional.normalize(weights, dim=1).float()
    vectors = zero_shot.label_vectors(weights)
    statistics = zero_shot.fit_statistics(*zero_shot.raw_scores(image, regions, vectors))
    return RegionClassifier(weights, statistics)
