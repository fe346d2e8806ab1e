"""A verdict on a head, in words for people who label."""

from __future__ import annotations

from math import ceil

from backend.errors import counted
from backend.messages.message import Message
from backend.vlpl.judge import MIN_POSITIVES, TOLD_FROM, Difference, Ground, Measure, Verdict

MEASURES = {
    Measure.MAP: Message("mAP"),
    Measure.POOLED: Message("average precision of all labels ranked together"),
}


def verdict_text(verdict: Verdict, share: float, left: int | None = None) -> Message:
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
    return Message("{verdict}; until then it does not replace what is in use", verdict=text)


def _ground(verdict: Verdict, share: float, left: int | None) -> Message:
    judged = verdict.judged
    tasks = counted(judged, "held-out task")
    difference = verdict.difference
    if verdict.ground == Ground.COLLAPSED:
        return Message(
            "on {tasks} these labels are ranked less than half as well as before: {names}",
            tasks=tasks,
            names=", ".join(verdict.fallen),
        )
    if difference is not None and verdict.ground == Ground.WORSE:
        told = _told(difference)
        return Message("{difference} on {tasks}: worse beyond chance", difference=told, tasks=tasks)
    if difference is not None and verdict.ground == Ground.NO_WORSE:
        told = _told(difference)
        if difference.low <= 0 <= difference.high:
            return Message(
                "{difference} on {tasks}: no clear difference", difference=told, tasks=tasks
            )
        return Message("{difference} on {tasks}", difference=told, tasks=tasks)
    needed = TOLD_FROM
    if verdict.most_positives:
        needed = max(needed, ceil(judged * MIN_POSITIVES / verdict.most_positives))
    more = _more(needed - judged, share, left)
    if verdict.ground == Ground.NO_TASK:
        return Message(
            "too few to tell (no held-out task was reviewed; about {needed} are needed{more})",
            needed=needed,
            more=more,
        )
    if verdict.ground == Ground.NO_POSITIVE:
        return Message("too few to tell (no label on {tasks}{more})", tasks=tasks, more=more)
    if verdict.ground == Ground.FEW_POSITIVES:
        return Message(
            "too few to tell (no label is on {fewest} of {tasks}; about {needed} are needed{more})",
            fewest=MIN_POSITIVES,
            tasks=tasks,
            needed=needed,
            more=more,
        )
    return Message(
        "too few to tell ({tasks}; about {needed} are needed{more})",
        tasks=tasks,
        needed=needed,
        more=more,
    )


def _told(difference: Difference) -> Message:
    """``mAP 3.1 points higher (0.4 to 5.9)``; an interval on both sides of 0 names its sides."""
    points, low, high = (100 * part for part in (difference.value, difference.low, difference.high))
    if low <= 0 <= high:
        between = Message("{lower:.1f} lower to {higher:.1f} higher", lower=-low, higher=high)
    elif high < 0:
        between = Message("{low:.1f} to {high:.1f}", low=-high, high=-low)
    else:
        between = Message("{low:.1f} to {high:.1f}", low=low, high=high)
    measure = MEASURES[difference.measure]
    if points < 0:
        return Message(
            "{measure} {points:.1f} points lower ({between})",
            measure=measure,
            points=-points,
            between=between,
        )
    return Message(
        "{measure} {points:.1f} points higher ({between})",
        measure=measure,
        points=abs(points),
        between=between,
    )


def _more(missing: int, share: float, left: int | None) -> str:
    """How many reviews bring so many judged tasks, or that the project has not so many tasks."""
    if missing <= 0:
        return ""
    if share <= 0:
        return Message("; none is chosen while LS_CLIP_BLIND_SHARE and LS_CLIP_AUDIT_SHARE are 0")
    reviews = ceil(missing / share)
    if left is not None and reviews > left:
        if not left:
            return Message("; all tasks are reviewed: add tasks, or raise LS_CLIP_BLIND_SHARE")
        return Message.of_count(
            left,
            "; the one task that is left to review brings too few: add tasks, or raise "
            "LS_CLIP_BLIND_SHARE",
            "; the {count} tasks that are left to review bring too few: add tasks, or raise "
            "LS_CLIP_BLIND_SHARE",
        )
    if reviews > 20:
        reviews = ceil(reviews / 10) * 10
    if left is not None:
        reviews = min(reviews, left)
    return Message(", after about {reviews}", reviews=counted(reviews, "more review"))
