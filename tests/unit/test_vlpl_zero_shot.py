"""Zero-shot scores: independence of the batch and of the label set's size."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from backend.vlpl import exact, zero_shot
from backend.vlpl.metrics import mean_average_precision


def _embeddings(count: int, dim: int = 96, labels: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = normalize(torch.randn(count, dim, generator=generator), dim=1)
    cells = normalize(torch.randn(count, 9, dim, generator=generator), dim=2)
    text = normalize(torch.randn(labels, dim, generator=generator), dim=1)
    return image, cells, text


def _raw_scores(image: Tensor, cells: Tensor | None, text: Tensor) -> tuple[Tensor, Tensor | None]:
    return zero_shot.raw_scores(image, cells, zero_shot.label_vectors(text))


@pytest.mark.parametrize("with_statistics", [True, False])
def test_an_image_gets_the_same_bytes_alone_and_in_any_batch(with_statistics: bool) -> None:
    image, cells, text = _embeddings(1300)
    whole, best = _raw_scores(image, cells, text)
    frozen = zero_shot.fit_statistics(whole, best) if with_statistics else None
    bulk = zero_shot.probabilities(zero_shot.fuse(whole, best, frozen), 1.7, -3.1)
    for start, size in [(0, 1), (1, 2), (5, 3), (511, 2), (17, 64), (100, 777), (1299, 1)]:
        part = slice(start, start + size)
        scores = _raw_scores(image[part], cells[part], text)
        alone = zero_shot.probabilities(zero_shot.fuse(*scores, frozen), 1.7, -3.1)
        assert torch.equal(alone, bulk[part]), (start, size)


def test_thread_count_does_not_change_a_score() -> None:
    image, cells, text = _embeddings(300)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = _raw_scores(image, cells, text)
        torch.set_num_threads(2)
        double = _raw_scores(image, cells, text)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(single[0], double[0])
    assert single[1] is not None and double[1] is not None and torch.equal(single[1], double[1])


def test_a_fresh_and_a_stored_embedding_score_alike() -> None:
    image, cells, text = _embeddings(20)
    fresh = _raw_scores(image, cells, text)
    stored = _raw_scores(image.half(), cells.half(), text)
    assert torch.equal(fresh[0], stored[0])


def test_scores_are_cosines_and_the_best_cell_is_the_maximum() -> None:
    image, cells, text = _embeddings(40)
    whole, best = _raw_scores(image, cells, text)
    assert best is not None
    torch.testing.assert_close(whole, image @ text.T, atol=1e-3, rtol=0)
    torch.testing.assert_close(best, (cells @ text.T).amax(1), atol=1e-3, rtol=0)
    assert _raw_scores(image, None, text)[1] is None


def test_a_label_scores_the_same_whatever_text_stands_beside_it() -> None:
    image, _, text = _embeddings(40)
    alone, _ = _raw_scores(image, None, text[2:3])
    beside, _ = _raw_scores(image, None, text)
    assert torch.equal(alone[:, 0], beside[:, 2])


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_few_labels_keep_their_ranking(labels: int) -> None:
    generator = torch.Generator().manual_seed(labels)
    truth = (torch.rand(400, labels, generator=generator) < 0.3).long()
    scores = 0.2 + 0.05 * truth + 0.02 * torch.randn(400, labels, generator=generator)
    z = zero_shot.fuse(scores, scores, zero_shot.fit_statistics(scores, scores))
    raw = mean_average_precision(scores, truth)
    assert mean_average_precision(z, truth) > raw - 0.02
    assert bool(z[truth == 1].mean() > z[truth == 0].mean() + 1)


def test_an_image_with_all_labels_scores_above_one_with_none() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 0.2 + 0.02 * torch.randn(100, 2, generator=generator)
    frozen = zero_shot.fit_statistics(scores, scores)
    both = zero_shot.fuse(torch.full((1, 2), 0.3), torch.full((1, 2), 0.3), frozen)
    none = zero_shot.fuse(torch.full((1, 2), 0.1), torch.full((1, 2), 0.1), frozen)
    assert bool((both > none + 2).all())


def test_z_has_about_unit_variance_and_is_finite_for_constant_scores() -> None:
    image, cells, text = _embeddings(200, labels=40)
    whole, best = _raw_scores(image, cells, text)
    z = zero_shot.fuse(whole, best, zero_shot.fit_statistics(whole, best))
    assert 0.8 < float(z.std()) < 1.3
    flat = torch.full((30, 4), 0.25)
    constant = zero_shot.fit_statistics(flat, flat)
    assert bool(zero_shot.fuse(torch.rand(5, 4), torch.rand(5, 4), constant).isfinite().all())


def test_no_labels_and_no_images_give_empty_scores() -> None:
    image, cells, text = _embeddings(3)
    whole, best = _raw_scores(image[:0], cells[:0], text)
    assert whole.shape == (0, 7) and zero_shot.fuse(whole, best).shape == (0, 7)
    whole, best = _raw_scores(image, cells, text[:0])
    assert zero_shot.fuse(whole, best).shape == (3, 0)


def test_statistics_survive_json() -> None:
    image, cells, text = _embeddings(30)
    frozen = zero_shot.fit_statistics(*_raw_scores(image, cells, text))
    assert zero_shot.Statistics.from_dict(json.loads(json.dumps(frozen.as_dict()))) == frozen


def test_what_does_not_fit_is_refused() -> None:
    image, cells, text = _embeddings(4)
    with pytest.raises(ValueError, match="cannot score"):
        _raw_scores(image, None, text[:, :5])
    with pytest.raises(ValueError, match="do not fit"):
        _raw_scores(image, cells[:2], text)
    with pytest.raises(ValueError, match="finite"):
        _raw_scores(image * torch.nan, None, text)
    with pytest.raises(ValueError, match="normalised"):
        _raw_scores(image, None, text * 100)
    with pytest.raises(ValueError, match="two images"):
        zero_shot.fit_statistics(torch.zeros(1, 3), None)
    frozen = zero_shot.fit_statistics(torch.rand(5, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match="labels"):
        zero_shot.fuse(torch.rand(2, 4), torch.rand(2, 4), frozen)
    with pytest.raises(ValueError, match="cell"):
        zero_shot.fuse(torch.rand(2, 3), None, frozen)


def test_sigmoid_agrees_with_torch() -> None:
    values = torch.linspace(-60, 60, 5001, dtype=torch.float64)
    torch.testing.assert_close(exact.sigmoid(values), torch.sigmoid(values), atol=1e-14, rtol=0)


def test_no_probability_is_made_of_a_value_that_is_none() -> None:
    with pytest.raises(ValueError, match="NaN"):
        exact.sigmoid(torch.tensor([0.0, torch.nan]))
    assert exact.sigmoid(torch.tensor([-torch.inf, torch.inf])).tolist() == pytest.approx([0, 1])
