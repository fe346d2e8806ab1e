"""Objectives: known answers, gradients, and the behaviour that sets them apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backend.vlpl import objectives as ob

LABELS = torch.tensor([[1, -1, 0, 2, -2]])
P = 0.2
LOGITS = torch.full((1, 5), math.log(P / (1 - P)), dtype=torch.float64)
POS, NEG = -math.log(P), -math.log(1 - P)
H = P * POS + (1 - P) * NEG

ALL: dict[str, Callable[[Tensor], ob.Terms]] = {
    "bce": ob.bce,
    "an": ob.assume_negative,
    "wan": ob.weak_assume_negative,
    "em": ob.entropy_maximisation,
    "em-apl": lambda labels: ob.entropy_maximisation_apl(labels, torch.zeros(labels.shape)),
    "ll-r": lambda labels: ob.large_loss_rejection(labels, torch.zeros(labels.shape), 0.3),
    "vlpl": ob.vlpl,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce", [POS, NEG, 0, 0, 0]),
        ("an", [POS, NEG, NEG, NEG, NEG]),
        ("wan", [POS, NEG, NEG / 4, NEG / 4, NEG / 4]),
        ("em", [POS, NEG, -0.1 * H, -0.1 * H, -0.1 * H]),
        ("vlpl", [POS, NEG, -0.1 * H, 0.7 * (0.9 * POS + 0.1 * NEG), NEG]),
    ],
)
def test_known_answers(name: str, expected: list[float]) -> None:
    loss = ob.entry_loss(LOGITS, ALL[name](LABELS))
    torch.testing.assert_close(
        loss[0], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6
    )


def test_apl_gives_soft_targets_to_the_lowest_images_of_a_label() -> None:
    labels = torch.tensor([[1], [0], [0]])
    logits = torch.tensor([[3.0], [-2.0], [1.0]])
    terms = ob.entropy_maximisation_apl(labels, logits, 0.1, 0.9, 0.5)
    target = torch.sigmoid(torch.tensor(-2.0))
    assert terms.ent is not None
    torch.testing.assert_close(terms.pos[:, 0], torch.tensor([1.0, 0.9 * float(target), 0.0]))
    torch.testing.assert_close(terms.neg[:, 0], torch.tensor([0.0, 0.9 * float(1 - target), 0.0]))
    torch.testing.assert_close(terms.ent[:, 0], torch.tensor([0.0, 0.0, 0.1]))


def test_large_loss_rejection_drops_the_unknowns_that_look_positive() -> None:
    labels = torch.tensor([[1, 0, 0, 0, -1]])
    logits = torch.tensor([[9.0, 2.0, -1.0, -3.0, 8.0]])
    terms = ob.large_loss_rejection(labels, logits, rejected=0.34)
    assert terms.neg.tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]
    everything = ob.large_loss_rejection(labels, logits, rejected=0.0)
    assert torch.equal(everything.neg, ob.assume_negative(labels).neg)


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_derivative_of_the_loss(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-2, 3, (6, 5), generator=generator)
    logits = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    terms = ALL[name](labels)
    ob.loss(logits, terms).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, ob.gradient(logits.detach(), terms))


@pytest.mark.parametrize("name", ALL)
def test_loss_and_gradient_stay_finite_at_extreme_logits(name: str) -> None:
    terms = ALL[name](LABELS)
    for value in (-1e4, 1e4):
        logits = torch.full((1, 5), value)
        assert bool(ob.entry_loss(logits, terms).isfinite().all())
        assert bool(ob.gradient(logits, terms).isfinite().all())


@pytest.mark.parametrize("name", ALL)
def test_on_reviewed_rows_every_objective_is_plain_bce(name: str) -> None:
    labels = torch.tensor([[1, -1, -1], [-1, 1, 1]])
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        ob.entry_loss(logits, ALL[name](labels)), ob.entry_loss(logits, ob.bce(labels))
    )


def test_em_pushes_unknowns_towards_a_half_and_an_does_not() -> None:
    labels = torch.zeros(1, 2, dtype=torch.int64)
    start = torch.tensor([[-2.0, 2.0]])
    after = {}
    for name in ("em", "an"):
        logits = start.clone()
        for _ in range(500):
            logits -= 1.0 * ob.gradient(logits, ALL[name](labels))
        after[name] = torch.sigmoid(logits)
    torch.testing.assert_close(after["em"], torch.full((1, 2), 0.5), atol=0.02, rtol=0)
    assert bool((after["an"] < 0.05).all())


def test_other_label_values_are_refused() -> None:
    with pytest.raises(ValueError, match="-2"):
        ob.bce(torch.tensor([[3]]))
    with pytest.raises(ValueError, match="integer"):
        ob.bce(torch.zeros(1, 2))
