"""From a standardised score to a probability before a project has any reviewed task.

Two rows an encoder: with the project's frozen statistics, and without them (too few images yet).
``ls-clip evaluate --fit`` measures the rows of any other encoder and writes them into the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_BASE_RATE = 0.25
"""However few labels a config has, a label is not assumed to be on more images than that."""


@dataclass(frozen=True)
class Row:
    """Probability = sigmoid(slope z + offset); labels from ``threshold`` on are suggested."""

    slope: float
    offset: float
    threshold: float


@dataclass(frozen=True)
class Table:
    """The rows of one encoder, and the data that they were fitted on.

    Attributes:
        with_statistics: for scores standardised per label.
        without_statistics: for scores centred per image only.
        spread: the usual standard deviation of a cosine over labels, for the second row.
        labels: how many labels the data had.
        labels_per_image: how many of them an image had, on average.
    """

    with_statistics: Row
    without_statistics: Row
    spread: float
    labels: int
    labels_per_image: float

    def row(self, with_statistics: bool, labels: int) -> Row:
        """The row for a config with so many labels.

        The same number of true labels an image among fewer candidates makes each candidate more
        likely: the offset moves by the difference in the log-odds of the base rate, as for any
        logistic model whose prior changes.
        """
        row = self.with_statistics if with_statistics else self.without_statistics
        shift = _log_odds(self.labels_per_image / max(1, labels)) - _log_odds(
            self.labels_per_image / self.labels
        )
        return Row(row.slope, row.offset + shift, row.threshold)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
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
above the best F1 (0.17): of two wrong boxes, one that is ticked costs a person more attention."""

CLIP = Table(Row(2.27, -4.22, 0.39), Row(3.84, -4.33, 0.39), 0.01, 20, 1.55)
"""Logistic fit of the labels of 2,787 VOC2012 photos (20 labels) on the published scores of
CLIP RN50x64, whole image and best of 3x3 tiles. Other CLIP models start from it."""


def shipped_table(encoder_short: str) -> Table:
    """The table for an encoder that nobody has fitted yet."""
    return OFFLINE if encoder_short == "offline" else CLIP
