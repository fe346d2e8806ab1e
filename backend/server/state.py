"""What the routes of one application share."""

from __future__ import annotations

import threading
from functools import cached_property

from flask import Flask, current_app

from backend.runtime import Runtime
from backend.server.background import Background
from backend.settings import Settings
from jobs import queue
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

SPARE_THREADS = 4
"""Request threads that /predict never takes, so that /health always has one."""
VERSIONS_SHOWN = 100
_EXTENSION = "label-studio-clip"


class ServerState:
    """State of one application; `state` finds it from inside a request.

    Args:
        runtime: of this process.

    Attributes:
        settings: of this process.
        runtime: of this process.
        background: does what need not be done before an answer.
        predicting: held by each /predict call that predicts.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.settings: Settings = runtime.settings
        self.runtime = runtime
        self.background = Background(runtime)
        self.predicting = threading.BoundedSemaphore(self.settings.threads - SPARE_THREADS)
        self._served: dict[str, None] = {}

    def add_served(self, version: str) -> None:
        """Record that a version was answered with."""
        self._served[version] = None
        while len(self._served) > VERSIONS_SHOWN:
            del self._served[next(iter(self._served))]

    @property
    def served_versions(self) -> list[str]:
        """The versions answered with since the start, oldest first, at most `VERSIONS_SHOWN`."""
        return list(self._served)

    @cached_property
    def runs(self) -> RunStore:
        """Runs, as Redis keeps them.

        Raises:
            QueueError: there is no queue.
        """
        return RunStore(queue.connect(self.settings))

    @cached_property
    def trainings(self) -> TrainingStore:
        """Trainings, as Redis keeps them.

        Raises:
            QueueError: there is no queue.
        """
        return TrainingStore(queue.connect(self.settings))


def attach(app: Flask, runtime: Runtime) -> None:
    """Give an application its state."""
    app.extensions[_EXTENSION] = ServerState(runtime)


def state() -> ServerState:
    """The state of the application that handles the current request."""
    shared: ServerState = current_app.extensions[_EXTENSION]
    return shared
