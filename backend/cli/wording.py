"""How the command line words and colours the states of runs and trainings, and orders of review."""

from __future__ import annotations

from backend.errors import SettingsError
from backend.messages.message import Message
from backend.projects import state_words
from backend.storage.review_record import ReviewOrder
from jobs.run import RunState
from jobs.training_state import Outcome

_RUN_COLOURS = {RunState.DONE: "green", RunState.FAILED: "red", RunState.CANCELLED: "yellow"}
_OUTCOME_COLOURS = {Outcome.ACCEPTED: "green", Outcome.FAILED: "red"}
RUN_STATES = {
    state: (word, _RUN_COLOURS.get(state, "cyan")) for state, word in state_words.RUN_STATES.items()
}
"""State -> word and colour."""
TRAINING_STATES = state_words.TRAINING_STATES
"""State -> word."""
OUTCOMES = {
    outcome: (word, _OUTCOME_COLOURS.get(outcome, "yellow"))
    for outcome, word in state_words.OUTCOMES.items()
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
