"""What the server does after an answer, because nobody waits for it: remember and forget."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backend import telemetry
from backend.errors import StoreError
from backend.filling import images_of
from backend.prediction import Prediction
from backend.runtime import Runtime
from backend.studio import project_key

log = logging.getLogger(__name__)


class Housekeeping:
    """One piece of work at a time, in a thread of its own.

    Args:
        runtime: of this process.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pool = ThreadPoolExecutor(1, "housekeeping")

    def remember(self, project: str, predictions: Sequence[Prediction]) -> None:
        """Keep what was shown, and which images it was shown for."""
        if any(one.result is not None for one in predictions):
            self._pool.submit(self._remember, project, predictions)

    def forget(self, event: Mapping[str, Any]) -> None:
        """Erase what is kept of the tasks that a TASKS_DELETED event names."""
        self._pool.submit(self._forget, event)

    def _remember(self, project: str, predictions: Sequence[Prediction]) -> None:
        house = self._runtime
        try:
            house.snapshots.add(project, predictions)
            house.snapshots.tie(project, images_of(house.predictor, predictions))
        except StoreError as error:
            telemetry.STORE_FAILURES.inc()
            log.error("what project %s was shown is not remembered: %s", project[:20], error)

    def _forget(self, event: Mapping[str, Any]) -> None:
        try:
            tasks = [int(task["id"]) for task in event["tasks"]]
            project = project_key(event["project"])
        except (KeyError, TypeError, ValueError):
            log.warning("TASKS_DELETED names no tasks of a project; nothing is erased")
            return
        try:
            gone = self._runtime.snapshots.forget(project, tasks)
        except StoreError as error:
            telemetry.STORE_FAILURES.inc()
            log.error("%d deleted tasks are not erased: %s", len(tasks), error)
            return
        log.info("%d tasks were deleted: %d images erased", len(tasks), gone.images)
