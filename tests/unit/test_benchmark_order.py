"""The comparison of orders of review: what each may see, and what is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from backend.cli import markdown
from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import Scene
from backend.evaluation.simulated_project import Of, of_scene
from benchmarks import order
from benchmarks.order import ORDERS, review_orders, run_order


@pytest.fixture
def data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    image = normalize(torch.randn(160, 16, generator=generator), dim=1)
    signal = image @ torch.randn(16, 5, generator=generator)
    truth = (signal > 0.9).long()
    whole = 0.2 + 0.02 * (signal + torch.randn(160, 5, generator=generator))
    return Dataset("toy", tuple("abcde"), truth, image, whole, whole + 0.01, None, "toy-encoder")


@pytest.mark.parametrize("name", ORDERS)
def test_the_test_labels_choose_no_photo(data: Dataset, name: str) -> None:
    _, test = data.split(3)
    shuffled = data.truth.clone()
    shuffled[test] = 1 - data.truth[test]
    picked: list[list[int]] = []

    def pick(scene: Scene, reviewed: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        rows = ORDERS[name](scene, reviewed, p)
        picked.append(rows.tolist())
        return rows

    scene, other = Scene.of(data, 3), Scene.of(replace(data, truth=shuffled), 3)
    maps, clicks = run_order(scene, of_scene(scene, Of.PROJECT), pick, is_random=False)
    first, picked = picked, []
    others, same_clicks = run_order(other, of_scene(other, Of.PROJECT), pick, is_random=False)
    assert first == picked
    assert clicks == same_clicks
    assert maps != others


@pytest.mark.parametrize("name", ORDERS)
def test_no_photo_is_reviewed_twice_and_all_are_in_the_end(data: Dataset, name: str) -> None:
    seen: list[int] = []

    def pick(scene: Scene, reviewed: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        rows = ORDERS[name](scene, reviewed, p)
        seen.extend(rows.tolist())
        return rows

    scene = Scene.of(data, 0)
    maps, _ = run_order(scene, of_scene(scene, Of.PROJECT), pick, is_random=False)
    assert sorted(seen) == list(range(80))
    assert [*maps] == [25, 50]


def test_the_least_certain_photo_is_the_one_with_most_expected_changes(data: Dataset) -> None:
    p = torch.full((80, 5), 0.01)
    p[7] = 0.5
    p[9, 0] = 0.6
    reviewed = torch.zeros(80, dtype=torch.bool)
    assert ORDERS["least certain first"](Scene.of(data, 0), reviewed, p)[:2].tolist() == [7, 9]


def test_the_table_compares_with_random_order(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "MEASURED", (25,))
    text = markdown.table(review_orders(data, seeds=(0,)))
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [*ORDERS]
    assert "(+0.0)" in text.splitlines()[2]
