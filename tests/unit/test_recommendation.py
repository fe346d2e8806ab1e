"""Which choice is recommended, and when chance leaves it open."""

from __future__ import annotations

import torch

from backend.evaluation.recommendation import Candidate, recommend

NOISE = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64)


def candidate(label: str, score: float, seconds: float, spread: float = 0.0) -> Candidate:
    return Candidate(label, score, seconds, score + spread * NOISE)


def test_a_clear_winner_is_named_with_the_best_of_the_faster_ones():
    found = recommend(
        [
            candidate("small", 60.0, 1.0),
            candidate("large with tiles", 70.0, 9.0),
            candidate("middle", 69.6, 1.0),
            candidate("slow", 69.9, 9.0),
        ]
    )
    assert found.is_clear and found.best == "large with tiles"
    assert found.text.startswith("large with tiles has the best mAP, 70.0. middle has 0.4 less")
    assert "at 11 % of the time" in found.text and "95 % intervals" in found.text
    assert [how.label for how in found.behind] == ["slow", "middle", "small"]


def test_nobody_wins_where_the_interval_of_the_difference_holds_zero():
    found = recommend([candidate("a", 70.0, 5.0, spread=2.0), candidate("b", 69.0, 1.0)])
    (behind,) = found.behind
    assert behind.low < 0 < behind.high
    assert not found.is_clear
    assert found.text.startswith("No clear winner")
    assert "Of these, b is the fastest: 20 % of the time" in found.text


def test_images_that_are_hard_for_both_leave_nothing_open():
    # Each alone varies by 40 points over the resamples; the difference never does.
    found = recommend([candidate("a", 70.0, 1.0, spread=20), candidate("b", 69.0, 1.0, spread=20)])
    assert found.is_clear
    assert "none is notably faster" in found.text


def test_two_that_are_the_same_have_no_winner():
    found = recommend([candidate("a", 70.0, 1.0, spread=1), candidate("b", 70.0, 1.0, spread=1)])
    assert not found.is_clear
    assert "fastest" not in found.text


def test_of_one_choice_or_without_map_nothing_is_recommended():
    assert "nothing to compare" in recommend([candidate("a", 70.0, 1.0)]).text
    undefined = [candidate("a", float("nan"), 1.0), candidate("b", float("nan"), 1.0)]
    found = recommend(undefined)
    assert found.best is None and "no label is on 10 images" in found.text
