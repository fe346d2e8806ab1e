"""A head set as a training makes it."""

from __future__ import annotations

from dataclasses import replace

import torch

from backend.storage.head_set import FittedControl, HeadSet
from backend.vlpl.clicks import Clicks
from backend.vlpl.head import Card, Head
from backend.vlpl.label_figures import LabelFigures
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


def judged_set(name: str, clicks: Clicks | None, *figures: LabelFigures) -> HeadSet:
    """A head set with what was measured when it was made."""
    metrics = {"judged": 42.0, "mAP": 0.412, "serving mAP": 0.381}
    made = head_set(name)
    return replace(made, metrics=metrics, clicks=clicks, labels={"tags": figures})
