"""The pseudo-label rules of VLPL's paper and of its released code, to compare with `fit_threshold`.

Source: Xing et al., "Vision-Language Pseudo-Labels for Single-Positive Multi-Label Learning",
arXiv 2310.15985, and its released code (mvrl/VLPL).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from torch import Tensor

from backend.vlpl.decisions import NEGATIVE, POSITIVE, PSEUDO_NEGATIVE, PSEUDO_POSITIVE
from backend.vlpl.pseudo_labels import Rule


class Score(StrEnum):
    """What a preset's threshold is compared with."""

    SOFTMAX = "softmax"
    """`softmax_scores` of the cosines."""
    Z = "z"
    """`zero_shot.fuse`."""


@dataclass(frozen=True)
class Preset:
    """A named rule, and the scores that it is applied to."""

    name: str
    score: Score
    rule: Rule


PAPER: Final = Preset("paper", Score.SOFTMAX, Rule(0.3, 0.2))
"""With negatives, as in the paper's text. The threshold is the released code's default. The text
names no fraction that we could check; the released code lists 0, 0.1 ... 0.4 as the values that
were tried, of which this is the middle one."""
RELEASED: Final = Preset("released", Score.SOFTMAX, Rule(0.3, 0.0))
"""The published code, which makes no pseudo-negatives."""


@dataclass(frozen=True)
class Quality:
    """How good pseudo-labels are. Shares in [0, 1]; a precision is NaN where there are none.

    Attributes:
        positive_precision: share of pseudo-positives that are true.
        positive_recall: share of the true labels among unobserved entries that became
            pseudo-positive.
        negative_precision: share of pseudo-negatives that are absent.
        coverage: share of the unobserved entries that received a pseudo-label.
        positives_per_image: mean number of pseudo-positives per image.
    """

    positive_precision: float
    positive_recall: float
    negative_precision: float
    coverage: float
    positives_per_image: float


def quality(pseudo: Tensor, truth: Tensor) -> Quality:
    """Measure pseudo-labels against the truth.

    Args:
        pseudo: (N, C) integers from `pseudo_labels.assign`.
        truth: (N, C), 0 or 1.

    Raises:
        ValueError: the shapes differ.
    """
    if pseudo.shape != truth.shape:
        raise ValueError(f"{tuple(pseudo.shape)} pseudo-labels for {tuple(truth.shape)} labels")
    present = truth.bool()
    unobserved = (pseudo != POSITIVE) & (pseudo != NEGATIVE)
    positive, negative = pseudo == PSEUDO_POSITIVE, pseudo == PSEUDO_NEGATIVE

    def share(part: Tensor, whole: Tensor) -> float:
        return float(part.sum() / whole.sum()) if bool(whole.any()) else float("nan")

    return Quality(
        share(positive & present, positive),
        share(positive & present, unobserved & present),
        share(negative & ~present, negative),
        share(positive | negative, unobserved),
        float(positive.sum() / max(len(pseudo), 1)),
    )
