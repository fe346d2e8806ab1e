"""A head set as a training makes it."""

from __future__ import annotations

import torch

from backend.storage.head_registry import FittedControl, HeadSet
from backend.vlpl.head import Card, Head
from tests.support.builders import LABELS


def head_set(name: str, encoder: str = "stub", dim: int = 8, scale: float = 1.0) -> HeadSet:
    count = len(LABELS)
    card = Card(tuple(LABELS), encoder, "none")
    head = Head(
        torch.full((count, dim), scale / 8),
        torch.linspace(1, 2, count, dtype=torch.float64),
        torch.full((count,), -2.0, dtype=torch.float64),
        card,
    )
    fitted = FittedControl(head, (0.3,) * count)
    return HeadSet(name, {"tags": fitted}, "2026-11-25T10:00:00+00:00", encoder, 40, accepted=True)
