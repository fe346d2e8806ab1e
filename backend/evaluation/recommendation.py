"""Which choice to take, from what was measured, with what chance leaves open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from backend.evaluation.measures import MIN_POSITIVES
from backend.vlpl.metrics import percentile_interval

LEVEL = 0.95
FASTER = 0.9
"""A choice counts as faster from this share of the time on; times vary from call to call."""


@dataclass(frozen=True)
class Candidate:
    """One choice as it was measured.

    Attributes:
        label: for a person.
        map: mAP in percent; NaN where it is undefined.
        seconds: an image, with decoding.
        resampled: (R,) mAP in percent on resamples of the images, the same for all candidates.
    """

    label: str
    map: float
    seconds: float
    resampled: torch.Tensor


@dataclass(frozen=True)
class Behind:
    """How far a choice lies behind the one with the highest mAP.

    Attributes:
        label: for a person.
        difference: in points of mAP, at least 0.
        low: of the 95 % interval of the difference.
        high: of that interval.
    """

    label: str
    difference: float
    low: float
    high: float

    @property
    def is_open(self) -> bool:
        """Whether the order may be chance: the interval holds 0."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{self.difference:.1f} less, {self.low:.1f} to {self.high:.1f}"


@dataclass(frozen=True)
class Recommendation:
    """See the module.

    Attributes:
        text: one or two sentences.
        best: the label of the choice with the highest mAP; None where there is nothing to compare.
        is_clear: whether no other choice may be as good.
        behind: the other choices.
    """

    text: str
    best: str | None = None
    is_clear: bool = False
    behind: tuple[Behind, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "text": self.text,
            "best": self.best,
            "is_clear": self.is_clear,
            "behind": [vars(one) for one in self.behind],
        }


def recommend(candidates: Sequence[Candidate]) -> Recommendation:
    """Compare the highest mAP with each of the others, by a paired bootstrap over the images."""
    if len(candidates) < 2:
        return Recommendation("There is nothing to compare: fewer than two choices were measured.")
    if not all(math.isfinite(candidate.map) for candidate in candidates):
        return Recommendation(
            f"There is no mAP to compare: no label is on {MIN_POSITIVES} images or more."
        )
    best, *others = sorted(candidates, key=lambda candidate: (-candidate.map, candidate.seconds))
    behind = tuple(_behind(best, other) for other in others)
    pairs = list(zip(others, behind, strict=True))
    rivals = [(other, how) for other, how in pairs if how.is_open]
    faster = [(other, how) for other, how in pairs if other.seconds < FASTER * best.seconds]
    if rivals:
        named = "; ".join(f"{how.label} ({how})" for _, how in rivals)
        text = f"No clear winner: {best.label} has the highest mAP, {best.map:.1f}, but the order "
        text += f"may be chance for {named}."
        fastest = min((best, *(other for other, _ in rivals)), key=lambda one: one.seconds)
        if fastest.seconds < FASTER * best.seconds:
            text += f" Of these, {fastest.label} is the fastest: {_share(fastest, best)}."
    else:
        text = f"{best.label} has the best mAP, {best.map:.1f}."
        if faster:
            other, how = faster[0]
            text += f" {how.label} has {how}, at {_share(other, best)}."
        else:
            text += f" Next is {behind[0].label} ({behind[0]}); none is notably faster."
    text += f" (Differences in points of mAP, with {100 * LEVEL:.0f} % intervals over "
    text += f"{len(best.resampled)} resamples of the images.)"
    return Recommendation(text, best.label, not rivals, behind)


def _behind(best: Candidate, other: Candidate) -> Behind:
    low, high = percentile_interval(best.resampled - other.resampled, LEVEL)
    return Behind(other.label, best.map - other.map, low, high)


def _share(one: Candidate, of: Candidate) -> str:
    return f"{100 * one.seconds / of.seconds:.0f} % of the time"
