"""Which images are reviewed next: one of each kind before a second of any."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.vlpl import coverage
from backend.vlpl.coverage import next_round


def kinds(sizes: list[int], spread: float = 0.02, dim: int = 32) -> NDArray[np.float32]:
    """Embeddings of images of several kinds, each around a direction of its own."""
    random = np.random.default_rng(0)
    rows = []
    for kind, size in enumerate(sizes):
        centre = np.zeros(dim)
        centre[kind] = 1.0
        rows.append(centre + spread * random.standard_normal((size, dim)))
    points = np.concatenate(rows)
    unit: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def kinds_of(places: list[int], sizes: list[int]) -> list[int]:
    return [int(kind) for kind in np.searchsorted(np.cumsum(sizes), places, side="right")]


def test_each_kind_is_taken_once_the_largest_first():
    sizes = [10, 40, 20, 30]
    places = next_round(kinds(sizes), np.zeros(100, dtype=bool), size=4)
    assert kinds_of(places, sizes) == [1, 3, 2, 0]


def test_a_kind_of_which_one_is_reviewed_waits_until_the_others_are_covered():
    sizes = [40, 10, 30, 20]
    reviewed = np.zeros(100, dtype=bool)
    reviewed[:2] = True
    places = next_round(kinds(sizes), reviewed, size=2)
    # The clusters are as many as will be reviewed: kinds 1 to 3 are left, the largest come first.
    assert kinds_of(places, sizes) == [2, 3]


def test_the_most_typical_image_of_a_kind_is_taken():
    points = kinds([200, 150])
    middle = points[:200].mean(0) / np.linalg.norm(points[:200].mean(0))
    points[17] = middle
    assert next_round(points, np.zeros(350, dtype=bool), size=2)[0] == 17


def test_reviewed_images_are_never_chosen_and_nothing_is_chosen_twice():
    points = kinds([30, 30, 30])
    reviewed = np.random.default_rng(1).random(90) < 0.5
    places = next_round(points, reviewed, size=25)
    assert len(set(places)) == 25
    assert not reviewed[places].any()


def test_the_last_images_are_all_chosen():
    reviewed = np.ones(60, dtype=bool)
    reviewed[[3, 50]] = False
    assert next_round(kinds([60]), reviewed, size=25) == [3, 50]
    assert next_round(kinds([60]), np.ones(60, dtype=bool)) == []


def test_equal_images_make_fewer_clusters_and_a_full_round():
    points = np.repeat(kinds([3]), 20, axis=0)
    places = next_round(points, np.zeros(60, dtype=bool), size=25)
    assert len(set(places)) == 25
    # One of each before a second of any.
    assert {place // 20 for place in places[:3]} == {0, 1, 2}


@pytest.mark.parametrize("all_at_once", [10, 10_000], ids=["in parts", "all at once"])
def test_the_same_images_give_the_same_round(monkeypatch: pytest.MonkeyPatch, all_at_once: int):
    monkeypatch.setattr(coverage, "ALL_AT_ONCE", all_at_once)
    points = kinds([50, 60, 70])
    reviewed = np.zeros(180, dtype=bool)
    first = next_round(points, reviewed, size=25)
    assert first == next_round(points.copy(), reviewed.copy(), size=25)
    assert first == next_round(points.astype(np.float64), reviewed, size=25)


def test_clusters_stay_bounded_however_many_are_reviewed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coverage, "MOST_CLUSTERS", 4)
    sizes = [40, 30, 20, 10]
    reviewed = np.zeros(100, dtype=bool)
    # All kinds have reviewed images, kind 2 the fewest.
    reviewed[[0, 1, 2, 40, 41, 42, 70, 90, 91]] = True
    places = next_round(kinds(sizes), reviewed, size=1)
    assert kinds_of(places, sizes) == [2]


def test_of_a_large_cluster_only_a_part_is_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coverage, "LARGEST_CLUSTER", 50)
    seen: list[int] = []
    partition = np.partition

    def counted(values: NDArray[np.float32], kth: int, axis: int) -> NDArray[np.float32]:
        seen.append(values.size)
        return partition(values, kth, axis)

    monkeypatch.setattr(np, "partition", counted)
    assert len(next_round(kinds([400]), np.zeros(400, dtype=bool), size=1)) == 1
    assert seen == [50 * 50]
