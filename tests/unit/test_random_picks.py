"""Which reviews are a fair sample of their project."""

from __future__ import annotations

from dataclasses import replace

from backend.inference.holdout import Selection, is_audit, is_blind, is_random_pick
from backend.storage.review_record import (
    FormerRound,
    OrderPeriod,
    ReviewOrder,
    RoundRecord,
    order_at,
)

KEY = "1.1795416973"
RANDOM_FROM_100 = (
    OrderPeriod(ReviewOrder.UNCERTAIN, 10.0),
    OrderPeriod(ReviewOrder.RANDOM, 100.0),
    OrderPeriod(ReviewOrder.SEQUENTIAL, 200.0),
)
OFFERED = RoundRecord(
    tasks=(3, 4),
    since=150.0,
    former=(FormerRound((1, 2), 110.0, 130.0), FormerRound((2, 5), 130.0, 150.0)),
)


def test_a_review_is_a_random_pick_from_the_moment_on_at_which_the_order_became_random():
    chosen = Selection(0.0, 0.0, RANDOM_FROM_100)
    moments = [5.0, 50.0, 99.9, 100.0, 199.9, 200.0, 900.0]
    picks = [is_random_pick(KEY, 7, moment, chosen) for moment in moments]
    assert picks == [False, False, False, True, True, False, False]


def test_a_project_without_a_recorded_order_has_no_random_picks():
    assert not is_random_pick(KEY, 7, 500.0, Selection(0.0, 0.0))


def test_blind_and_audit_tasks_are_random_picks_in_every_order_and_round():
    every = range(1, 400)
    chosen = Selection(0.1, 0.1, (), RoundRecord(tasks=tuple(every), since=1.0))
    picks = {task for task in every if is_random_pick(KEY, task, 50.0, chosen)}
    assert picks == {task for task in every if is_blind(KEY, task, 0.1) or is_audit(KEY, task, 0.1)}
    assert 0 < len(picks) < 399


def test_a_task_is_no_random_pick_while_it_is_in_a_round_and_is_one_before_and_after():
    chosen = Selection(0.0, 0.0, RANDOM_FROM_100, OFFERED)

    def picks(task: int) -> list[float]:
        moments = (105.0, 110.0, 129.9, 130.0, 149.9, 150.0, 180.0)
        return [moment for moment in moments if is_random_pick(KEY, task, moment, chosen)]

    assert picks(1) == [105.0, 130.0, 149.9, 150.0, 180.0]
    assert picks(2) == [105.0, 150.0, 180.0]
    assert picks(3) == [105.0, 110.0, 129.9, 130.0, 149.9]
    assert len(picks(9)) == 7


def test_a_round_that_follows_ends_the_one_before():
    first = RoundRecord(tab=7).followed_by([1, 2], 10.0)
    assert (first.tasks, first.since, first.former, first.tab) == ((1, 2), 10.0, (), 7)
    second = first.followed_by([3], 20.0)
    assert second.former == (FormerRound((1, 2), 10.0, 20.0),)
    assert replace(second, former=()) == RoundRecord((3,), 20.0, (), 7)


def test_no_order_held_before_the_first_that_was_recorded():
    assert order_at(RANDOM_FROM_100, 9.0) is None
    assert order_at(RANDOM_FROM_100, 10.0) is ReviewOrder.UNCERTAIN
