"""The two bands, and the conformal promise of the second."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.vlpl.calibration import NEVER
from benchmarks.bands import conformal_threshold, fit_bands


def _population(count: int, seed: int, labels: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, labels, generator=generator) - 1.5
    truth = (torch.rand(count, labels, generator=generator) < torch.sigmoid(logits)).long()
    return logits, truth


def test_a_label_is_in_one_band_at_most_and_nine_tenths_of_the_true_labels_are_in_one() -> None:
    fresh, fresh_truth = _population(20_000, 999)
    missed = []
    for seed in range(10):
        logits, truth = _population(1000, seed)
        suggested, maybe = fit_bands(torch.sigmoid(logits), truth).of(torch.sigmoid(fresh))
        assert not bool((suggested & maybe).any())
        lost = (~(suggested | maybe) & fresh_truth.bool()).sum(1)
        missed.append(float((lost / fresh_truth.sum(1).clamp_min(1)).mean()))
    assert sum(missed) / len(missed) < 0.1 + 0.01


def test_an_unreachable_precision_leaves_the_suggest_band_empty() -> None:
    probability = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    bands = fit_bands(probability, torch.zeros(200, 3))
    assert bands.suggest.tolist() == [NEVER] * 3
    assert not bool(bands.of(probability)[0].any())


def test_conformal_control_keeps_its_promise_over_200_splits() -> None:
    logits, truth = _population(1200, 8)
    probability = torch.sigmoid(logits)
    missed = []
    for seed in range(200):
        order = torch.randperm(1200, generator=torch.Generator().manual_seed(seed))
        first, second = order[:200], order[200:]
        threshold = conformal_threshold(probability[first], truth[first], 0.1)
        lost = ((probability[second] < threshold) & truth[second].bool()).sum(1)
        missed.append(float((lost / truth[second].sum(1).clamp_min(1)).mean()))
    mean = sum(missed) / len(missed)
    assert 0.08 < mean <= 0.1 + 2 * float(torch.tensor(missed).std()) / 200**0.5


def test_conformal_control_promises_nothing_from_too_few_images() -> None:
    logits, truth = _population(8, 9)
    assert conformal_threshold(torch.sigmoid(logits), truth, 0.1) == 0.0


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        conformal_threshold(torch.full((4, 2), float("nan")), torch.ones(4, 2))
