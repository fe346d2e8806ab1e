"""Two bands of suggestions: labels that are ticked, and labels that are shown as "maybe".

A design that was measured (benchmarks/suggestions.py) and is not shipped: the plugin suggests from
one threshold per label, `calibration.label_thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from backend.vlpl.calibration import label_thresholds


@dataclass(frozen=True)
class Bands:
    """Where each label is suggested, and where it is shown as "maybe".

    Attributes:
        suggest: (C,) probabilities from which a label is suggested; above 1: never.
        maybe: (C,) probabilities from which it is shown, at most ``suggest``.
    """

    suggest: Tensor
    maybe: Tensor

    def of(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        """(suggested, maybe) of (N, C) probabilities, both boolean (N, C) and never both true."""
        suggested = probability >= self.suggest
        return suggested, (probability >= self.maybe) & ~suggested


def fit_bands(
    probability: Tensor, truth: Tensor, precision: float = 0.9, risk: float = 0.1
) -> Bands:
    """Bands for a precision of what is suggested and a risk of missing a label in both bands.

    Args:
        probability: (N, C) calibrated and held out, in [0, 1].
        truth: (N, C), 0 or 1.
        precision: of the suggest band, in (0, 1]; see `label_thresholds`.
        risk: of the maybe band, in (0, 1); see `conformal_threshold`.
    """
    suggest, _ = label_thresholds(probability, truth, "precision", precision)
    return Bands(suggest, suggest.clamp_max(conformal_threshold(probability, truth, risk)))


def conformal_threshold(probability: Tensor, truth: Tensor, risk: float = 0.1) -> float:
    """Conformal risk control: at most ``risk`` of an image's true labels missed, in expectation.

    The highest t with (sum_i loss_i(t) + 1) / (n + 1) <= risk, where loss_i(t) is the share of
    image i's true labels with p < t (0 for an image without any). The bound holds for a new image
    from the same population whatever the probabilities are worth; the expectation is over
    calibration sets too.

    Args:
        probability: (n, C), of images that neither head nor calibration was fitted on.
        truth: (n, C), 0 or 1.
        risk: in (0, 1).

    Returns:
        A threshold in [0, 1]; 0 (show everything) if n < 1 / risk - 1, too few for any bound.

    Raises:
        ValueError: the shapes differ, or a probability is not finite.

    Source: Angelopoulos et al., "Conformal Risk Control", ICLR 2024, arXiv 2208.02814.
    """
    if probability.ndim != 2 or probability.shape != truth.shape:
        raise ValueError("probabilities and truth must both be (N, C)")
    if not bool(probability.isfinite().all()):
        raise ValueError("probabilities must be finite")
    budget = risk * (len(truth) + 1) - 1.0
    if budget < 0:
        return 0.0
    present = truth.bool()
    share = 1.0 / present.sum(1, keepdim=True).clamp_min(1).double()
    values, order = probability.double()[present].sort()
    spent = share.expand_as(probability)[present][order].cumsum(0)
    # A label is missed when p < t, so t may equal the first value that would break the budget.
    broken = (spent > budget + 1e-9).nonzero().squeeze(1)
    return float(values[broken[0]]) if len(broken) else 1.0
