"""Zero-shot calibration per encoder: from a standardised score to a probability.

It is used until a project has a trained head. Each encoder has three rows: with the project's
frozen statistics, with these and the votes of similar images (`backend.vlpl.neighbours`), and
without statistics (too few images yet). ``ls-clip evaluate --fit`` measures the rows of any other
encoder and writes them into the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from backend.vlpl.correction import Prior

TICK_FROM = 0.5
"""Ticking a label saves a click if it is on the image and costs one if not: from this probability
on it is expected to save."""
TICK_FROM_FEW = 0.6
"""The same with few labels, where a table that was fitted on other photos is furthest off
(docs/benchmark.md)."""
FEW_LABELS = 5
MAX_BASE_RATE = 0.35
"""The highest share of images that a label is assumed to be on, if each image has one at least."""


class Scores(StrEnum):
    """How the scores were made that a row of the table turns into probabilities."""

    BARE = "without_statistics"
    STANDARDISED = "with_statistics"
    VOTED = "voted"


@dataclass(frozen=True)
class Row:
    """Probability = sigmoid(slope z + offset)."""

    slope: float
    offset: float


@dataclass(frozen=True)
class Table:
    """The rows of one encoder, and what is known of the data that they were fitted on.

    Attributes:
        with_statistics: for scores standardised per label.
        voted: for the same after the votes of similar images.
        without_statistics: for scores centred per image only.
        spread: the usual standard deviation of a cosine over labels, for the last row.
        labels: number of labels in the data.
        labels_per_image: mean number of true labels per image.
        prior: of slope and offset over projects, for scores standardised per label.
        few_labels: with fewer labels than this, `TICK_FROM_FEW` holds.
    """

    with_statistics: Row
    voted: Row
    without_statistics: Row
    spread: float
    labels: int
    labels_per_image: float
    prior: Prior
    few_labels: int = FEW_LABELS

    def tick_from(self, labels: int) -> float:
        """The probability from which on a label is ticked, in a config with this many labels."""
        return TICK_FROM if labels >= self.few_labels else TICK_FROM_FEW

    def row(self, scores: Scores, labels: int, required: bool = False) -> Row:
        """The row for a config with this many labels.

        How often its labels occur cannot be told from their number: it is left as it was in the
        data. Only where each image is known to have a label, they occur on 1 / ``labels`` of the
        images at least, and the offset moves by the difference in the log-odds of that rate, as for
        any logistic model whose prior changes.

        Args:
            scores: how they are made.
            labels: number of labels in the config.
            required: whether each image has one of them at least.
        """
        row = self._rows[scores]
        if not required:
            return row
        usual = self.labels_per_image / self.labels
        rate = max(usual, min(1.0 / max(1, labels), MAX_BASE_RATE))
        return Row(row.slope, row.offset + _log_odds(rate) - _log_odds(usual))

    def prior_of(self, scores: Scores, labels: int, required: bool = False) -> Prior:
        """The prior of slope and offset for a config; arguments as for `row`."""
        row = self.row(scores, labels, required)
        usual = self.with_statistics
        return self.prior.moved(row.slope - usual.slope, row.offset - usual.offset)

    @property
    def _rows(self) -> dict[Scores, Row]:
        return {
            Scores.BARE: self.without_statistics,
            Scores.STANDARDISED: self.with_statistics,
            Scores.VOTED: self.voted,
        }

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Table:
        """Inverse of `as_dict`.

        Tables of earlier releases have a threshold, which is not used any more, no row for votes,
        no prior, and no number of labels that are few.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or not a number.
        """

        def row(name: str) -> Row:
            return Row(float(data[name]["slope"]), float(data[name]["offset"]))

        plain = row(Scores.STANDARDISED)
        return cls(
            plain,
            row(Scores.VOTED) if Scores.VOTED in data else voted_row(plain),
            row(Scores.BARE),
            float(data["spread"]),
            int(data["labels"]),
            float(data["labels_per_image"]),
            Prior.from_dict(data["prior"]) if "prior" in data else fitted_prior(plain),
            int(data.get("few_labels", FEW_LABELS)),
        )


def voted_row(row: Row) -> Row:
    """The row after votes, for a row that was fitted without them.

    Votes draw a score towards those of similar images, so that its spread shrinks.
    """
    return Row(row.slope * OFFLINE.voted.slope / OFFLINE.with_statistics.slope, row.offset)


def fitted_prior(row: Row) -> Prior:
    """The prior for a table that was fitted on images of one's own."""
    return Prior((row.slope, row.offset), CLIP.prior.covariance)


def _log_odds(rate: float) -> float:
    return math.log(rate / (1.0 - rate))


OFFLINE = Table(
    Row(0.99, -3.61),
    Row(1.10, -3.62),
    Row(0.99, -3.64),
    spread=0.05,
    labels=80,
    labels_per_image=3.46,
    prior=Prior((1.33, -3.19), (0.28, -0.035, 1.616)),
    few_labels=8,
)
"""Logistic fit of the labels of 1,605 COCO photos (80 labels) on their scores; the prior is the
spread of such fits over random label sets of these photos."""

CLIP = Table(
    Row(2.27, -4.22),
    Row(2.53, -4.23),
    Row(3.84, -4.33),
    spread=0.01,
    labels=20,
    labels_per_image=1.55,
    prior=Prior((3.05, -3.76), (0.942, -0.221, 4.213)),
)
"""Logistic fit of the labels of 2,787 VOC2012 photos (20 labels) on the published scores of
CLIP RN50x64, whole image and best of 3x3 tiles. Other CLIP models start from it. The row for votes
follows from the offline encoder's: there are no embeddings to these scores."""


def shipped_table(encoder_short: str) -> Table:
    """The table for an encoder that ``ls-clip evaluate --fit`` has not measured here.

    Args:
        encoder_short: the encoder's ``short``.
    """
    return OFFLINE if encoder_short == "offline" else CLIP
