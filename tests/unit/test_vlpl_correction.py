"""Slope and offset of probabilities after a handful of reviews."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from backend.vlpl.correction import AS_IT_IS, CAUTION, Correction, Prior, correct

WIDE = Prior((1.0, 0.0), (1e6, 0.0, 1e6))
PRIOR = Prior((1.33, -3.19), (0.28, -0.035, 1.616))


def population(count: int, seed: int, labels: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, labels, generator=generator) - 1.5
    truth = (torch.rand(count, labels, generator=generator) < torch.sigmoid(logits)).long()
    return logits, truth


def test_a_distortion_is_undone():
    logits, truth = population(3000, 0)
    fitted = correct((logits - 1.0) * 3.0, truth, AS_IT_IS)
    assert (fitted.slope, fitted.offset) == pytest.approx((1 / 3, 1.0), abs=0.1)


def test_without_a_prior_it_is_logistic_regression():
    logits, truth = population(2000, 1)
    fitted = correct(logits, truth, WIDE)
    reference = LogisticRegression(C=1e6).fit(logits.flatten()[:, None], truth.flatten())
    assert fitted.slope == pytest.approx(reference.coef_[0, 0], abs=1e-4)
    assert fitted.offset == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_without_a_review_it_is_the_prior():
    fitted = correct(torch.zeros(0, 4), torch.zeros(0, 4), PRIOR)
    assert (fitted.slope, fitted.offset) == pytest.approx(PRIOR.mean)
    assert fitted.covariance == pytest.approx(PRIOR.covariance)


def test_each_review_makes_it_more_certain():
    logits, truth = population(200, 2)
    spreads = [correct(logits[:n], truth[:n], PRIOR).covariance for n in (0, 5, 20, 200)]
    for before, after in pairwise(spreads):
        assert after[0] < before[0] and after[2] < before[2]


def test_one_class_alone_never_turns_the_ranking_around():
    logits, truth = population(50, 3)
    assert correct(logits, torch.zeros_like(truth), AS_IT_IS).slope > 0
    assert correct(-logits, truth, AS_IT_IS).slope > 0


def test_a_label_is_ticked_where_the_cautious_logit_reaches_0():
    fitted = Correction(1.2, -3.0, (0.05, -0.01, 0.3))
    threshold = fitted.tick_from(CAUTION)
    z = (math.log(threshold / (1 - threshold)) + 3.0) / 1.2
    deviation = math.sqrt(0.05 * z * z - 0.02 * z + 0.3)
    assert 1.2 * z - 3.0 - CAUTION * deviation == pytest.approx(0.0, abs=1e-6)
    assert 0.5 < threshold < fitted.tick_from(2 * CAUTION) < 1
    assert fitted.tick_from(0.0) == pytest.approx(0.5)
    certain = dataclasses.replace(fitted, covariance=(0.0, 0.0, 0.0))
    assert certain.tick_from(CAUTION) == pytest.approx(0.5)


def test_nothing_is_ticked_where_even_the_slope_is_uncertain():
    assert Correction(0.1, -3.0, (1.0, 0.0, 1.0)).tick_from(CAUTION) == 1.0


def test_a_prior_survives_being_stored():
    assert Prior.from_dict(json.loads(json.dumps(dataclasses.asdict(PRIOR)))) == PRIOR


def test_scores_that_are_not_finite_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="finite"):
        correct(torch.full((4, 2), float("nan")), torch.ones(4, 2), PRIOR)
    with pytest.raises(ValueError, match="shape"):
        correct(torch.zeros(4, 2), torch.ones(4, 3), PRIOR)
