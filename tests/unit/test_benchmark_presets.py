"""The measures of pseudo-labels, and the scores that the paper's presets are applied to."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import precision_score, recall_score

from backend.evaluation.protocol import softmax_scores
from backend.vlpl.decisions import NEGATIVE, POSITIVE, PSEUDO_NEGATIVE, PSEUDO_POSITIVE, UNKNOWN
from backend.vlpl.pseudo_labels import Rule, assign
from benchmarks.presets import PAPER, RELEASED, quality


def test_quality_counts_what_scikit_learn_counts() -> None:
    generator = torch.Generator().manual_seed(5)
    truth = (torch.rand(200, 10, generator=generator) < 0.15).long()
    scores = 3.0 * truth + torch.randn(200, 10, generator=generator)
    pseudo = assign(scores, torch.zeros_like(truth), Rule(2.0, 0.3))
    measured = quality(pseudo, truth)
    positive = (pseudo == PSEUDO_POSITIVE).flatten()
    assert measured.positive_precision == pytest.approx(precision_score(truth.flatten(), positive))
    assert measured.positive_recall == pytest.approx(recall_score(truth.flatten(), positive))
    assert measured.coverage == pytest.approx(float((pseudo != UNKNOWN).float().mean()))


def test_quality_leaves_observed_labels_out() -> None:
    pseudo = torch.tensor([[POSITIVE, NEGATIVE, PSEUDO_POSITIVE, PSEUDO_NEGATIVE, UNKNOWN]])
    measured = quality(pseudo, torch.tensor([[1, 0, 1, 1, 0]]))
    assert measured.positive_precision == 1.0 and measured.negative_precision == 0.0
    assert measured.positive_recall == 0.5 and measured.coverage == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="pseudo-labels"):
        quality(pseudo, torch.zeros(1, 4))


def test_the_presets_differ_in_their_negatives_only() -> None:
    cosine = torch.tensor([[0.30, 0.30, 0.20, 0.19, 0.18]])
    scores = softmax_scores(cosine)
    torch.testing.assert_close(scores, (100 * cosine).softmax(dim=1))
    unknown = torch.zeros(1, 5, dtype=torch.int64)
    positives = [PSEUDO_POSITIVE, PSEUDO_POSITIVE, UNKNOWN, UNKNOWN]
    assert assign(scores, unknown, PAPER.rule).tolist() == [[*positives, PSEUDO_NEGATIVE]]
    assert assign(scores, unknown, RELEASED.rule).tolist() == [[*positives, UNKNOWN]]
