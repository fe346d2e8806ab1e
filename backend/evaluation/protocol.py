"""The protocol by which suggestions are measured: halves of labelled images, over several seeds.

Half of the images are a project's, in random order, of which some are reviewed; the other half is
what is measured on. Only `final_map` and the count of clicks read test labels: permuting them
changes no head and no threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from backend.evaluation.dataset import Dataset
from backend.vlpl import zero_shot
from backend.vlpl.decisions import NEGATIVE, POSITIVE, UNKNOWN
from backend.vlpl.head import Card, statistics_hash
from backend.vlpl.metrics import mean_average_precision

Row = dict[str, Any]
"""Of a table: column -> value."""
MIN_TEST_POSITIVES = 5
SEEDS = tuple(range(5))
REVIEWED = (0, 25, 50, 100, 200, 400)
"""Numbers of reviewed images that a learning curve is measured at."""
TEMPERATURE: Final = 0.01
"""Of the paper's softmax over the labels, for CLIP cosines."""


@dataclass(frozen=True)
class Scene:
    """A split of a data set, with scores whose statistics come from its training half.

    Attributes:
        data: the data set.
        seed: of the split.
        train: (n_train,) indices of the training images.
        test: (n_test,) indices of the test images.
        z: (N, C) zero-shot scores of all images.
        statistics: hash of the statistics.
    """

    data: Dataset
    seed: int
    train: Tensor
    test: Tensor
    z: Tensor
    statistics: str

    @classmethod
    def of(cls, data: Dataset, seed: int) -> Scene:
        """Split, and freeze the statistics on the training images."""
        train, test = data.split(seed)
        statistics = zero_shot.fit_statistics(data.whole[train], data.best[train])
        z = zero_shot.fuse(data.whole, data.best, statistics)
        return cls(data, seed, train, test, z, statistics_hash(statistics))

    def card(self) -> Card:
        """A card without any fit."""
        return Card(self.data.classes, self.data.encoder, self.statistics)


def final_map(scene: Scene, scores: Tensor) -> float:
    """mAP in percent of (n_test, C) scores, over the labels with enough test positives."""
    truth = scene.data.truth[scene.test]
    return 100 * mean_average_precision(scores, truth, MIN_TEST_POSITIVES)


def observe(scene: Scene, reviewed: int, single: bool) -> Tensor:
    """Label codes (n_train, C), see `objectives`.

    Args:
        scene: the split.
        reviewed: number of rows, from the first on, whose labels are all observed.
        single: whether the other rows have one random positive observed, or nothing.
    """
    truth = scene.data.truth[scene.train]
    codes = torch.full_like(truth, UNKNOWN)
    if single:
        generator = torch.Generator().manual_seed(1000 + scene.seed)
        draw = torch.rand(truth.shape, generator=generator) * truth
        has_any = truth.any(1)
        codes[has_any.nonzero().squeeze(1), draw[has_any].argmax(1)] = POSITIVE
    codes[:reviewed] = torch.where(truth[:reviewed] > 0, POSITIVE, NEGATIVE)
    return codes


def spread(values: Sequence[float]) -> Row:
    """Mean, standard deviation and single values, as columns of a table."""
    series = torch.tensor(list(values), dtype=torch.float64)
    return {
        "mean": float(series.mean()),
        "sd": float(series.std(correction=0)),
        "values": [round(value, 2) for value in series.tolist()],
    }


def softmax_scores(cosine: Tensor) -> Tensor:
    """softmax(cosine / 0.01) over the labels.

    Args:
        cosine: (N, C) cosines of images with label texts.

    Returns:
        (N, C) float32 in [0, 1]; each row sums to 1.
    """
    return (cosine.float() / TEMPERATURE).softmax(dim=1)


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(1, keepdim=True)


def naive(scene: Scene) -> Tensor:
    """Both scores standardised per label, summed, standardised per image without shrinkage."""
    train, data = scene.train, scene.data
    total = torch.zeros_like(data.whole)
    for scores in (data.whole, data.best):
        total = total + (scores - scores[train].mean(0)) / scores[train].std(0).clamp_min(1e-6)
    return _centred(total) / total.std(1, keepdim=True, correction=0).clamp_min(1e-6)


VARIANTS: dict[str, Callable[[Scene], Tensor]] = {
    "cosine of the whole image": lambda s: s.data.whole,
    "the same, centred per image": lambda s: _centred(s.data.whole),
    "softmax(cos / 0.01)": lambda s: softmax_scores(s.data.whole),
    "best cell or tile, centred": lambda s: _centred(s.data.best),
    "whole + best, centred": lambda s: _centred(s.data.whole + s.data.best),
    "standardised per label and per image": naive,
    "default: the same, shrunk": lambda s: s.z,
}


def zero_shot_variants(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP of every way to compute a zero-shot score."""
    scenes = [Scene.of(data, seed) for seed in seeds]
    return [
        {
            "variant": name,
            **spread([final_map(scene, score(scene)[scene.test]) for scene in scenes]),
        }
        for name, score in VARIANTS.items()
    ]
