"""Metrics against scikit-learn, and where they are undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from backend.vlpl import metrics


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_scikit_learns_also_with_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (300, 6), generator=generator).float()
    truth = torch.rand(300, 6, generator=generator) < 0.2
    ours = metrics.average_precision(scores, truth)
    theirs = [average_precision_score(truth[:, c], scores[:, c]) for c in range(6)]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)
    assert metrics.mean_average_precision(scores, truth) == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_rates_are_scikit_learns(average: str) -> None:
    generator = torch.Generator().manual_seed(1)
    predicted = torch.rand(200, 8, generator=generator) < 0.3
    truth = torch.rand(200, 8, generator=generator) < 0.2
    ours = {"micro": metrics.micro, "macro": metrics.macro}[average]
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth.numpy(), predicted.numpy(), average=average, zero_division=0
    )
    rates = ours(predicted, truth)
    assert (rates.precision, rates.recall, rates.f1) == pytest.approx((precision, recall, f1))


def test_a_label_without_positives_has_no_average_precision_and_is_left_out() -> None:
    scores, truth = torch.rand(5, 2), torch.tensor([[1, 0]] * 5)
    assert math.isnan(float(metrics.average_precision(scores, truth)[1]))
    assert metrics.mean_average_precision(scores, truth) == 1.0
    assert math.isnan(metrics.mean_average_precision(scores, truth, min_positives=6))


def test_calibration_error_of_known_cases() -> None:
    truth = torch.tensor([1, 0, 1, 0])
    assert metrics.expected_calibration_error(torch.full((4,), 0.5), truth) == pytest.approx(0.0)
    assert metrics.expected_calibration_error(torch.full((4,), 0.9), truth) == pytest.approx(0.4)
    assert metrics.expected_calibration_error(truth.float(), truth) == 0.0


def test_clicks_count_labels_to_add_and_to_remove() -> None:
    predicted = torch.tensor([[1, 1, 0], [0, 0, 0]])
    truth = torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert metrics.expected_clicks(predicted, truth) == (1.5, 1.5)


def test_bootstrap_interval_holds_the_value_and_is_reproducible() -> None:
    generator = torch.Generator().manual_seed(2)
    truth = (torch.rand(200, 3, generator=generator) < 0.3).long()
    scores = truth + torch.randn(200, 3, generator=generator)
    low, high = metrics.bootstrap_interval(metrics.mean_average_precision, scores, truth)
    assert low < metrics.mean_average_precision(scores, truth) < high
    again = metrics.bootstrap_interval(metrics.mean_average_precision, scores, truth)
    assert again == (low, high)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        metrics.average_precision(torch.rand(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="suggestions"):
        metrics.micro(torch.ones(3, 2), torch.ones(2, 2))


@pytest.mark.parametrize("levels", [3, 1000])
def test_resampled_map_is_that_of_the_resampled_images(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (120, 5), generator=generator).float()
    truth = torch.rand(120, 5, generator=generator) < torch.tensor([0.02, 0.3, 0.3, 0.5, 0.1])
    found = metrics.bootstrap_map(scores, truth, min_positives=10, resamples=20, seed=4)
    kept = truth.sum(0) >= 10
    assert 0 < int(kept.sum()) < 5
    drawn = torch.randint(120, (20, 120), generator=torch.Generator().manual_seed(4))
    plain = [
        metrics.average_precision(scores[rows][:, kept], truth[rows][:, kept]).nanmean()
        for rows in drawn
    ]
    np.testing.assert_allclose(found.numpy(), torch.stack(plain).numpy(), atol=1e-12)


def test_resampled_map_without_a_label_that_counts_is_undefined() -> None:
    found = metrics.bootstrap_map(torch.rand(5, 2), torch.zeros(5, 2), resamples=3)
    assert found.shape == (3,) and bool(found.isnan().all())
