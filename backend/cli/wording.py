"""How the command line words and colours the states of runs and trainings, and orders of review."""

from __future__ import annotations

from backend.errors import SettingsError
from backend.messages.message import Message
from backend.storage.review_record import ReviewOrder
from jobs.run import RunState
from jobs.training_state import Outcome, TrainingState

RUN_STATES = {
    RunState.QUEUED: ("queued", "cyan"),
    RunState.LISTING: ("listing", "cyan"),
    RunState.EMBEDDING: ("embedding", "cyan"),
    RunState.IMPORTING: ("importing", "cyan"),
    RunState.DONE: ("done", "green"),
    RunState.FAILED: ("failed", "red"),
    RunState.CANCELLED: ("cancelled", "yellow"),
}
"""State -> word and colour."""
TRAINING_STATES = {
    TrainingState.IDLE: "idle",
    TrainingState.QUEUED: "queued",
    TrainingState.TRAINING: "in progress",
}
"""State -> word."""
OUTCOMES = {
    Outcome.NONE: ("none yet", "yellow"),
    Outcome.ACCEPTED: ("accepted", "green"),
    Outcome.REJECTED: ("rejected", "yellow"),
    Outcome.TOO_FEW: ("too few approvals", "yellow"),
    Outcome.NOTHING_NEW: ("nothing new", "yellow"),
    Outcome.FAILED: ("failed", "red"),
}
"""Outcome of a training -> word and colour."""
ORDERS = (ReviewOrder.RANDOM, ReviewOrder.UNCERTAIN)
"""Orders that can be asked for."""


def review_order(text: str) -> ReviewOrder:
    """The order of review that an option names.

    Raises:
        SettingsError: there is none of that name.
    """
    if text not in [*ORDERS]:
        raise SettingsError(
            Message("--order {text} is not known.", text=text),
            Message("Give one of: {names}.", names=", ".join(ORDERS)),
        )
    return ReviewOrder(text)
