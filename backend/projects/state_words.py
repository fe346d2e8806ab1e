"""States of runs and trainings in words for people, the same on the command line and the pages."""

from __future__ import annotations

from backend.messages.message import Message
from jobs.run import RunState
from jobs.training_state import Outcome, TrainingState

RUN_STATES = {
    RunState.QUEUED: Message("queued"),
    RunState.LISTING: Message("listing"),
    RunState.EMBEDDING: Message("embedding"),
    RunState.IMPORTING: Message("importing"),
    RunState.DONE: Message("done"),
    RunState.FAILED: Message("failed"),
    RunState.CANCELLED: Message("cancelled"),
}
TRAINING_STATES = {
    TrainingState.IDLE: Message("idle"),
    TrainingState.QUEUED: Message("queued"),
    TrainingState.TRAINING: Message("in progress"),
}
OUTCOMES = {
    Outcome.NONE: Message("none yet"),
    Outcome.ACCEPTED: Message("accepted"),
    Outcome.REJECTED: Message("rejected"),
    Outcome.TOO_FEW: Message("too few approvals"),
    Outcome.NOTHING_NEW: Message("nothing new"),
    Outcome.FAILED: Message("failed"),
}
