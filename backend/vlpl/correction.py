"""Probabilities, corrected by reviews of randomly chosen images.

How often labels occur in a project cannot be told from unlabelled scores. A few random reviews tell
it: slope and offset of sigmoid(slope x + offset) are fitted to them, held by a prior. For zero-shot
scores x the prior is over projects; for a head's logits it holds the head as it is (Platt scaling,
Platt 1999; for CLIP with few examples, arXiv 2402.07417). What remains uncertain is not ticked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIHOOD_WEIGHT = 0.5
"""Entries of one image are no independent observations, so each counts half."""
CAUTION = 0.5
"""A label is ticked where its logit, less so many of its standard deviations, is at least 0."""
HEAD_CAUTION = 1.0
"""The same for a head, of which not all that is uncertain shows in slope and offset. Both were
chosen so that hardly any small project pays more clicks than from nothing (docs/benchmark.md)."""
_STEPS = 50
_MIN_SLOPE = 0.05


@dataclass(frozen=True)
class Prior:
    """A Gaussian over (slope, offset) of projects, before anything is reviewed.

    Attributes:
        mean: of slope and offset.
        covariance: of the two: (variance of the slope, covariance, variance of the offset).
    """

    mean: tuple[float, float]
    covariance: tuple[float, float, float]

    def moved(self, slope: float, offset: float) -> Prior:
        """The prior with its mean moved by so much."""
        return Prior((self.mean[0] + slope, self.mean[1] + offset), self.covariance)

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[float]]) -> Prior:
        """Inverse of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or holds no numbers.
        """
        slope, offset = map(float, data["mean"])
        first, both, second = map(float, data["covariance"])
        return cls((slope, offset), (first, both, second))


AS_IT_IS = Prior((1.0, 0.0), (0.1, 0.0, 0.5))
"""For logits of a head that was trained on a few dozen images or more."""


@dataclass(frozen=True)
class Correction:
    """Slope and offset after some reviews, and how uncertain they are.

    Attributes:
        slope: logits per unit of the score, > 0.
        offset: logits.
        covariance: of the two, as in `Prior`.
    """

    slope: float
    offset: float
    covariance: tuple[float, float, float]

    def tick_from(self, caution: float) -> float:
        """The probability from which on the cautious logit is at least 0; see `CAUTION`.

        The logit's standard deviation at x is sqrt(v_s x^2 + 2 v_so x + v_o).

        Args:
            caution: standard deviations that are taken off.

        Returns:
            In [0.5, 1]; 1 where no score is certain enough.
        """
        v_s, v_so, v_o = self.covariance

        def cautious(x: float) -> float:
            deviation = math.sqrt(max(v_s * x * x + 2 * v_so * x + v_o, 0.0))
            return self.slope * x + self.offset - caution * deviation

        # The logit is 0 at -offset / slope, and the cautious one somewhere above it.
        low = -self.offset / self.slope
        high = low + 1.0
        while cautious(high) < 0.0:
            high = low + 2 * (high - low)
            if high - low > 1e3:
                return 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if cautious(middle) < 0.0 else (low, middle)
        return 1.0 / (1.0 + math.exp(-(self.slope * high + self.offset)))


def correct(scores: Tensor, truth: Tensor, prior: Prior) -> Correction:
    """Slope and offset that maximise likelihood^`LIKELIHOOD_WEIGHT` x prior, by Newton's method.

    Args:
        scores: of reviewed entries, of any shape; of images that were drawn at random. Logits of a
            head are of images that it was not trained on.
        truth: the same shape, 0 or 1.
        prior: of slope and offset.

    Returns:
        With the covariance of Laplace's approximation.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    if scores.shape != truth.shape or not bool(scores.isfinite().all()):
        raise ValueError("scores must be finite, and of the shape of the truth")
    x, y = scores.double().flatten(), truth.double().flatten()
    centre = torch.tensor(prior.mean, dtype=torch.float64)
    first, both, second = prior.covariance
    precision = torch.linalg.inv(torch.tensor([[first, both], [both, second]], dtype=torch.float64))
    theta = centre.clone()

    def loss(at: Tensor) -> float:
        line = at[0] * x + at[1]
        data = (torch.nn.functional.softplus(line) - y * line).sum()
        away = at - centre
        return float(LIKELIHOOD_WEIGHT * data + 0.5 * away @ precision @ away)

    def derivatives(at: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.sigmoid(at[0] * x + at[1])
        error, bend = p - y, p * (1.0 - p)
        gradient = torch.stack([(error * x).sum(), error.sum()])
        cross = (bend * x).sum()
        hessian = torch.stack(
            [torch.stack([(bend * x * x).sum(), cross]), torch.stack([cross, bend.sum()])]
        )
        return (
            LIKELIHOOD_WEIGHT * gradient + precision @ (at - centre),
            LIKELIHOOD_WEIGHT * hessian + precision,
        )

    current = loss(theta)
    for _ in range(_STEPS):
        gradient, hessian = derivatives(theta)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and loss(theta - size * step) > current:
            size /= 2
        theta = theta - size * step
        previous, current = current, loss(theta)
        if abs(previous - current) < 1e-10 * max(abs(previous), 1.0):
            break
    covariance = torch.linalg.inv(derivatives(theta)[1])
    return Correction(
        # A negative slope would turn the ranking around on the strength of noise.
        max(float(theta[0]), _MIN_SLOPE),
        float(theta[1]),
        (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
    )
