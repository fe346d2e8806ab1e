"""All checks, and the call that runs them."""

from __future__ import annotations

from backend.doctor import (
    direct_reading,
    label_studio,
    machine,
    project,
    queue,
    review,
    store,
    suggestions,
)
from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, examine
from backend.settings import Settings

CHECKS: tuple[Check, ...] = (
    *machine.CHECKS,
    *direct_reading.CHECKS,
    *store.CHECKS,
    *queue.CHECKS,
    *label_studio.CHECKS,
    *project.CHECKS,
    *direct_reading.PROJECT_CHECKS,
    *store.PROJECT_CHECKS,
    *suggestions.CHECKS,
    *review.CHECKS,
)
"""In the order in which they are run and printed."""


def doctor(settings: Settings, project: int | None = None) -> list[Finding]:
    """Examine this machine and Label Studio, and the project if one is given.

    Nothing is changed in Label Studio.

    Args:
        settings: those that ``ls-clip serve`` and ``ls-clip connect`` run with.
        project: a project's number.
    """
    return examine(Context(settings, project), CHECKS)
