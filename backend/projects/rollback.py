"""Return a project to an earlier head, or to zero-shot suggestions."""

from __future__ import annotations

from contextlib import suppress

from backend.errors import QueueError, SettingsError
from backend.messages.message import Message
from backend.projects.state_words import RUN_STATES
from backend.storage.artifacts import DamagedArtifactError
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from jobs import enqueue, queue
from jobs.run import Run, Scope, Trigger
from jobs.run_store import RunStore
from jobs.training_state import TrainingState, TrainingStore


def previous_head(registry: HeadRegistry, key: str, project: int) -> str:
    """The head that was in use before the present one was first used.

    Args:
        registry: of the store.
        key: of the project.
        project: its number.

    Raises:
        SettingsError: there is none.
    """
    history = registry.history(key)
    # What served before its first use: calling this twice goes two steps back.
    before = history[: history.index(history[-1])] if history else []
    if not before:
        fix = Message("Name the head, or zero-shot.")
        if not registry.names(key):
            fix = Message("There is nothing to return to: the project's suggestions are zero-shot.")
        raise SettingsError(
            Message("No other head of project {project} has been in use before.", project=project),
            fix,
        )
    return before[-1]


def is_in_use(registry: HeadRegistry, key: str, head: str) -> bool:
    """Whether a head, or zero-shot, serves, and nothing else should."""
    # Whatever has served: the rollback writes it anew.
    with suppress(DamagedArtifactError):
        return head == registry.serving(key) == (registry.history(key) or [ZERO_SHOT])[-1]
    return False


def start_rollback(
    trainings: TrainingStore,
    registry: HeadRegistry,
    key: str,
    project: int,
    head: str,
    *,
    trigger: Trigger,
) -> Run:
    """Have the workers put a head into use that was made before.

    Args:
        trainings: of all projects.
        registry: of the store.
        key: of the project.
        project: its number.
        head: a set of heads, or zero-shot.
        trigger: what asks for it.

    Raises:
        QueueError: the project is being trained, or has a run in progress; Redis is away.
        StoreError: there is no such head, or it is damaged.
    """
    if head != ZERO_SHOT:
        registry.get(key, head)
    runs = RunStore(trainings.connection)
    with queue.explained():
        if trainings.get(project).state != TrainingState.IDLE:
            raise QueueError(
                Message(
                    "Project {project} is being trained, and the new head would end the rollback.",
                    project=project,
                ),
                Message(
                    "Wait for the training to end (ls-clip heads {project}), then try again.",
                    project=project,
                ),
            )
    # An accepted head that waits for its refresh is not to be put into use now. Before the run is
    # enqueued, so that nothing can begin in between.
    withdrawn = registry.withdraw_candidate(key)
    run, is_new = enqueue.start_run(runs, project, Scope.UNLABELLED, trigger, head)
    if not is_new:
        registry.set_candidate(key, withdrawn)
        raise QueueError(
            Message(
                "Project {project} already has a run in progress ({run}, {state}).",
                project=project,
                run=run.id,
                state=RUN_STATES[run.state],
            ),
            Message(
                "Wait for it to end, or cancel it (ls-clip runs {project} --cancel {run}), then "
                "try again.",
                project=project,
                run=run.id,
            ),
        )
    with queue.explained():
        trainings.note(project, candidate="")
    return run
