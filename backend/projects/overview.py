"""How a project stands, in one look: its tasks, its suggestions, its runs and its trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import Redis

from backend.labelstudio.projects import project_key
from backend.messages.message import Message
from backend.storage.artifacts import DamagedArtifactError
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.head_set import HeadSet
from backend.storage.store import Store
from backend.training.clicks_text import clicks_text
from jobs import queue
from jobs.run import ENDED, Run
from jobs.run_store import RunStore
from jobs.training_state import Training, TrainingState, TrainingStore

RUNS_SHOWN = 10


@dataclass(frozen=True)
class TaskCounts:
    """A project's tasks, as Label Studio counts them.

    Attributes:
        all: tasks.
        reviewed: those with an annotation.
    """

    all: int
    reviewed: int

    @property
    def open(self) -> int:
        """Tasks that nobody has reviewed."""
        return max(0, self.all - self.reviewed)

    @classmethod
    def from_project(cls, project: Mapping[str, Any]) -> TaskCounts:
        """From Label Studio's answer about a project."""
        return cls(
            int(project.get("task_number") or 0),
            int(project.get("num_tasks_with_annotations") or 0),
        )


@dataclass(frozen=True)
class Activity:
    """What workers do for a project, and did last.

    Attributes:
        runs: newest first, at most `RUNS_SHOWN`.
        training: how it stands.
    """

    runs: Sequence[Run]
    training: Training

    @property
    def goes_on(self) -> bool:
        """Whether a run or a training is queued or going on, or a head waits for its refresh."""
        trains = self.training.state is not TrainingState.IDLE or bool(self.training.candidate)
        return trains or any(run.state not in ENDED for run in self.runs)

    @property
    def stamp(self) -> str:
        """Changes when something begins, ends or takes its next step."""
        training = self.training
        steps = [training.state, str(training.ended), training.candidate]
        return " ".join([*steps, *(f"{run.id}:{run.state}" for run in self.runs)])


@dataclass(frozen=True)
class Overview:
    """See the module.

    Attributes:
        title: of the project.
        tasks: how many.
        version: the model version that Label Studio shows; empty: none.
        serving: the head in use; None: suggestions are zero-shot.
        activity: None without a queue.
    """

    title: str
    tasks: TaskCounts
    version: str
    serving: HeadSet | None
    activity: Activity | None

    @property
    def reviewed_text(self) -> str:
        """How many reviewed tasks the head in use was trained on."""
        reviewed = 0 if self.serving is None else self.serving.approvals
        return Message.of_count(reviewed, "{count} reviewed task", "{count} reviewed tasks")

    @property
    def clicks_text(self) -> str:
        """What suggestions cost against labelling from nothing; empty where nobody knows yet."""
        if self.serving is None or self.serving.clicks is None:
            return ""
        missing = None if self.activity is None else self.activity.training.missing
        return clicks_text(self.serving.clicks, missing)


def overview(store: Store, project: Mapping[str, Any], connection: Redis | None) -> Overview:
    """How a project stands now.

    Args:
        store: with its heads.
        project: Label Studio's answer about it.
        connection: to Redis; None without a queue.

    Raises:
        StoreError: the store cannot be read.
        QueueError: the queue cannot be asked.
    """
    key = project_key(project)
    registry = HeadRegistry(store)
    serving = None
    # Heads that are damaged do not serve.
    with suppress(DamagedArtifactError):
        name = registry.serving(key)
        serving = None if name == ZERO_SHOT else registry.get(key, name)
    return Overview(
        str(project.get("title") or ""),
        TaskCounts.from_project(project),
        str(project.get("model_version") or ""),
        serving,
        None if connection is None else activity(connection, int(project["id"])),
    )


def activity(connection: Redis, project: int) -> Activity:
    """What workers do for a project.

    Args:
        connection: to Redis.
        project: its number.

    Raises:
        QueueError: the queue cannot be asked.
    """
    with queue.explained():
        runs = RunStore(connection).of_project(project)[:RUNS_SHOWN]
        return Activity(runs, TrainingStore(connection).get(project))
