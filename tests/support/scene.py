"""Images, noisy zero-shot scores and their truth, for tests of the method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backend.vlpl.decisions import NEGATIVE, POSITIVE
from backend.vlpl.head import Card

A0, B0 = 1.6, -2.5
LABELS = ("cat", "dog", "tree", "boat")


def card(count: int = 4) -> Card:
    return Card(LABELS[:count], "encoder-1", "statistics-1", created="2026-01-01T00:00:00Z")


def scene(rows: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, noisy zero-shot scores, truth."""
    generator = torch.Generator().manual_seed(seed)
    image = normalize(torch.randn(rows, 24, generator=generator), dim=1)
    direction = torch.randn(24, 4, generator=torch.Generator().manual_seed(99))
    signal = image @ direction * 1.5
    truth = (signal + 0.5 * torch.randn(rows, 4, generator=generator) > 1.2).long()
    z = signal + 1.5 * torch.randn(rows, 4, generator=generator)
    return image, z, truth


def codes(truth: Tensor) -> Tensor:
    return torch.where(truth > 0, POSITIVE, NEGATIVE)
