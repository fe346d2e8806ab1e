"""Zero-shot calibration per encoder: from a standardised score to a probability.

It is used until a project has a trained head. Each encoder has two rows: with the project's frozen
statistics, and without them (too few images yet). ``ls-clip evaluate --fit`` measures the rows of
any other encoder and writes them into the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_BASE_RATE = 0.25
"""The highest share of images that a label is assumed to be on, however few labels there are."""


@dataclass(frozen=True)
class Row:
    """Probability = sigmoid(slope z + offset); labels are suggested from ``threshold`` on."""

    slope: float
    offset: float
    threshold: float


@dataclass(frozen=True)
class Table:
    """The rows of one encoder, and statistics of the data that they were fitted on.

    Attributes:
        with_statistics: for scores standardised per label.
        without_statistics: for scores centred per image only.
        spread: the usual standard deviation of a cosine over labels, for the second row.
        labels: number of labels in the data.
        labels_per_image: mean number of true labels per image.
    """

    with_statistics: Row
    without_statistics: Row
    spread: float
    labels: int
    labels_per_image: float

    def row(self, with_statistics: bool, labels: int) -> Row:
        """The row for a config with this many labels.

        With the same number of true labels per image, fewer candidates are each more likely: the
        offset moves by the difference in the log-odds of the base rate, as for any logistic model
        whose prior changes.

        Args:
            with_statistics: whether scores are standardised per label.
            labels: number of labels in the config.
        """
        row = self.with_statistics if with_statistics else self.without_statistics
        shift = _log_odds(self.labels_per_image / max(1, labels)) - _log_odds(
            self.labels_per_image / self.labels
        )
        return Row(row.slope, row.offset + shift, row.threshold)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Table:
        """Inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or not a number.
        """
        return cls(
            Row(**{name: float(value) for name, value in data["with_statistics"].items()}),
            Row(**{name: float(value) for name, value in data["without_statistics"].items()}),
            float(data["spread"]),
            int(data["labels"]),
            float(data["labels_per_image"]),
        )


def _log_odds(rate: float) -> float:
    rate = min(max(rate, 0.001), MAX_BASE_RATE)
    return math.log(rate / (1.0 - rate))


OFFLINE = Table(Row(0.99, -3.61, 0.3), Row(0.99, -3.64, 0.3), 0.05, 80, 3.46)
"""Logistic fit of the labels of 1,605 COCO photos (80 labels) on their scores. The threshold lies
above that of the best F1 (0.17): a false suggestion costs a person more than a missed one."""

CLIP = Table(Row(2.27, -4.22, 0.39), Row(3.84, -4.33, 0.39), 0.01, 20, 1.55)
"""Logistic fit of the labels of 2,787 VOC2012 photos (20 labels) on the published scores of
CLIP RN50x64, whole image and best of 3x3 tiles. Other CLIP models start from it."""


def shipped_table(encoder_short: str) -> Table:
    """The table for an encoder that ``ls-clip evaluate --fit`` has not measured here.

    Args:
        encoder_short: the encoder's ``short``.
    """
    return OFFLINE if encoder_short == "offline" else CLIP
