"""Cosines of many images with the labels, from which all measures are made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from backend.inference.frozen_statistics import UP_TO as STATISTICS_UP_TO
from backend.inference.model_version import ModelVersion
from backend.storage.vectors import Embedding
from backend.vlpl import zero_shot


@dataclass(frozen=True)
class Cosines:
    """`ModelVersion.raw` of N images.

    Attributes:
        files: their names, in order.
        whole: (N, C) float32.
        best: (N, C) float32, or None for an encoder without regions.
    """

    files: list[str]
    whole: torch.Tensor
    best: torch.Tensor | None

    def without(self, names: Collection[str]) -> Cosines:
        """The same without these files."""
        kept = [place for place, file in enumerate(self.files) if file not in names]
        best = None if self.best is None else self.best[kept]
        return Cosines([self.files[place] for place in kept], self.whole[kept], best)

    def with_statistics(self, version: ModelVersion) -> ModelVersion:
        """The version with statistics of these images, frozen as those of a project are."""
        (control,) = version.config.controls
        best = None if self.best is None else self.best[:STATISTICS_UP_TO]
        statistics = zero_shot.fit_statistics(self.whole[:STATISTICS_UP_TO], best)
        return replace(version, statistics={control.name: statistics})


class CosineParts:
    """Collects the cosines of some images after the other, so that no embedding is kept.

    Args:
        version: whose encoder made the embeddings; its config has one control.
    """

    def __init__(self, version: ModelVersion) -> None:
        self._version = version
        (self._control,) = version.config.controls
        self._files: list[str] = []
        self._whole = [torch.zeros(0, len(self._control.labels))]
        self._best: list[torch.Tensor] = []

    def add(self, files: Sequence[str], embeddings: Sequence[Embedding]) -> None:
        """Compare the embeddings of these files with the labels."""
        if not files:
            return
        whole, best = self._version.raw(self._control, embeddings)
        self._files += files
        self._whole.append(whole)
        if best is not None:
            self._best.append(best)

    def joined(self) -> Cosines:
        """Those of all files that were added."""
        best = torch.cat(self._best) if self._best else None
        return Cosines(self._files, torch.cat(self._whole), best)
