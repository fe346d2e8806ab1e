"""Training: converges to scikit-learn's optimum, keeps labels apart, chooses on reviewed rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from backend.vlpl import selection, training
from backend.vlpl.decisions import NEGATIVE, POSITIVE, PSEUDO_POSITIVE, UNKNOWN
from backend.vlpl.metrics import mean_average_precision
from backend.vlpl.training import BCE, OBJECTIVES, Training, reviewed_rows
from tests.support.scene import A0, B0, card, codes, scene

BY_NAME = {goal.name: goal for goal in OBJECTIVES}
NAMES = [*BY_NAME]
KEEPS_LABELS_APART = {"bce"}
WAITS_FOR_COMPLETE_ROWS = {"bce-reviewed"}
MOVES_OTHER_LABELS = {"wan", "wan-0.1", "an", "em", "em-0.02", "em-apl", "ll-r", "vlpl"}
"""Under these a first observation makes its row count, with all that the objective assumes about
the row's unknown labels: annotating one label moves the others."""


def _prepared(labels: Tensor, rows: int = 200) -> Training:
    image, z, _ = scene(rows)
    return Training.of(image, z, labels, a0=A0, b0=B0)


def test_the_optimum_is_scikit_learns() -> None:
    image, _, truth = scene(300)
    zeros = torch.zeros(300, 4)
    prepared = Training.of(image, zeros, codes(truth), a0=0.0, b0=0.0)
    solution = prepared.solve(BCE, 0.5, tolerance=1e-6)
    x = prepared.basis.x.double().numpy()
    # The offset is penalised here and free there, so it enters as one more, scaled column.
    x = np.hstack([x, np.full((300, 1), np.sqrt(0.5 / training.OFFSET_L2))])
    for label in range(4):
        reference = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-8, max_iter=1000)
        expected = reference.fit(x, truth[:, label]).decision_function(x)
        ours = prepared.predict(solution.theta, torch.arange(300))[:, label]
        np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_converges(name: str) -> None:
    _, _, truth = scene()
    labels = codes(truth)
    labels[50:] = labels[50:].where(labels[50:] == POSITIVE, UNKNOWN)
    labels[150:, 0] = PSEUDO_POSITIVE
    solution = _prepared(labels).solve(BY_NAME[name], 0.3)
    assert bool(solution.theta.isfinite().all())
    assert solution.residual < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_annotating_one_label_leaves_the_others_alone_only_under_masked_bce(name: str) -> None:
    image, z, truth = scene()
    labels = torch.full_like(truth, UNKNOWN)
    labels[:40] = codes(truth)[:40]
    more = labels.clone()
    more[40:, 0] = codes(truth)[40:, 0]
    before = training.fit(_prepared(labels), card(), BY_NAME[name]).logits(image, z)
    after = training.fit(_prepared(more), card(), BY_NAME[name]).logits(image, z)
    if name in WAITS_FOR_COMPLETE_ROWS:
        assert torch.equal(before, after)
        return
    assert not torch.equal(before[:, 0], after[:, 0])
    if name in KEEPS_LABELS_APART:
        assert torch.equal(before[:, 1:], after[:, 1:])
    else:
        assert name in MOVES_OTHER_LABELS
        assert not torch.equal(before[:, 1:], after[:, 1:])


def test_same_data_same_bytes() -> None:
    _, _, truth = scene()
    heads = []
    for _ in range(2):
        prepared = _prepared(codes(truth))
        heads.append(
            selection.fit_selected(prepared, selection.select(prepared), card()).to_bytes()
        )
    assert heads[0] == heads[1]


@pytest.mark.parametrize("positives", range(6))
def test_a_rare_label_stays_near_zero_shot(positives: int) -> None:
    image, z, truth = scene()
    present = (truth[:, 2] > 0).nonzero().squeeze(1)
    kept = torch.ones(len(truth), dtype=torch.bool)
    kept[present[positives:]] = False
    given = Training.of(image[kept], z[kept], codes(truth[kept]), a0=A0, b0=B0)
    head = training.fit(given, card())
    fresh_image, fresh_z, fresh_truth = scene(2000, seed=21)
    after = head.logits(fresh_image, fresh_z)[:, 2:3]
    correlation = torch.corrcoef(torch.stack([after[:, 0], fresh_z[:, 2].double()]))[0, 1]
    assert bool(after.isfinite().all()) and float(correlation) > 0.75
    expected = mean_average_precision(fresh_z[:, 2:3], fresh_truth[:, 2:3])
    assert mean_average_precision(after, fresh_truth[:, 2:3]) > expected - 0.05


def test_one_positive_with_a_low_score_does_not_turn_the_ranking_around() -> None:
    image, z, _ = scene(25)
    labels = torch.full((25, 4), NEGATIVE)
    labels[z[:, 1].argmin(), 1] = POSITIVE
    head = training.fit(Training.of(image, z, labels, a0=A0, b0=B0), card())
    assert float(head.slope[1]) > 0.7 * A0


def test_training_beats_zero_shot_on_new_images() -> None:
    image, z, truth = scene(400, seed=11)
    _, _, seen = scene()
    head = training.fit(_prepared(codes(seen)), card())
    trained = mean_average_precision(head.logits(image, z), truth)
    assert trained > mean_average_precision(z, truth) + 0.05


def test_a_row_of_weight_zero_does_not_count() -> None:
    image, z, truth = scene()
    labels = codes(truth)
    wrong = labels.clone()
    wrong[:50] = -wrong[:50]
    weights = torch.ones(200)
    weights[:50] = 0
    heads = [
        training.fit(Training.of(image, z, given, a0=A0, b0=B0, weights=weights), card())
        for given in (labels, wrong)
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)


def test_what_is_missing_of_a_rows_weight_speaks_for_zero_shot() -> None:
    image, z, truth = scene()
    zero = torch.sigmoid(A0 * z + B0)

    def moved(weight: float) -> float:
        prepared = Training.of(
            image,
            z,
            codes(truth),
            a0=A0,
            b0=B0,
            weights=torch.full((len(image),), weight),
        )
        theta = prepared.solve(BCE, 0.3, tolerance=1e-6).theta
        logits = prepared.head(theta, card()).logits(image, z)
        return float((torch.sigmoid(logits) - zero).abs().mean())

    assert moved(0.0) < 0.01
    assert 0.05 < moved(0.5) < moved(1.0)


def test_rows_that_confirm_zero_shots_threshold_leave_its_base_rate() -> None:
    image, z, _ = scene()
    zero = torch.sigmoid(A0 * z + B0)
    waved_through = zero >= 0.3
    expected = float(zero.sum())
    moved = {}
    for weight in (0.5, 1.0):
        prepared = Training.of(
            image,
            z,
            codes(waved_through),
            a0=A0,
            b0=B0,
            weights=torch.full((len(image),), weight),
        )
        theta = prepared.solve(BCE, 0.3, tolerance=1e-6).theta
        logits = prepared.head(theta, card()).logits(image, z)
        moved[weight] = abs(float(torch.sigmoid(logits).sum()) - expected)
    assert moved[0.5] < moved[1.0]


@pytest.mark.parametrize("name", NAMES)
def test_reviewed_single_positive_and_partly_reviewed_rows_mix(name: str) -> None:
    image, z, truth = scene()
    labels = codes(truth)
    labels[60:120] = labels[60:120].where(labels[60:120] == POSITIVE, UNKNOWN)
    labels[120:160, 1:3] = UNKNOWN
    labels[160:] = UNKNOWN
    head = training.fit(_prepared(labels), card(), BY_NAME[name])
    assert bool(head.logits(image, z).isfinite().all())
    assert head.card.counts[training.ROWS] == int((labels.abs() == POSITIVE).any(1).sum())
    assert head.card.counts[training.REVIEWED_ROWS] == int(reviewed_rows(labels).sum())
    untouched = training.fit(
        Training.of(image[:160], z[:160], labels[:160], a0=A0, b0=B0), card(), BY_NAME[name]
    )
    assert untouched.card.counts == head.card.counts


def test_the_card_says_what_the_head_was_made_from() -> None:
    _, _, truth = scene()
    prepared = _prepared(codes(truth))
    made = selection.fit_selected(prepared, selection.select(prepared), card())
    chosen = next(row for row in made.card.table if row["chosen"])
    assert made.card.objective == chosen["objective"] == "bce"
    assert made.card.constants == {"a0": A0, "b0": B0, "l2": chosen["l2"]}
    assert made.card.metrics["cross-validated mAP"] == chosen["map"]
    assert made.card.metrics["zero-shot mAP"] == made.card.table[-1]["map"]
    assert [made.card.counts[label] for label in made.card.labels] == truth.sum(0).tolist()
    named = training.fit(prepared, card(), BY_NAME["em-0.02"], 0.1)
    assert named.card.objective == "em-0.02"
    assert named.card.constants == {"alpha": 0.02, "a0": A0, "b0": B0, "l2": 0.1}


def test_auto_shows_every_candidate_and_follows_its_tie_rule() -> None:
    _, _, truth = scene()
    labels = codes(truth)
    labels[80:] = labels[80:].where(labels[80:] == POSITIVE, UNKNOWN)
    chosen = selection.select(_prepared(labels))
    tried = {row["objective"] for row in chosen.table}
    assert tried == {*NAMES, "zero-shot"} - {"vlpl"}
    best = max(row["map"] for row in chosen.table)
    first = next(row for row in chosen.table if row["map"] >= best - selection.TIE)
    assert first["chosen"] and sum(row["chosen"] for row in chosen.table) == 1
    assert torch.equal(chosen.rows, reviewed_rows(labels).nonzero().squeeze(1))


def test_pseudo_labels_bring_vlpl_in_and_reviewed_rows_alone_leave_bce() -> None:
    _, _, truth = scene()
    labels = codes(truth)
    assert selection.allowed(labels) == (BCE,)
    labels[100:] = UNKNOWN
    labels[100:, 1] = POSITIVE
    labels[100:, 2] = PSEUDO_POSITIVE
    assert BY_NAME["vlpl"] in selection.allowed(labels)


def test_held_out_predictions_come_from_fits_that_did_not_see_the_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turning one image's labels around must not change its own held-out prediction much, as it
    would if its labels had been fitted."""
    _, _, truth = scene()
    labels = codes(truth)
    flipped = labels.clone()
    flipped[0] = -flipped[0]
    monkeypatch.setattr(selection, "L2_GRID", (0.1,))
    first = selection.select(_prepared(labels))
    second = selection.select(_prepared(flipped))
    assert first.objective == second.objective == BCE and first.l2 == second.l2 is not None
    assert torch.equal(first.held_out[0], second.held_out[0])


def test_few_reviewed_images_do_not_choose() -> None:
    _, _, truth = scene()
    labels = torch.full_like(truth, UNKNOWN)
    labels[:5] = codes(truth)[:5]
    chosen = selection.select(_prepared(labels))
    assert chosen.table == () and chosen.l2 == training.DEFAULT_L2 and chosen.objective == BCE
    labels[50:, 1] = POSITIVE
    assert selection.select(_prepared(labels)).objective == BY_NAME["wan"]


def test_lengths_that_differ_are_refused() -> None:
    image, z, truth = scene()
    with pytest.raises(ValueError, match="length"):
        Training.of(image[:10], z, codes(truth), a0=A0, b0=B0)
