"""What clicks say of suggestions, in words for people who label: one sentence for all who tell it.

Loads neither torch nor a queue, because every process tells it.
"""

from __future__ import annotations

from backend.errors import counted
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message, in_sequence
from backend.vlpl.clicks import FEWEST, Clicks, Effect


def clicks_text(clicks: Clicks, more: int | None = None) -> Message:
    """The clicks beside those from nothing, whether they save any, and what would change that.

    Args:
        clicks: of tasks that were chosen at random.
        more: how many more reviewed tasks train the next head; None if none is trained.
    """
    if clicks.effect == Effect.COST:
        return in_sequence(_numbers(clicks), *_cost(clicks, more))
    if clicks.effect == Effect.SAVE:
        low, high = clicks.saved_interval
        saved = Message(
            "Suggestions save {saved:.1f} ({low:.1f} to {high:.1f}).",
            saved=clicks.saved,
            low=low,
            high=high,
        )
        return in_sequence(_numbers(clicks), saved)
    return in_sequence(_numbers(clicks), _unknown(clicks))


def with_text(
    clicks: Clicks, more: int | None = None, language: Language = Language.ENGLISH
) -> dict[str, object]:
    """The clicks as JSON answers give them: with ``text``, the sentence for a person."""
    return {**clicks.as_dict(), "text": localized(clicks_text(clicks, more), language)}


def _numbers(clicks: Clicks) -> Message:
    costs = {"suggested": clicks.per_task, "nothing": clicks.from_nothing}
    if clicks.tasks < FEWEST:
        return Message(
            "Clicks a task: {suggested:.1f} with suggestions, {nothing:.1f} from nothing.", **costs
        )
    low, high = clicks.interval
    return Message(
        "Clicks a task: {suggested:.1f} ({low:.1f} to {high:.1f}) with suggestions, {nothing:.1f} "
        "from nothing.",
        **costs,
        low=low,
        high=high,
    )


def _unknown(clicks: Clicks) -> Message:
    tasks = counted(clicks.tasks, "task")
    if clicks.tasks < FEWEST:
        return Message(
            "Whether suggestions save clicks cannot be told yet from {tasks}; {needed} are needed.",
            tasks=tasks,
            needed=FEWEST,
        )
    return Message("Whether suggestions save clicks cannot be told yet from {tasks}.", tasks=tasks)


def _cost(clicks: Clicks, more: int | None) -> list[Message]:
    cost = Message(
        "At present suggestions cost more clicks than they save ({suggested:.1f} a task against "
        "{nothing:.1f}).",
        suggested=clicks.per_task,
        nothing=clicks.from_nothing,
    )
    threshold = clicks.threshold
    if more is None:
        if threshold is None:
            return [cost]
        fewer = Message("LS_CLIP_THRESHOLD={threshold:g} shows fewer.", threshold=threshold)
        return [cost, fewer]
    if threshold is None:
        correction = Message.of_count(
            more,
            "The next head, which about {count} more reviewed task trains, should correct that.",
            "The next head, which about {count} more reviewed tasks train, should correct that.",
        )
    else:
        correction = Message.of_count(
            more,
            "The next head, which about {count} more reviewed task trains, should correct that; "
            "until then, LS_CLIP_THRESHOLD={threshold:g} shows fewer.",
            "The next head, which about {count} more reviewed tasks train, should correct that; "
            "until then, LS_CLIP_THRESHOLD={threshold:g} shows fewer.",
            threshold=threshold,
        )
    return [cost, correction]
