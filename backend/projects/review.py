"""How a connected project's tasks come to be reviewed: their order, and the tab with the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import ClipError, StoreError, counted
from backend.inference.holdout import is_blind
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.messages.message import Message, in_sequence
from backend.runtime import Runtime
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder
from backend.vlpl.fitting import HEAD_FROM
from jobs.review_order import SAMPLING, order_of
from jobs.review_round import TAB_TITLE, RefreshBusyError, list_tasks, refresh

WAIT_SECONDS = 120.0
"""How long a worker that refreshes the same project's round is waited for."""
WORDS: Mapping[ReviewOrder, Message] = {
    ReviewOrder.RANDOM: Message("Tasks are served in random order."),
    ReviewOrder.UNCERTAIN: Message(
        "Tasks are served in the order of their confidence, the least certain first."
    ),
    ReviewOrder.SEQUENTIAL: Message("Tasks are served in the order of the Data Manager."),
}
"""Order -> how tasks are served."""
WHY_RANDOM: Mapping[ReviewOrder, Message] = {
    ReviewOrder.UNCERTAIN: Message(
        "Random order costs fewer clicks than the least certain tasks first, and its reviews also "
        "correct the percentages"
    ),
    ReviewOrder.SEQUENTIAL: Message(
        "Reviews in random order tell of all tasks, so they also correct the percentages"
    ),
}
"""Order that tasks are served in -> why the random one is better."""
FEW_TICKS = 0.5
"""A task; below, people wonder where the suggestions are."""
TICKED_TASKS = 2000
"""Tasks whose ticks are counted, at most."""


@dataclass(frozen=True)
class Offer:
    """What a project offers for review.

    Attributes:
        blind: how many of its tasks are shown without suggestions on purpose.
        tab: title of the tab with the next round; empty if there is none.
        warning: why there is none, or it is out of date; empty if all is well.
    """

    blind: int = 0
    tab: str = ""
    warning: str = ""


def ticks_sentence(ticks: float, tasks: int, *, required: bool) -> Message:
    """How many labels are ticked, a task, and why these are few, for a person.

    Args:
        ticks: their mean.
        tasks: of the project; of more than `TICKED_TASKS` so many were drawn.
        required: whether the config says of a control that each image has one of its labels.
    """
    text = Message("Labels ticked: {ticks:.2f} a task.", ticks=ticks)
    if tasks > TICKED_TASKS:
        text = Message(
            "Labels ticked: {ticks:.2f} a task, in a sample of {tasks}.",
            ticks=ticks,
            tasks=counted(TICKED_TASKS, "task"),
        )
    if ticks >= FEW_TICKS:
        return text
    why = Message(
        "A label is ticked only where it is likelier right than wrong. From about {needed} "
        "reviewed tasks on, a head that is trained on them can tick more.",
        needed=HEAD_FROM,
    )
    if required:
        return in_sequence(text, why)
    more = Message(
        'If every image has at least one of the labels, write required="true" into their control: '
        "more is ticked then."
    )
    return in_sequence(text, why, more)


def order_sentence(order: ReviewOrder) -> Message:
    """In which order a project serves its tasks, for a person."""
    return WORDS[order]


def tab_sentence(tab: str) -> Message:
    """What the tab with the next round is for, for a person."""
    return Message(
        'The tab "{tab}" of the Data Manager holds tasks with images unlike those reviewed so '
        'far: open it and choose "Label Tasks As Displayed" (docs/training.md).',
        tab=tab,
    )


def blind_sentence(blind: int, tasks: int) -> Message:
    """How many of a project's tasks are shown without suggestions, for a person."""
    return Message.of_count(
        blind,
        "{count} of {tasks} is shown without suggestions on purpose, to learn from unaided "
        "annotators (docs/training.md).",
        "{count} of {tasks} are shown without suggestions on purpose, to learn from unaided "
        "annotators (docs/training.md).",
        tasks=counted(tasks, "task"),
    )


def settle_order(
    studio: LabelStudioClient,
    state: ProjectState,
    project: Mapping[str, Any],
    asked: ReviewOrder | None,
) -> tuple[ReviewOrder, str]:
    """Decide in which order a project serves its tasks, and note it.

    An order that somebody asks for is set. Otherwise a project that was never connected gets the
    random one, unless a person has already chosen another than Label Studio's default; any other
    project keeps what it has.

    Args:
        studio: the Label Studio.
        state: of the project, before its labels are noted.
        project: as Label Studio describes it.
        asked: the order that somebody asks for now; None: nobody does.

    Returns:
        The order from now on, and a sentence about one that was left alone, or empty.

    Raises:
        StudioError: Label Studio refuses the order.
        StoreError: the store cannot be read or written.
    """
    number, current, noted = int(project["id"]), order_of(project), state.orders()
    was_connected = bool(noted) or state.label_ages() is not None
    wanted = asked
    if wanted is None and not was_connected and current is ReviewOrder.SEQUENTIAL:
        wanted = ReviewOrder.RANDOM
    if wanted is not None:
        if project["sampling"] != SAMPLING[wanted]:
            studio.projects.update(number, sampling=SAMPLING[wanted])
        state.note_order(wanted, time.time())
        return wanted, ""
    is_known = bool(noted) and noted[-1].order is current
    state.note_order(current, time.time())
    if is_known or current is ReviewOrder.RANDOM:
        return current, ""
    return current, Message(
        "The order of the project's tasks is left alone ({sampling}). {why}: ls-clip connect "
        "{number} --order random.",
        sampling=project["sampling"],
        why=WHY_RANDOM[current],
        number=number,
    )


def offer_round(runtime: Runtime, studio: LabelStudioClient, project: Mapping[str, Any]) -> Offer:
    """Make or refresh the tab with the next round of tasks; what fails is told and keeps nothing.

    Args:
        runtime: of this process.
        studio: the Label Studio.
        project: as it describes it.
    """
    key, share = project_key(project), runtime.settings.blind_share
    blind = 0
    try:
        tasks = list_tasks(runtime, studio, project)
        blind = sum(is_blind(key, task.number, share) for task in tasks)
        record = refresh(
            runtime, studio, project, connecting=True, tasks=tasks, wait_seconds=WAIT_SECONDS
        )
    except RefreshBusyError:
        return Offer(
            blind, TAB_TITLE, Message("A worker is choosing the next tasks at the moment.")
        )
    except ClipError as error:
        reason = error.in_words(runtime.settings.language)
        with suppress(StoreError):
            # With a record, the workers know that a tab is wanted.
            state = ProjectState(runtime.store, key)
            state.change_round(lambda now: replace(now, failure=reason))
        again = (
            Message("The workers try again.")
            if runtime.settings.redis_url.get_secret_value()
            else Message("ls-clip connect {number} tries again.", number=project["id"])
        )
        failed = Message('The tab "{tab}" could not be refreshed.', tab=TAB_TITLE)
        return Offer(blind, "", in_sequence(failed, again, error.message, error.fix))
    return Offer(blind, TAB_TITLE if record.tab else "")
