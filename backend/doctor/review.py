"""Checks of how a project's tasks come to be reviewed: their order, and the tab with the next."""

from __future__ import annotations

from collections.abc import Iterator

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity
from backend.labelstudio.projects import project_key
from backend.messages.message import Message
from backend.projects.review import WHY_RANDOM, order_sentence
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder
from jobs.review_order import order_of
from jobs.review_round import TAB_TITLE, find_tab


def order(context: Context) -> Iterator[Finding]:
    """In which order tasks are served."""
    served = order_of(context.project)
    if served is ReviewOrder.RANDOM:
        yield Finding("review-order", Severity.OK, order_sentence(served))
    else:
        yield Finding(
            "review-order",
            Severity.NOTE,
            order_sentence(served),
            Message("{why}.", why=WHY_RANDOM[served]),
            Message(
                "Run ls-clip connect {number} --order random, unless the order is meant so.",
                number=context.number,
            ),
        )


def tab(context: Context) -> Iterator[Finding]:
    """The tab with the next tasks is there and shows them."""
    number = context.project_number
    record = ProjectState(context.store, project_key(context.project)).round()
    connect = Message("Run ls-clip connect {number}.", number=number)
    if record is None:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            Message('The project has no tab "{tab_title}".', tab_title=TAB_TITLE),
            Message("It would hold tasks with images unlike those that are reviewed."),
            connect,
        )
    elif record.failure:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            Message(
                'The tab "{tab_title}" could not be refreshed: {failure}',
                tab_title=TAB_TITLE,
                failure=record.failure,
            ),
            Message(
                "It shows tasks that may be reviewed already. The workers try again by themselves."
            ),
            connect,
        )
    elif record.tasks and find_tab(context.studio.views.of_project(number), record) is None:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            Message('The tab "{tab_title}" is gone from the Data Manager.', tab_title=TAB_TITLE),
            Message("Whoever deleted it may not need it: nothing else depends on it."),
            Message("{connect} It makes the tab again.", connect=connect),
        )


CHECKS = (
    Check(
        "review-order",
        Message("Tasks are served in random order."),
        Message("The order decides what a review is worth."),
        order,
        ("project",),
        project=True,
    ),
    Check(
        "review-tab",
        Message('The tab "{tab_title}" shows the tasks to review next.', tab_title=TAB_TITLE),
        Message("They cover the kinds of images of which nothing is reviewed yet."),
        tab,
        ("project", "store"),
        project=True,
    ),
)
