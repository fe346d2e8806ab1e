"""A verdict on a head, in words for people who label."""

from __future__ import annotations

from math import ceil

from backend.errors import counted
from backend.vlpl.judge import MIN_POSITIVES, TOLD_FROM, Difference, Ground, Measure, Verdict

MEASURES = {
    Measure.MAP: "mAP",
    Measure.POOLED: "average precision of all labels ranked together",
}


def verdict_text(verdict: Verdict, share: float, left: int | None = None) -> str:
    """Why a head may serve or may not, or what is missing to say so.

    Args:
        verdict: on the head.
        share: of all reviewed tasks, those that heads are judged on, in [0, 1].
        left: tasks that nobody has reviewed; None where that is not known.
    """
    text = _ground(verdict, share, left)
    measured = verdict.ground in {Ground.WORSE, Ground.COLLAPSED}
    if verdict.accepted or measured:
        return text
    return f"{text}; until then it does not replace what is in use"


def _ground(verdict: Verdict, share: float, left: int | None) -> str:
    judged = verdict.judged
    tasks = counted(judged, "held-out task")
    difference = verdict.difference
    if verdict.ground == Ground.COLLAPSED:
        names = ", ".join(verdict.fallen)
        return f"on {tasks} these labels are ranked less than half as well as before: {names}"
    if difference is not None and verdict.ground == Ground.WORSE:
        return f"{_told(difference)} on {tasks}: worse beyond chance"
    if difference is not None and verdict.ground == Ground.NO_WORSE:
        unclear = ": no clear difference" if difference.low <= 0 <= difference.high else ""
        return f"{_told(difference)} on {tasks}{unclear}"
    needed = TOLD_FROM
    if verdict.most_positives:
        needed = max(needed, ceil(judged * MIN_POSITIVES / verdict.most_positives))
    more = _more(needed - judged, share, left)
    if verdict.ground == Ground.NO_TASK:
        return f"too few to tell (no held-out task was reviewed; about {needed} are needed{more})"
    if verdict.ground == Ground.NO_POSITIVE:
        return f"too few to tell (no label on {tasks}{more})"
    if verdict.ground == Ground.FEW_POSITIVES:
        return (
            f"too few to tell (no label is on {MIN_POSITIVES} of {tasks}; about {needed} are "
            f"needed{more})"
        )
    return f"too few to tell ({tasks}; about {needed} are needed{more})"


def _told(difference: Difference) -> str:
    """``mAP 3.1 points higher (0.4 to 5.9)``; an interval on both sides of 0 names its sides."""
    points, low, high = (100 * part for part in (difference.value, difference.low, difference.high))
    name = MEASURES[difference.measure]
    if low <= 0 <= high:
        between = f"{-low:.1f} lower to {high:.1f} higher"
    elif high < 0:
        between = f"{-high:.1f} to {-low:.1f}"
    else:
        between = f"{low:.1f} to {high:.1f}"
    return f"{name} {abs(points):.1f} points {'lower' if points < 0 else 'higher'} ({between})"


def _more(missing: int, share: float, left: int | None) -> str:
    """How many reviews bring so many judged tasks, or that the project has not so many tasks."""
    if missing <= 0:
        return ""
    if share <= 0:
        return "; none is chosen while LS_CLIP_BLIND_SHARE and LS_CLIP_AUDIT_SHARE are 0"
    reviews = ceil(missing / share)
    if left is not None and reviews > left:
        bring = "the one task that is left to review brings"
        if left != 1:
            bring = f"the {left} tasks that are left to review bring"
        enough = f"{bring} too few" if left else "all tasks are reviewed"
        return f"; {enough}: add tasks, or raise LS_CLIP_BLIND_SHARE"
    if reviews > 20:
        reviews = ceil(reviews / 10) * 10
    if left is not None:
        reviews = min(reviews, left)
    return f", after about {counted(reviews, 'more review')}"
