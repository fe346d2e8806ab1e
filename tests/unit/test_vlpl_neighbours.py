"""The votes of similar images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.vlpl import neighbours
from backend.vlpl.neighbours import Bank, Neighbours


def images(count: int, dim: int = 32, seed: int = 0) -> Tensor:
    """Embeddings in eight clusters, as the store keeps them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, dim, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, dim, generator=generator)
    values = centres[torch.arange(count) % 8] + 0.5 * noise
    return torch.nn.functional.normalize(values, dim=1).half().float()


def plain(bank: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Places and weights as the module's docstring says, without any care for the last bit."""
    mean = bank.double().mean(0)
    b = torch.nn.functional.normalize(bank.double() - mean, dim=1)
    q = torch.nn.functional.normalize(image.double() - mean, dim=1)
    cosines = q @ b.T
    cosines[(image[:, None] == bank[None]).all(2)] = -2.0
    best = cosines.topk(neighbours.NEIGHBOURS, dim=1)
    weights = best.values.clamp_min(1e-4) ** 3
    return best.indices, weights / weights.sum(1, keepdim=True)


def test_neighbours_are_those_of_the_plain_formula():
    bank, fresh = images(300), images(40, seed=1)
    for image in (fresh, bank[:40]):
        found = Bank(bank).neighbours(image)
        places, weights = plain(bank, image)
        logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(2))
        mine = found.vote(torch.zeros(40, 3), logits, torch.ones(3))
        theirs = torch.einsum("nk,nkc->nc", weights, logits[places].double()) / 2
        # Rounded embeddings may exchange two that are almost equally similar.
        apart = (mine - theirs).abs().amax(1)
        assert float(apart.quantile(0.9)) < 1e-3 and float(apart.max()) < 0.5
        assert torch.allclose(found.weights.sum(1), torch.ones(40, dtype=torch.float64))


def test_an_image_does_not_vote_for_itself():
    bank = images(300)
    found = Bank(bank).neighbours(bank)
    assert not bool((found.places == torch.arange(300)[:, None]).any())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_vote_does_not_depend_on_the_batch(threads: int):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        bank = Bank(images(1000, 200))
        image = images(700, 200, seed=3)
        whole = bank.neighbours(image)
        for size in (1, 7, 256):
            for start in (0, 300):
                part = bank.neighbours(image[start : start + size])
                assert torch.equal(part.places, whole.places[start : start + size])
                assert torch.equal(part.weights, whole.weights[start : start + size])
    finally:
        torch.set_num_threads(before)


def test_a_vote_is_an_average_so_that_scale_and_offset_go_through_it():
    bank, image = images(200), images(20, seed=4)
    found = Bank(bank).neighbours(image)
    generator = torch.Generator().manual_seed(5)
    own, theirs = torch.randn(20, 4, generator=generator), torch.randn(200, 4, generator=generator)
    strength = torch.tensor([0.0, 0.25, 0.5, 1.0])
    voted = found.vote(own, theirs, strength)
    assert torch.equal(voted[:, 0], own[:, 0].double())
    scaled = found.vote(3 * own - 2, 3 * theirs - 2, strength)
    assert torch.allclose(scaled, 3 * voted - 2, atol=1e-5)


def test_votes_need_a_bank_of_some_size():
    assert [neighbours.strength(count) for count in (0, 99, 100, 199, 200, 20_000)] == [
        *(0.0, 0.0),
        *(0.25, 0.25),
        *(0.5, 0.5),
    ]


def test_a_bank_without_another_image_changes_nothing():
    one = images(1)
    found = Bank(one).neighbours(one)
    logits = torch.tensor([[1.0, -2.0]])
    assert torch.equal(found.vote(logits, logits, torch.ones(2)), logits.double())
    empty = Neighbours(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0).double())
    assert torch.equal(empty.vote(logits, torch.zeros(0, 2), torch.ones(2)), logits.double())


def test_embeddings_that_are_not_normalised_are_refused():
    with pytest.raises(ValueError, match="normalised"):
        Bank(torch.full((2, 8), float("nan")))
    with pytest.raises(ValueError, match="normalised"):
        Bank(images(5)).neighbours(100 * images(1))
