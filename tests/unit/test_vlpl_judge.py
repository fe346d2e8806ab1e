"""A worse head is refused, and a head is calibrated on what it was not trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backend.vlpl.correction import Prior
from backend.vlpl.decisions import NEGATIVE, POSITIVE, UNKNOWN
from backend.vlpl.fitting import POSITIVES_FROM, Aim, Rows, Start, fit, fit_correction
from backend.vlpl.head import Card
from backend.vlpl.judge import Ground, Measure, judge
from backend.vlpl.training import CORRECTED

LABELS = ("a", "b", "c", "d")


def data(count: int, noise: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """(what is known of all labels, scores that are the truth plus noise)."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(count, 4, generator=generator) < 0.3).double()
    scores = truth * 2 - 1 + noise * torch.randn(count, 4, generator=generator)
    return torch.where(truth.bool(), POSITIVE, NEGATIVE), torch.sigmoid(scores)


def test_a_better_head_is_accepted_and_a_worse_one_is_not():
    truth, good = data(80, 0.5)
    _, bad = data(80, 3.0, seed=1)
    assert judge(good, bad, truth, LABELS).accepted
    verdict = judge(bad, good, truth, LABELS)
    assert not verdict.accepted
    assert verdict.ground == Ground.WORSE
    assert verdict.metrics["mAP"] < verdict.metrics["serving mAP"]
    assert verdict.metrics["mAP low"] < verdict.metrics["mAP high"] < 0


def test_of_fewer_than_five_tasks_no_difference_is_significant():
    truth = torch.tensor([[POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE]] * 5)
    good = torch.tensor([[0.9, 0.1, 0.1, 0.1]] * 5)
    bad = torch.tensor([[0.1, 0.9, 0.9, 0.9]] * 5)
    for count, accepted in ((1, True), (4, True), (5, False)):
        verdict = judge(bad[:count], good[:count], truth[:count], LABELS)
        assert verdict.accepted == accepted
        assert verdict.ground == (Ground.FEW_TASKS if accepted else Ground.WORSE)


def test_a_single_positive_rejects_no_head_however_many_tasks_are_judged():
    truth = torch.full((30, 4), NEGATIVE)
    good, bad = torch.full((30, 4), 0.1), torch.full((30, 4), 0.1)
    good[0], bad[1:] = 0.9, 0.9
    for positives, accepted in ((1, True), (2, True), (3, False)):
        truth[0, :positives] = POSITIVE
        assert judge(bad, good, truth, LABELS).accepted == accepted


def test_map_leaves_out_labels_with_fewer_than_three_judged_positives():
    truth, good = data(40, 0.5)
    truth[:, 3] = NEGATIVE
    truth[:2, 3] = POSITIVE
    odd = good.clone()
    odd[:, 3] = 1 - odd[:, 3]
    odd[:2, 3] = 0.0
    for name in ("mAP", "serving mAP", "mAP low", "mAP high"):
        assert judge(odd, good, truth, LABELS).metrics[name] == pytest.approx(
            judge(good[:, :3], good[:, :3], truth[:, :3], LABELS[:3]).metrics[name]
        )
    truth[2, 3] = POSITIVE
    verdict = judge(odd, good, truth, LABELS)
    assert verdict.metrics["mAP"] < verdict.metrics["serving mAP"]


def test_where_no_label_has_three_judged_positives_there_is_no_map():
    truth = torch.full((24, 4), NEGATIVE)
    truth[:2] = POSITIVE
    same = torch.rand(24, 4, generator=torch.Generator().manual_seed(0))
    verdict = judge(same, same, truth, LABELS)
    assert (verdict.accepted, verdict.ground) == (True, Ground.FEW_POSITIVES)
    assert "mAP" not in verdict.metrics and "pooled AP" in verdict.metrics
    assert verdict.measured and verdict.most_positives == 2
    truth[:] = NEGATIVE
    nothing = judge(same, same, truth, LABELS)
    assert nothing.ground == Ground.NO_POSITIVE and not nothing.measured


def test_equal_heads_are_accepted():
    truth, good = data(40)
    assert judge(good, good, truth, LABELS).accepted


def test_a_label_that_collapses_is_named():
    truth, good = data(300, 1.5)
    broken = good.clone()
    broken[:, 2] = 1 - broken[:, 2]
    # So much better everywhere else that no mean would tell.
    better = (truth == POSITIVE).double() * 0.9 + 0.05
    broken[:, [0, 1, 3]] = better[:, [0, 1, 3]]
    verdict = judge(broken, good, truth, LABELS)
    assert not verdict.accepted
    assert (verdict.ground, verdict.fallen) == (Ground.COLLAPSED, ("c",))


def test_labels_that_are_ranked_badly_against_each_other_are_noticed():
    truth, good = data(200, 0.7)
    squeezed = good.clone()
    squeezed[:, 0] = squeezed[:, 0] * 1e-3
    squeezed[:, 1] = 0.999 + squeezed[:, 1] * 1e-3
    verdict = judge(squeezed, good, truth, LABELS)
    assert not verdict.accepted
    assert verdict.difference is not None and verdict.difference.measure == Measure.POOLED


def test_without_a_judged_task_nothing_can_be_refused():
    nothing = torch.zeros(0, 4)
    verdict = judge(nothing, nothing, nothing.long(), LABELS)
    assert (verdict.accepted, verdict.ground) == (True, Ground.NO_TASK)


def test_a_label_that_was_added_later_is_judged_where_it_is_known_and_hides_no_other():
    truth, good = data(80, 0.5)
    _, bad = data(80, 3.0, seed=1)
    later = truth.clone()
    later[:60, 3] = UNKNOWN
    verdict = judge(bad, good, later, LABELS)
    assert not verdict.accepted
    assert verdict.metrics["judged"] == 80
    # What is unknown is no evidence for or against anyone.
    odd = good.clone()
    odd[:60, 3] = 1 - odd[:60, 3]
    assert judge(odd, good, later, LABELS).metrics == judge(good, good, later, LABELS).metrics


def rows(count: int, judged: int, dim: int = 16, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 4, generator=generator) < 0.35
    directions = torch.randn(4, dim, generator=generator)
    image = truth.float() @ directions + 0.4 * torch.randn(count, dim, generator=generator)
    image = image / image.norm(dim=1, keepdim=True)
    z = truth.float() + 1.5 * torch.randn(count, 4, generator=generator)
    return Rows(
        image,
        z,
        torch.where(truth, POSITIVE, NEGATIVE),
        torch.ones(count),
        torch.arange(count) < judged,
        torch.ones(count, dtype=torch.bool),
    )


CARD = Card(LABELS, "stub", "none")
START = Start(1.0, -1.0, Prior((1.0, -1.0), (0.3, 0.0, 1.6)))


def test_the_held_out_predictions_are_those_of_the_trained_rows_as_percentages_are_shown():
    some = rows(120, 30)
    made = fit(some, CARD, START, Aim(0.3))
    assert torch.equal(made.held_out.known, some.labels[~some.judged])
    own = made.head.probabilities(some.image[~some.judged], some.z[~some.judged])
    # Of other fits, yet on the same scale.
    assert not torch.equal(own.double(), made.held_out.probability)
    assert abs(float(own.mean() - made.held_out.probability.mean())) < 0.03


def test_judged_rows_never_change_the_weights():
    some = rows(120, 30)
    other = Rows(
        some.image,
        some.z,
        torch.where(some.judged[:, None], -some.labels, some.labels),
        some.weights,
        some.judged,
        some.random,
    )
    before = fit(some, CARD, START, Aim(0.3)).head.weight
    after = fit(other, CARD, START, Aim(0.3)).head.weight
    # Up to the calibration's common factor.
    assert torch.allclose(before / before.norm(), after / after.norm(), atol=1e-3)


def test_a_fitted_head_beats_zero_shot():
    some = rows(200, 60)
    made = fit(some, CARD, START, Aim(0.3))
    audited = some.audited
    zero = torch.sigmoid(some.z[audited] - 1.0)
    mine = made.head.probabilities(some.image[audited], some.z[audited])
    verdict = judge(mine, zero, some.labels[audited], LABELS)
    assert verdict.accepted
    assert verdict.metrics["mAP"] > verdict.metrics["serving mAP"] + 0.1


def test_a_label_that_is_added_in_mid_project_costs_no_review():
    some = rows(200, 60)
    labels = some.labels.clone()
    labels[:190, 3] = UNKNOWN
    later = Rows(some.image, some.z, labels, some.weights, some.judged, some.random)
    assert int(later.audited.sum()) == 60
    made = fit(later, CARD, START, Aim(0.3))
    assert made.head.card.objective == "bce"
    assert any("corrected on 60 randomly chosen tasks" in note for note in made.notes)
    whole = fit(some, CARD, START, Aim(0.3))
    alike = torch.cosine_similarity(made.head.weight[:3], whole.head.weight[:3])
    assert bool((alike > 0.95).all())
    reached = fit(later, CARD, START, Aim(0.3, "recall", 0.8))
    assert reached.thresholds.tolist() != [0.3] * 4


def test_a_goal_that_cannot_be_reached_leaves_the_threshold_and_says_so():
    made = fit(rows(60, 12), CARD, START, Aim(0.3, "precision", 0.999))
    plain = fit(rows(60, 12), CARD, START, Aim(0.3))
    assert made.thresholds.tolist() == plain.thresholds.tolist() and min(made.thresholds) >= 0.3
    assert any("No threshold" in note for note in made.notes)
    reached = fit(rows(400, 200), CARD, START, Aim(0.3, "recall", 0.8))
    assert reached.thresholds.tolist() != made.thresholds.tolist()


def test_few_calibration_rows_make_a_head_cautious():
    """What two dozen images say of a head is uncertain, so that only sure labels are ticked."""
    few, many = (fit(rows(n, n // 2), CARD, START, Aim(0.5)) for n in (24, 1600))
    assert 0.5 <= float(many.thresholds[0]) < float(few.thresholds[0]) < 1


def test_only_random_rows_calibrate_and_correct():
    """Images that were chosen because they are uncertain have more or fewer labels than others."""
    some = rows(60, 0)
    chosen = replace(some, random=torch.zeros(60, dtype=torch.bool))
    made = fit(chosen, CARD, START, Aim(0.5))
    assert not any("were corrected on" in note for note in made.notes)
    assert made.thresholds.tolist() == [0.5] * 4
    assert made.head.card.constants["a0"] == START.slope
    assert fit_correction(chosen, CARD, START, Aim(0.5)) is None
    assert fit(some, CARD, START, Aim(0.5)).head.card.constants["a0"] != START.slope


def test_a_handful_of_reviews_corrects_how_often_labels_are_expected():
    some = rows(10, 0)
    assert int((some.labels == POSITIVE).sum()) >= POSITIVES_FROM
    made = fit_correction(some, CARD, START, Aim(0.5))
    assert made is not None and made.head.card.objective == CORRECTED
    assert not bool(made.head.weight.any())
    assert float(made.head.slope[0]) != START.slope and float(made.thresholds[0]) > 0.5
    assert "corrected by randomly chosen reviews (10)" in made.notes[0]
    few = replace(some, labels=torch.full_like(some.labels, NEGATIVE))
    assert fit_correction(few, CARD, START, Aim(0.5)) is None


def test_known_labels_alone_train_beside_reviewed_rows():
    some = rows(300, 60)
    labels = some.labels.clone()
    generator = torch.Generator().manual_seed(5)
    for place in range(100, 300):
        there = (labels[place] == POSITIVE).nonzero().squeeze(1)
        labels[place] = UNKNOWN
        if len(there):
            pick = there[int(torch.randint(len(there), (1,), generator=generator))]
            labels[place, pick] = POSITIVE
    made = fit(
        Rows(some.image, some.z, labels, some.weights, some.judged, some.random),
        CARD,
        START,
        Aim(0.3),
    )
    assert any(note.startswith("Labels that nobody looked at") for note in made.notes)
    assert made.head.card.counts["(rows)"] > made.head.card.counts["(reviewed rows)"]
