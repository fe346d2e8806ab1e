"""Which photos to review first: at random, the least certain ones, or those that cover the others.

A part of benchmarks/spml.py. Photos of the training half are reviewed in rounds of 25; after each
round a head is trained on all that is reviewed. Test labels are read by the final mAP alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import SEEDS, Row, Scene, final_map, spread
from backend.evaluation.simulated_project import Of, Project, of_scene
from backend.vlpl import coverage
from backend.vlpl.decisions import NEGATIVE, POSITIVE
from backend.vlpl.metrics import expected_clicks
from benchmarks.protocol import TABLE

MEASURED = (25, 50, 100, 200)
"""Numbers of reviewed photos at which a head is measured."""
LABELLING = 100
"""Photos over which the clicks are counted, from the first on."""
EVEN = 0.5
"""The probability at which a label is as likely there as not."""
Pick = Callable[[Scene, Tensor, Tensor], Tensor]
"""Scene, (n_train,) whether a row is reviewed, and (n_train, C) the present head's probabilities ->
the rows of the next round."""


def _random(scene: Scene, reviewed: Tensor, p: Tensor) -> Tensor:
    # The rows of the training half are in random order.
    return (~reviewed).nonzero().squeeze(1)[: coverage.ROUND]


def _least_certain(scene: Scene, reviewed: Tensor, p: Tensor) -> Tensor:
    changes = torch.where(p >= EVEN, 1 - p, p).sum(1)
    changes[reviewed] = -1.0
    left = min(coverage.ROUND, int((~reviewed).sum()))
    return changes.argsort(descending=True, stable=True)[:left]


def _coverage(scene: Scene, reviewed: Tensor, p: Tensor) -> Tensor:
    assert scene.data.image is not None
    images = scene.data.image[scene.train].numpy()
    return torch.tensor(coverage.next_round(images, reviewed.numpy()))


ORDERS: dict[str, Pick] = {
    "random": _random,
    "least certain first": _least_certain,
    "coverage, rounds of 25": _coverage,
}


def review_orders(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP by number of reviewed photos, and clicks a photo meanwhile, for each order."""
    maps: dict[str, dict[int, list[float]]] = {}
    clicks: dict[str, list[float]] = {}
    for seed in seeds:
        scene = Scene.of(data, seed)
        project = of_scene(scene, Of.PROJECT)
        for name, pick in ORDERS.items():
            by_count, clicked = run_order(scene, project, pick, is_random=pick is _random)
            for count, value in by_count.items():
                maps.setdefault(name, {}).setdefault(count, []).append(value)
            clicks.setdefault(name, []).append(clicked)
    rows = []
    for name in ORDERS:
        row: Row = {"order": name}
        for count, values in maps[name].items():
            pairs = zip(values, maps["random"][count], strict=True)
            difference = statistics.mean(value - other for value, other in pairs)
            mean = spread(values)
            row[str(count)] = f"{mean['mean']:.1f} ± {mean['sd']:.1f} ({difference:+.1f})"
        rows.append({**row, f"clicks a photo, first {LABELLING}": spread(clicks[name])})
    return rows


def run_order(
    scene: Scene, project: Project, pick: Pick, *, is_random: bool
) -> tuple[dict[int, float], float]:
    """Review the training rows of a scene in one order.

    Args:
        scene: the split.
        project: the scene as a project.
        pick: the order.
        is_random: whether it is a fair sample, on which the zero-shot probability is corrected.

    Returns:
        Number of reviewed rows -> test mAP in percent; and the clicks for each of the first
        `LABELLING` rows, where what the head of the round before suggests is ticked.
    """
    truth = scene.data.truth[scene.train]
    reviewed = torch.zeros(len(truth), dtype=torch.bool)
    maps: dict[int, float] = {}
    clicks: list[float] = []
    while True:
        count = int(reviewed.sum())
        codes = torch.where(truth[reviewed] > 0, POSITIVE, NEGATIVE)
        fitted = project.fitted(scene.train[reviewed], codes, TABLE, is_random=is_random)
        if count in MEASURED:
            maps[count] = final_map(scene, project.probabilities(fitted.head, scene.test))
        if count >= min(max(MEASURED), len(truth)):
            return maps, statistics.mean(clicks)
        p = project.probabilities(fitted.head, scene.train).double()
        chosen = pick(scene, reviewed, p)
        if count < LABELLING:
            clicks.append(expected_clicks(p[chosen] >= fitted.thresholds, truth[chosen])[0])
        reviewed[chosen] = True
