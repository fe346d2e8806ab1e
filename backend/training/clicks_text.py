"""What clicks say of suggestions, in words for people who label: one sentence for all who tell it.

Loads neither torch nor a queue, because every process tells it.
"""

from __future__ import annotations

from backend.errors import counted
from backend.vlpl.clicks import FEWEST, Clicks, Effect


def clicks_text(clicks: Clicks, more: int | None = None) -> str:
    """The clicks beside those from nothing, whether they save any, and what would change that.

    Args:
        clicks: of tasks that were chosen at random.
        more: how many more reviewed tasks train the next head; None if none is trained.
    """
    if clicks.effect == Effect.COST:
        return f"{_numbers(clicks)} {_cost(clicks, more)}"
    if clicks.effect == Effect.SAVE:
        low, high = clicks.saved_interval
        return f"{_numbers(clicks)} Suggestions save {clicks.saved:.1f} ({low:.1f} to {high:.1f})."
    return f"{_numbers(clicks)} Whether suggestions save clicks cannot be told yet{_needed(clicks)}"


def with_text(clicks: Clicks, more: int | None = None) -> dict[str, object]:
    """The clicks as JSON answers give them: with ``text``, the sentence for a person."""
    return {**clicks.as_dict(), "text": clicks_text(clicks, more)}


def _numbers(clicks: Clicks) -> str:
    low, high = clicks.interval
    interval = f" ({low:.1f} to {high:.1f})" if clicks.tasks >= FEWEST else ""
    return (
        f"Clicks a task: {clicks.per_task:.1f}{interval} with suggestions, "
        f"{clicks.from_nothing:.1f} from nothing."
    )


def _needed(clicks: Clicks) -> str:
    tasks = counted(clicks.tasks, "task")
    needed = f"; {FEWEST} are needed" if clicks.tasks < FEWEST else ""
    return f" from {tasks}{needed}."


def _cost(clicks: Clicks, more: int | None) -> str:
    text = (
        "At present suggestions cost more clicks than they save "
        f"({clicks.per_task:.1f} a task against {clicks.from_nothing:.1f})."
    )
    fewer = (
        "" if clicks.threshold is None else f"LS_CLIP_THRESHOLD={clicks.threshold:g} shows fewer"
    )
    if more is not None:
        tasks = f"{counted(more, 'more reviewed task')} {'trains' if more == 1 else 'train'}"
        until = f"; until then, {fewer}" if fewer else ""
        return f"{text} The next head, which about {tasks}, should correct that{until}."
    return f"{text} {fewer}." if fewer else text
