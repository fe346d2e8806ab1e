"""Which photos to review first: at random, the least certain ones, or those that cover the others.

A part of benchmarks/spml.py. Photos of the training half are reviewed in rounds of 25; after each
round a head is trained on all that is reviewed. Test labels are read by the final mAP alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backend.vlpl import coverage, selection
from backend.vlpl.calibration import fit_platt
from backend.vlpl.fitting import CALIBRATE_FROM
from backend.vlpl.head import Head, zero_shot_head
from backend.vlpl.metrics import expected_clicks
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN
from benchmarks.data import Dataset
from benchmarks.protocol import ANCHOR, SEEDS, Row, Scene, evaluate, spread, training_of

MEASURED = (25, 50, 100, 200)
"""Numbers of reviewed photos at which a head is measured."""
LABELLING = 100
"""Photos over which the clicks are counted, from the first on."""
TICKED_FROM = 0.5
Pick = Callable[[Scene, Tensor, Tensor], Tensor]
"""Scene, (n_train,) whether a row is reviewed, and (n_train, C) the present head's probabilities ->
the rows of the next round."""


def _random(scene: Scene, reviewed: Tensor, p: Tensor) -> Tensor:
    # The rows of the training half are in random order.
    return (~reviewed).nonzero().squeeze(1)[: coverage.ROUND]


def _least_certain(scene: Scene, reviewed: Tensor, p: Tensor) -> Tensor:
    changes = torch.where(p >= TICKED_FROM, 1 - p, p).sum(1)
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
        for name, pick in ORDERS.items():
            by_count, clicked = run_order(scene, pick)
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


def run_order(scene: Scene, pick: Pick) -> tuple[dict[int, float], float]:
    """Review the training rows of a scene in one order.

    Returns:
        Number of reviewed rows -> test mAP in percent; and the clicks for each of the first
        `LABELLING` rows, where what the head of the round before suggests is ticked.
    """
    truth = scene.data.truth[scene.train]
    reviewed = torch.zeros(len(truth), dtype=torch.bool)
    codes = torch.full_like(truth, UNKNOWN)
    head = zero_shot_head(scene.card(), _width(scene), *ANCHOR)
    maps: dict[int, float] = {}
    clicks: list[float] = []
    while int(reviewed.sum()) < min(max(MEASURED), len(truth)):
        p = _probabilities(scene, head)
        rows = pick(scene, reviewed, p)
        if int(reviewed.sum()) < LABELLING:
            clicks.append(expected_clicks(p[rows] >= TICKED_FROM, truth[rows])[0])
        reviewed[rows] = True
        codes[rows] = torch.where(truth[rows] > 0, POSITIVE, NEGATIVE)
        head = _head(scene, codes)
        if int(reviewed.sum()) in MEASURED:
            maps[int(reviewed.sum())] = evaluate(scene, head)
    return maps, statistics.mean(clicks)


def _head(scene: Scene, codes: Tensor) -> Head:
    """A head trained on the reviewed rows and calibrated on its own held-out folds."""
    prepared = training_of(scene, codes)
    chosen = selection.select(prepared)
    head = selection.fit_selected(prepared, chosen, scene.card())
    if len(chosen.rows) < CALIBRATE_FROM:
        return head
    scale = fit_platt(chosen.held_out, prepared.labels[chosen.rows] == POSITIVE)
    return head.rescaled(scale.scale, scale.shift)


def _probabilities(scene: Scene, head: Head) -> Tensor:
    assert scene.data.image is not None
    return head.probabilities(scene.data.image[scene.train], scene.z[scene.train]).double()


def _width(scene: Scene) -> int:
    assert scene.data.image is not None
    return scene.data.image.shape[1]
