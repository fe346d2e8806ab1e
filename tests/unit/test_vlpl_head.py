"""Heads: anchored at zero-shot, verified when loaded, the same bytes every time."""

from __future__ import annotations

import json

import pytest
import torch

from backend.vlpl import training, zero_shot
from backend.vlpl.decisions import PROVENANCE_WEIGHTS, UNKNOWN
from backend.vlpl.head import Card, Head, HeadError, row_weights, statistics_hash, zero_shot_head
from tests.support.scene import A0, B0, card, codes, scene


def trained(rows: int = 200) -> Head:
    image, z, truth = scene(rows)
    prepared = training.Training.of(image, z, codes(truth), a0=A0, b0=B0)
    return training.fit(prepared, card())


@pytest.mark.parametrize("goal", training.OBJECTIVES, ids=lambda goal: goal.name)
def test_without_annotations_the_head_is_zero_shot_byte_for_byte(goal: training.Objective) -> None:
    image, z, truth = scene()
    prepared = training.Training.of(image, z, torch.full_like(truth, UNKNOWN), a0=A0, b0=B0)
    head = training.fit(prepared, card(), goal)
    assert torch.equal(head.probabilities(image, z), zero_shot.probabilities(z, A0, B0))


def test_scores_do_not_depend_on_the_batch() -> None:
    head = trained()
    image, z, _ = scene(1200, seed=4)
    bulk = head.probabilities(image, z)
    for start, size in [(0, 1), (3, 7), (500, 30), (511, 2), (1199, 1)]:
        part = slice(start, start + size)
        assert torch.equal(head.probabilities(image[part], z[part]), bulk[part])


def test_bytes_survive_the_round_trip_and_are_reproducible() -> None:
    tensors, text = trained().to_bytes()
    assert (tensors, text) == trained().to_bytes()
    head = Head.from_bytes(tensors, text)
    image, z, _ = scene(50, seed=5)
    assert torch.equal(head.logits(image, z), trained().logits(image, z))
    assert head.card == trained().card


def test_a_damaged_head_is_refused() -> None:
    tensors, text = trained().to_bytes()
    with pytest.raises(HeadError, match="checksum"):
        Head.from_bytes(tensors[:-1] + b"\x01", text)
    changed = json.loads(text)
    changed["labels"][0] = "lynx"
    with pytest.raises(HeadError, match="checksum"):
        Head.from_bytes(tensors, json.dumps(changed).encode())
    for broken in (b"", b"[]", b"{}", b"null", b"\xff"):
        with pytest.raises(HeadError):
            Head.from_bytes(tensors, broken)


def test_scores_of_another_label_set_are_refused() -> None:
    head = trained()
    with pytest.raises(ValueError, match="labels"):
        head.logits(torch.zeros(1, 24), torch.zeros(1, 3))


def test_labels_that_stay_keep_their_scores_and_new_ones_start_at_zero_shot() -> None:
    head = trained()
    image, z, _ = scene(30, seed=6)
    carried = head.carried_over(["boat", "kite", "cat"], A0, B0)
    fresh = torch.stack([z[:, 3], z[:, 1], z[:, 0]], dim=1)
    old, new = head.logits(image, z), carried.logits(image, fresh)
    assert torch.equal(new[:, 0], old[:, 3])
    assert torch.equal(new[:, 2], old[:, 0])
    assert torch.equal(new[:, 1], A0 * fresh[:, 1].double() + B0)
    assert carried.card.labels == ("boat", "kite", "cat")


def test_a_calibration_folded_in_scales_the_logits() -> None:
    head = trained()
    image, z, _ = scene(30, seed=7)
    torch.testing.assert_close(
        head.rescaled(0.5, 1.0).logits(image, z),
        head.logits(image, z) * 0.5 + 1.0,
        atol=1e-4,
        rtol=1e-4,
    )
    start = zero_shot_head(card(), 24, A0, B0).rescaled(0.5, 1.0)
    assert torch.equal(
        start.probabilities(image, z), zero_shot.probabilities(z, A0 / 2, B0 / 2 + 1)
    )


def test_statistics_hash_tells_statistics_apart() -> None:
    first = zero_shot.fit_statistics(torch.rand(5, 3), None)
    second = zero_shot.fit_statistics(torch.rand(5, 3), None)
    assert statistics_hash(first) != statistics_hash(second)
    assert statistics_hash(None) == "none"


def test_row_weights_trust_blind_reviews_most() -> None:
    weights = row_weights(["blind", "edited", "accepted", "bulk"]).tolist()
    assert weights == sorted(set(weights), reverse=True)
    assert max(PROVENANCE_WEIGHTS.values()) == PROVENANCE_WEIGHTS["blind"]
    with pytest.raises(KeyError):
        row_weights(["guess"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_with_values_that_are_not_finite_is_refused(value: float) -> None:
    head = Head(torch.full((1, 4), value), torch.ones(1), torch.zeros(1), Card(("a",), "e", "none"))
    with pytest.raises(HeadError, match="not finite"):
        Head.from_bytes(*head.to_bytes())
