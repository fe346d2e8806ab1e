"""How we know about a label of a task: a column of the files that are exported and imported."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How we know about a label of a task."""

    APPROVED = "approved"
    """A person decided that it is there, or that it is not."""
    KNOWN = "known"
    """The task's data names it."""
    PSEUDO = "pseudo"
    """Nobody has decided, and the current version suggests it."""
    UNKNOWN = "unknown"


STATE, PRESENT = "state", "present"
"""Columns of our CSV files, which have a row for each label of each task."""


def is_known_row(row: Mapping[str, Any]) -> bool:
    """Whether a row of such a file says that its label is there, on a person's word."""
    return row[STATE] in {State.APPROVED, State.KNOWN} and str(row[PRESENT]).lower() == "true"
