"""What clicks and verdicts say to people who label: each sentence, with its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.training.clicks_text import clicks_text, with_text
from backend.training.verdict_text import verdict_text
from backend.vlpl.clicks import Clicks
from backend.vlpl.judge import Difference, Ground, Measure, Verdict

SAVING = Clicks(42, 1.9, (1.61, 2.21), 2.7, 0.8, (0.52, 1.08))
COSTING = Clicks(30, 2.2, (1.9, 2.5), 1.0, -1.2, (-1.5, -0.9), 0.9)


def test_clicks_that_are_saved_are_told_with_both_intervals():
    assert clicks_text(SAVING) == (
        "Clicks a task: 1.9 (1.6 to 2.2) with suggestions, 2.7 from nothing. "
        "Suggestions save 0.8 (0.5 to 1.1)."
    )


def test_suggestions_that_cost_clicks_say_so_and_what_will_change_that():
    assert clicks_text(COSTING, 12) == (
        "Clicks a task: 2.2 (1.9 to 2.5) with suggestions, 1.0 from nothing. "
        "At present suggestions cost more clicks than they save (2.2 a task against 1.0). "
        "The next head, which about 12 more reviewed tasks train, should correct that; until then, "
        "LS_CLIP_THRESHOLD=0.9 shows fewer."
    )


@pytest.mark.parametrize(
    ("threshold", "more", "end"),
    [
        (0.95, None, "against 1.0). LS_CLIP_THRESHOLD=0.95 shows fewer."),
        (None, None, "against 1.0)."),
        (None, 1, "which about 1 more reviewed task trains, should correct that."),
    ],
)
def test_only_what_helps_is_advised(threshold: float | None, more: int | None, end: str):
    assert clicks_text(replace(COSTING, threshold=threshold), more).endswith(end)


def test_what_chance_may_have_done_is_not_told_as_harm_or_gain():
    unclear = replace(COSTING, saved_interval=(-1.5, 0.0), threshold=None)
    assert clicks_text(unclear, 12).endswith(
        "from nothing. Whether suggestions save clicks cannot be told yet from 30 tasks."
    )
    few = clicks_text(replace(COSTING, tasks=4))
    assert few == (
        "Clicks a task: 2.2 with suggestions, 1.0 from nothing. Whether suggestions save clicks "
        "cannot be told yet from 4 tasks; 10 are needed."
    )


def test_json_has_the_numbers_and_the_sentence():
    told = with_text(COSTING, 12)
    assert told["text"] == clicks_text(COSTING, 12)
    assert (told["per_task"], told["interval"]) == (2.2, [1.9, 2.5])


def verdict(ground: Ground, judged: int = 42, most: int = 5, **fields: object) -> Verdict:
    return Verdict(True, ground, {}, judged, most, **fields)  # type: ignore[arg-type]


def difference(value: float, low: float, high: float, measure: Measure = Measure.MAP) -> Difference:
    return Difference(measure, value, low, high)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            verdict(Ground.NO_WORSE, difference=difference(0.031, 0.004, 0.059)),
            "mAP 3.1 points higher (0.4 to 5.9) on 42 held-out tasks",
        ),
        (
            verdict(Ground.NO_WORSE, difference=difference(-0.004, -0.02, 0.012)),
            "mAP 0.4 points lower (2.0 lower to 1.2 higher) on 42 held-out tasks: "
            "no clear difference",
        ),
        (
            verdict(Ground.FEW_TASKS, 5, 1, difference=difference(-0.083, -0.3, 0.1)),
            "too few to tell (5 held-out tasks; about 20 are needed, after about 110 more reviews)",
        ),
        (
            verdict(Ground.FEW_TASKS, 10, 1),
            "too few to tell (10 held-out tasks; about 30 are needed, after about 140 more "
            "reviews)",
        ),
        (
            verdict(Ground.NO_TASK, 0, 0),
            "too few to tell (no held-out task was reviewed; about 20 are needed, after "
            "about 140 more reviews)",
        ),
        (
            verdict(Ground.NO_POSITIVE, 18, 0),
            "too few to tell (no label on 18 held-out tasks, after about 14 more reviews)",
        ),
        (
            verdict(Ground.FEW_POSITIVES, 24, 2),
            "too few to tell (no label is on 3 of 24 held-out tasks; about 36 are needed, "
            "after about 90 more reviews)",
        ),
        (
            replace(
                verdict(Ground.WORSE, difference=difference(-0.083, -0.14, -0.021)), accepted=False
            ),
            "mAP 8.3 points lower (2.1 to 14.0) on 42 held-out tasks: worse beyond chance",
        ),
        (
            replace(
                verdict(Ground.WORSE, difference=difference(-0.083, -0.14, -0.021, Measure.POOLED)),
                accepted=False,
            ),
            "average precision of all labels ranked together 8.3 points lower (2.1 to 14.0) on 42 "
            "held-out tasks: worse beyond chance",
        ),
        (
            replace(verdict(Ground.COLLAPSED, fallen=("cat", "dog")), accepted=False),
            "on 42 held-out tasks these labels are ranked less than half as well as before: "
            "cat, dog",
        ),
        (
            replace(verdict(Ground.NO_TASK, 0, 0), accepted=False),
            "too few to tell (no held-out task was reviewed; about 20 are needed, after "
            "about 140 more reviews); until then it does not replace what is in use",
        ),
    ],
    ids=lambda part: part.ground.name if isinstance(part, Verdict) else "",
)
def test_a_verdict_is_told_with_its_interval_or_with_what_is_missing(found: Verdict, told: str):
    assert verdict_text(found, 0.145) == told


def test_where_no_task_is_ever_chosen_the_settings_are_named():
    told = verdict_text(verdict(Ground.NO_TASK, 0, 0), 0.0)
    assert "LS_CLIP_BLIND_SHARE and LS_CLIP_AUDIT_SHARE are 0" in told


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (None, "about 20 are needed, after about 110 more reviews)"),
        (104, "about 20 are needed, after about 104 more reviews)"),
        (
            103,
            "about 20 are needed; the 103 tasks that are left to review bring too few: add tasks, "
            "or raise LS_CLIP_BLIND_SHARE)",
        ),
        (
            1,
            "about 20 are needed; the one task that is left to review brings too few: add tasks, "
            "or raise LS_CLIP_BLIND_SHARE)",
        ),
        (
            0,
            "about 20 are needed; all tasks are reviewed: add tasks, or raise LS_CLIP_BLIND_SHARE)",
        ),
    ],
)
def test_no_more_reviews_are_asked_for_than_there_are_tasks(left: int | None, told: str):
    assert verdict_text(verdict(Ground.FEW_TASKS, 5, 1), 0.145, left).endswith(told)
