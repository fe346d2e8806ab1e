"""What is known of a label on an image, and how that came about.

Imports no torch, so that processes that only read what people decided start at once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

UNKNOWN: Final = 0
POSITIVE: Final = 1
NEGATIVE: Final = -1
PSEUDO_POSITIVE: Final = 2
PSEUDO_NEGATIVE: Final = -2


class Provenance(StrEnum):
    """How a row's labels came about."""

    BLIND = "blind"
    UNAIDED = "unaided"
    EDITED = "edited"
    ACCEPTED = "accepted"
    IMPORTED = "imported"
    KNOWN = "known"
    BULK = "bulk"


PROVENANCE_WEIGHTS: dict[str, float] = {
    Provenance.BLIND: 1.0,
    Provenance.UNAIDED: 1.0,
    Provenance.EDITED: 0.8,
    Provenance.ACCEPTED: 0.5,
    Provenance.IMPORTED: 0.5,
    Provenance.KNOWN: 0.5,
    Provenance.BULK: 0.2,
}
"""Training weight of a row in [0, 1], by how it was reviewed: without seeing a suggestion (blind,
unaided), by changing the suggestion (edited), by accepting it unchanged, perhaps unchecked
(accepted), or by accepting many at once, hence unchecked (bulk). Imported and known labels come
from elsewhere and may be incomplete."""
