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
KNOWN_FIELD = "known_field"
"""In ``meta`` of our own export's tasks: the field of their data with labels known beforehand."""
OWN_COLUMNS = frozenset({"task", "control", STATE, PRESENT, "provenance"})
"""By which our CSV files are recognised; they have a row for each label of each task."""
OWN_WIDE_COLUMNS = frozenset(
    {"task", "image", "name", "file_name", "width", "height", "split", "reviewed"}
)
"""By which our files with a row for each image are recognised."""


def is_known_row(row: Mapping[str, Any]) -> bool:
    """Whether a row of such a file says that its label is there, on a person's word."""
    state, present = str(row.get(STATE)), str(row.get(PRESENT))
    return state in {State.APPROVED, State.KNOWN} and present.lower() == "true"
