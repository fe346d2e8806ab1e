"""How the command line words and colours the states of runs and trainings."""

from __future__ import annotations

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
