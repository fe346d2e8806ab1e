"""Checks of how a project's tasks come to be reviewed: their order, and the tab with the next."""

from __future__ import annotations

from collections.abc import Iterator

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity
from backend.labelstudio.projects import project_key
from backend.projects.review import CHEAPEST, order_sentence
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
            f"{CHEAPEST}.",
            f"Run ls-clip connect {context.number} --order random, unless the order is meant so.",
        )


def tab(context: Context) -> Iterator[Finding]:
    """The tab with the next tasks is there and shows them."""
    number = context.project_number
    record = ProjectState(context.store, project_key(context.project)).round()
    connect = f"Run ls-clip connect {number}."
    if record is None:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            f'The project has no tab "{TAB_TITLE}".',
            "It would hold tasks with images unlike those that are reviewed.",
            connect,
        )
    elif record.failure:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            f'The tab "{TAB_TITLE}" could not be refreshed: {record.failure}',
            "It shows tasks that may be reviewed already. The workers try again by themselves.",
            connect,
        )
    elif record.tasks and find_tab(context.studio.views.of_project(number), record) is None:
        yield Finding(
            "review-tab",
            Severity.NOTE,
            f'The tab "{TAB_TITLE}" is gone from the Data Manager.',
            "Whoever deleted it may not need it: nothing else depends on it.",
            f"{connect} It makes the tab again.",
        )


CHECKS = (
    Check(
        "review-order",
        "Tasks are served in random order.",
        "The order decides what a review is worth.",
        order,
        ("project",),
        project=True,
    ),
    Check(
        "review-tab",
        f'The tab "{TAB_TITLE}" shows the tasks to review next.',
        "They cover the kinds of images of which nothing is reviewed yet.",
        tab,
        ("project", "store"),
        project=True,
    ),
)
