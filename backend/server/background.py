"""What the server does after an answer, because nobody waits for it: remember, forget, note."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from redis.exceptions import RedisError

from backend import telemetry
from backend.errors import QueueError, StoreError
from backend.inference.prediction import Prediction, logged
from backend.labelstudio.projects import project_key
from backend.projects.filling import images_of
from backend.runtime import Runtime
from jobs import queue
from jobs.events import record_event

log = logging.getLogger(__name__)


class Background:
    """One piece of work at a time: a thread for the store, and one for the queue.

    Args:
        runtime: of this process.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = ThreadPoolExecutor(1, "housekeeping")
        # A Redis that hangs must not keep the store waiting.
        self._queue = ThreadPoolExecutor(1, "events")
        self._events: list[tuple[Mapping[str, Any], int]] = []
        self._lock = threading.Lock()

    def remember(self, project: str, predictions: Sequence[Prediction]) -> None:
        """Keep what was shown, and which images it was shown for."""
        if any(one.result is not None for one in predictions):
            self._soon(self._store, self._remember, project, predictions)

    def forget(self, event: Mapping[str, Any]) -> None:
        """Erase what is kept of the tasks that a TASKS_DELETED event names."""
        self._soon(self._store, self._forget, event)

    def record_event(self, event: Mapping[str, Any], project: int) -> None:
        """Note what an event of `events.RECORDED_ACTIONS` asks for."""
        if not self._runtime.settings.redis_url.get_secret_value():
            action = event["action"]
            log.warning("%s of project %d leads to nothing: there are no workers", action, project)
            return
        with self._lock:
            self._events.append((event, project))
        self._soon(self._queue, self._record_events)

    def _record_events(self) -> None:
        """Note all that has come until now: what comes while Redis hangs costs one more wait."""
        settings = self._runtime.settings
        with self._lock:
            events, self._events = self._events, []
        if not events:
            return
        noted = 0
        try:
            connection = queue.connect(settings)
            for event, project in events:
                record_event(connection, settings, event, project)
                noted += 1
        except (RedisError, QueueError) as error:
            # Not lost for good: the reconciling look finds what was approved.
            lost = len(events) - noted
            telemetry.EVENTS_LOST.inc(lost)
            event, project = events[noted]
            log.error(
                "%s of project %d is not noted, and %d more: %s",
                *(event["action"], project, lost - 1, error),
            )

    def _soon(self, pool: ThreadPoolExecutor, work: Callable[..., None], *arguments: Any) -> None:
        def said(done: Future[None]) -> None:
            if (error := done.exception()) is not None:
                log.error("unexpected error after an answer", exc_info=error)

        pool.submit(work, *arguments).add_done_callback(said)

    def _remember(self, project: str, predictions: Sequence[Prediction]) -> None:
        runtime = self._runtime
        try:
            runtime.prediction_log.add(project, logged(predictions))
            runtime.prediction_log.link_images(project, images_of(runtime.embedder, predictions))
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
            gone = self._runtime.prediction_log.purge(project, tasks)
        except StoreError as error:
            telemetry.STORE_FAILURES.inc()
            log.error("%d deleted tasks are not erased: %s", len(tasks), error)
            return
        log.info("%d tasks were deleted: %d images erased", len(tasks), gone.images)
