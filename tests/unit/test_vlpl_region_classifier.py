"""A classifier of regions that nobody has labelled."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.vlpl import region_classifier, zero_shot
from backend.vlpl.metrics import mean_average_precision

LABELS, DIM = 6, 64


def scene(count: int = 600) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images of nine regions, some with an object, and texts that are off what objects look like.

    Returns:
        Embeddings (N, D), regions (N, 9, D), label texts (C, D) and truth (N, C).
    """
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    looks = random(LABELS, DIM)
    truth = torch.rand(count, LABELS, generator=generator) < 0.2
    regions = 1.2 * random(count, 9, DIM)
    for label in range(LABELS):
        place = torch.randint(9, (count,), generator=generator)
        regions[torch.arange(count), place] += truth[:, label, None] * 1.5 * looks[label]
    text = torch.nn.functional.normalize(looks + 1.5 * random(LABELS, DIM), dim=1)
    image = torch.nn.functional.normalize(regions.mean(1), dim=1).half().float()
    return image, torch.nn.functional.normalize(regions, dim=2), text, truth


def test_it_learns_what_labels_look_like():
    image, regions, text, truth = scene()
    labels = zero_shot.label_vectors(text)
    whole, best = zero_shot.raw_scores(image, regions, labels)
    z = zero_shot.fuse(whole, best, zero_shot.fit_statistics(whole, best))
    fitted = region_classifier.fit(image, regions, labels)
    better = fitted.added(z, image, regions)
    before = mean_average_precision(z, truth)
    assert mean_average_precision(better, truth) > before + 0.02
    assert abs(float(better.mean())) < 0.1 and 0.7 < float(better.std()) < 1.3


def test_a_label_that_is_nowhere_the_likeliest_changes_no_score():
    image, regions, _, _ = scene(2)
    # More labels than regions: each region has one that is the likeliest.
    torch.manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(30, DIM), dim=1)
    fitted = region_classifier.fit(image, regions, zero_shot.label_vectors(text))
    nowhere = ~fitted.weights.any(1)
    assert 30 - regions.shape[:2].numel() <= int(nowhere.sum()) < 30
    scores = fitted.scores(image, regions)
    assert not bool(scores[:, nowhere].any()) and bool(scores[:, ~nowhere].any())


def test_a_score_does_not_depend_on_the_batch():
    image, regions, text, _ = scene(300)
    fitted = region_classifier.fit(image, regions, zero_shot.label_vectors(text))
    whole = fitted.scores(image, regions)
    alone = torch.cat([fitted.scores(image[n : n + 1], regions[n : n + 1]) for n in range(20)])
    assert torch.equal(whole[:20], alone)


def test_it_asks_for_no_label_of_an_image():
    """The same images in another order give the same classifier, but for rounding."""
    image, regions, text, _ = scene(300)
    labels = zero_shot.label_vectors(text)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    one = region_classifier.fit(image, regions, labels)
    other = region_classifier.fit(image[order], regions[order], labels)
    assert torch.allclose(one.weights, other.weights, atol=1e-4)
