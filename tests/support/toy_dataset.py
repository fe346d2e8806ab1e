"""Made-up labelled images whose embeddings, regions and texts tell something of their labels."""

from __future__ import annotations

import torch

from backend.evaluation.dataset import Dataset
from backend.vlpl import zero_shot

COUNT, DIM, LABELS = 240, 24, 6


def toy() -> Dataset:
    """With regions."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    truth = (torch.rand(COUNT, LABELS, generator=generator) < 0.3).long()
    looks = random(LABELS, DIM)
    regions = random(COUNT, 9, DIM) + (truth.float() @ looks)[:, None]
    image = torch.nn.functional.normalize(regions.mean(1), dim=1).half().float()
    regions = torch.nn.functional.normalize(regions, dim=2)
    labels = zero_shot.label_vectors(torch.nn.functional.normalize(looks + random(6, DIM), dim=1))
    whole, best = zero_shot.raw_scores(image, regions, labels)
    assert best is not None
    names = tuple("abcdef")
    return Dataset("toy", names, truth, image, whole, best, None, "toy", labels, regions)
