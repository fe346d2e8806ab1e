"""In which order Label Studio serves a project's tasks, and since when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder

SAMPLING: Mapping[ReviewOrder, str] = {
    ReviewOrder.RANDOM: "Uniform sampling",
    ReviewOrder.UNCERTAIN: "Uncertainty sampling",
    ReviewOrder.SEQUENTIAL: "Sequential sampling",
}
"""Order -> what Label Studio calls it in a project's ``sampling``."""


def order_of(project: Mapping[str, Any]) -> ReviewOrder:
    """The order in which a project serves its tasks now.

    Args:
        project: as Label Studio describes it.
    """
    found = [order for order, name in SAMPLING.items() if name == project["sampling"]]
    return found[0] if found else ReviewOrder.SEQUENTIAL


def note_order(state: ProjectState, project: Mapping[str, Any]) -> None:
    """Note the order that a person may have chosen in Label Studio since it was last looked at.

    Nothing is noted for a project whose order `ls-clip connect` has never noted.

    Raises:
        StoreError: the store cannot be read or written.
    """
    if state.orders():
        state.note_order(order_of(project), time.time())
