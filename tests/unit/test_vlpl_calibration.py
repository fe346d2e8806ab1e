"""Thresholds that hold what they aim at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.vlpl import calibration as cal
from backend.vlpl.metrics import micro


def _population(count: int, seed: int, labels: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, labels, generator=generator) - 1.5
    truth = (torch.rand(count, labels, generator=generator) < torch.sigmoid(logits)).long()
    return logits, truth


@pytest.mark.parametrize("rows", [300, 3000])
def test_precision_and_recall_goals_are_held_on_new_images_on_average(rows: int) -> None:
    fresh, fresh_truth = _population(20_000, 999)
    kept, shown = [], []
    for seed in range(40):
        logits, truth = _population(rows, seed)
        strict, _ = cal.label_thresholds(torch.sigmoid(logits), truth, "precision", 0.9)
        lax, _ = cal.label_thresholds(torch.sigmoid(logits), truth, "recall", 0.9)
        suggested = torch.sigmoid(fresh) >= strict
        shown.append(micro(torch.sigmoid(fresh) >= lax, fresh_truth).recall)
        if bool(suggested.any()):
            kept.append(micro(suggested, fresh_truth).precision)
    assert len(kept) > 20
    assert sum(kept) / len(kept) > 0.9 - 0.01
    assert sum(shown) / len(shown) > 0.9 - 0.01


def test_the_bound_asks_for_more_than_the_estimate() -> None:
    """A threshold at the measured precision of 0.9 would miss 0.9 on half of all new images."""
    fresh, fresh_truth = _population(20_000, 999)
    short = {"estimate": 0, "bound": 0}
    for seed in range(40):
        logits, truth = _population(1000, seed)
        probability = torch.sigmoid(logits)
        p, order = probability.flatten().sort(descending=True)
        precision = truth.flatten()[order].cumsum(0) / torch.arange(1, len(p) + 1)
        lowest = float(p[int((precision >= 0.9).nonzero().max())])
        _, overall = cal.label_thresholds(probability, truth, "precision", 0.9)
        for name, threshold in (("estimate", lowest), ("bound", overall)):
            rates = micro(torch.sigmoid(fresh) >= threshold, fresh_truth)
            short[name] += overall <= 1 and rates.precision < 0.9
    assert short["bound"] <= 8 and short["estimate"] >= 14, short


def test_a_label_never_seen_gets_the_global_threshold() -> None:
    logits, truth = _population(3000, 12)
    probability = torch.sigmoid(logits)
    probability[:, 0], truth[:, 0] = 0.0, 0
    for goal in ("precision", "recall"):
        each, overall = cal.label_thresholds(probability, truth, goal, 0.9)
        assert float(each[0]) == overall


def test_recall_and_f1_goals() -> None:
    logits, truth = _population(3000, 5)
    probability = torch.sigmoid(logits)
    recall, _ = cal.label_thresholds(probability, truth, "recall", 0.9)
    assert micro(probability >= recall, truth).recall > 0.88
    best, _ = cal.label_thresholds(probability, truth, "f1")
    half = micro(probability >= 0.5, truth).f1
    assert micro(probability >= best, truth).f1 >= half - 0.01


def test_a_rare_labels_threshold_is_shrunk_to_the_global_one() -> None:
    logits, truth = _population(500, 6)
    truth[:, 0] = 0
    truth[7, 0] = 1
    probability = torch.sigmoid(logits)
    probability[:, 0] = 0.01
    probability[7, 0] = 0.02
    shrunk, overall = cal.label_thresholds(probability, truth, "f1", shrink=1e6)
    assert shrunk.tolist() == pytest.approx([overall] * 6)
    free, _ = cal.label_thresholds(probability, truth, "f1", shrink=0.0)
    assert float(free[0]) < overall


def test_an_unreachable_precision_suggests_nothing() -> None:
    probability = torch.rand(200, 3)
    each, overall = cal.label_thresholds(probability, torch.zeros(200, 3), "precision", 0.9)
    assert each.tolist() == [cal.NEVER] * 3 and overall == cal.NEVER
    assert not bool((probability >= each).any())


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        cal.label_thresholds(torch.zeros(4, 0), torch.zeros(4, 0))
