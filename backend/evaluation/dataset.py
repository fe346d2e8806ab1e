"""Labelled images as tensors: what the protocol of `backend.evaluation.protocol` computes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backend.vlpl.zero_shot import LabelVectors


@dataclass(frozen=True)
class Dataset:
    """N labelled images and their C labels.

    Attributes:
        name: shown in tables.
        classes: C label names.
        truth: (N, C) int64, 0 or 1.
        image: (N, D) float32 embeddings as stored, or None if only scores are known.
        whole: (N, C) cosines of whole images.
        best: (N, C) cosines of the best cell or tile of each image.
        test: (n,) indices of an official test set, or None.
        encoder: id of the encoder.
        labels: the C labels' text embeddings; None if only scores are known.
        regions: (N, K, D) embeddings of regions, where there are some.
    """

    name: str
    classes: tuple[str, ...]
    truth: Tensor
    image: Tensor | None
    whole: Tensor
    best: Tensor
    test: Tensor | None
    encoder: str
    labels: LabelVectors | None = None
    regions: Tensor | None = None

    def split(self, seed: int) -> tuple[Tensor, Tensor]:
        """(train, test) indices: the official split in a seeded order, or seeded halves."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self.truth)
        if self.test is not None:
            rest = torch.arange(count)[~torch.isin(torch.arange(count), self.test)]
            return rest[torch.randperm(len(rest), generator=generator)], self.test
        order = torch.randperm(count, generator=generator)
        return order[: count // 2], order[count // 2 :]

    def select(self, labels: Tensor) -> Dataset:
        """The same images with these labels only."""
        return replace(
            self,
            classes=tuple(self.classes[int(index)] for index in labels),
            truth=self.truth[:, labels],
            whole=self.whole[:, labels],
            best=self.best[:, labels],
            labels=None
            if self.labels is None
            else LabelVectors(self.labels.weights[labels], self.labels.norms[labels]),
        )

    def of_images(self, images: Tensor) -> Dataset:
        """These images only, by their indices; without an official test set."""
        return replace(
            self,
            truth=self.truth[images],
            image=None if self.image is None else self.image[images],
            whole=self.whole[images],
            best=self.best[images],
            test=None,
            regions=None if self.regions is None else self.regions[images],
        )
