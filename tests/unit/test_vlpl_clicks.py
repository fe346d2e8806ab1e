"""Clicks beside those from nothing, and whether their difference is more than chance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.vlpl.clicks import FEWEST, Clicks, Effect, harmless_threshold, task_clicks


def clicks(*pairs: tuple[int, int]) -> Clicks:
    """Of tasks with these clicks with suggestions, and from nothing."""
    made = Clicks.of(np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs]))
    assert made is not None
    return made


def boxes(*rows: str) -> NDArray[np.bool_]:
    return np.array([[box == "x" for box in row] for row in rows])


def test_a_task_costs_a_click_for_each_label_to_add_and_to_remove():
    suggested, present = boxes("xx.", "...", "x.x"), boxes("x.x", "xx.", "x.x")
    assert task_clicks(suggested, present).tolist() == [2, 2, 0]
    assert task_clicks(np.zeros_like(present), present).tolist() == [2, 2, 2]


def test_a_wrong_suggestion_in_a_single_choice_costs_one_click():
    suggested, present = boxes("x..", "...", "x..", "x.."), boxes(".x.", ".x.", "...", "x..")
    assert task_clicks(suggested, present, single=True).tolist() == [1, 1, 1, 0]
    assert task_clicks(suggested, present).tolist() == [2, 1, 1, 0]


def test_a_label_of_which_nothing_is_known_costs_nothing():
    suggested, present = boxes("xx"), boxes("..")
    assert task_clicks(suggested, present, boxes("x.")).tolist() == [1]
    with pytest.raises(ValueError, match="one shape"):
        task_clicks(suggested, boxes("..."))


def test_means_and_intervals_are_of_the_same_tasks():
    found = clicks(*[(1, 3), (2, 2), (0, 3), (1, 4)] * 10)
    assert (found.tasks, found.per_task, found.from_nothing, found.saved) == (40, 1.0, 3.0, 2.0)
    assert found.interval[0] < 1.0 < found.interval[1]
    assert found.saved_interval[0] < 2.0 < found.saved_interval[1]
    assert found == clicks(*[(1, 3), (2, 2), (0, 3), (1, 4)] * 10)


def test_the_interval_of_what_is_saved_pairs_the_two_numbers_of_a_task():
    """Tasks differ much more from each other than suggestions change."""
    found = clicks(*[(count, count + 1) for count in range(20)])
    assert found.saved_interval == (1.0, 1.0)
    assert found.interval[1] - found.interval[0] > 3


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        low, high = clicks(*[(int(c), 0) for c in generator.poisson(2.0, 60)]).interval
        held += low <= 2.0 <= high
    assert 0.88 < held / 200 <= 0.99


@pytest.mark.parametrize(
    ("pairs", "effect"),
    [
        ([(3, 1)] * FEWEST, Effect.COST),
        ([(1, 3)] * FEWEST, Effect.SAVE),
        ([(3, 1)] * (FEWEST - 1), Effect.UNCLEAR),
        ([(2, 2)] * 50, Effect.UNCLEAR),
        ([(3, 1), (1, 3)] * 20, Effect.UNCLEAR),
    ],
)
def test_an_effect_is_one_only_beyond_chance(pairs: list[tuple[int, int]], effect: Effect):
    assert clicks(*pairs).effect == effect


def test_the_least_threshold_that_does_no_harm_is_looked_for_only_where_there_is_harm():
    asked = []

    def at(threshold: float) -> float:
        asked.append(threshold)
        return 3.0 - 2.5 * threshold

    assert harmless_threshold(clicks(*[(3, 1)] * 20), at) == 0.8
    assert harmless_threshold(clicks(*[(3, 1)] * 20), lambda _: 2.0) is None
    asked.clear()
    assert harmless_threshold(clicks(*[(1, 3)] * 20), at) is None
    assert not asked


def test_clicks_survive_json_and_of_no_task_there_are_none():
    found = clicks(*[(1, 3), (2, 2)] * 6)
    assert Clicks.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert Clicks.of(np.array([]), np.array([])) is None
