"""Work that an answer does not wait for: logging predictions, purging tasks, events, runs."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from redis.exceptions import RedisError

from backend import telemetry
from backend.errors import QueueError, StoreError
from backend.inference.prediction import Prediction
from backend.labelstudio.projects import project_key
from backend.runtime import Runtime
from backend.server.prediction_logger import PredictionLogger
from backend.settings import Settings
from jobs import enqueue, queue
from jobs.events import record_event
from jobs.run import Scope, Trigger
from jobs.run_store import RunStore

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""How long a person's request waits for Redis; Label Studio waits longer."""
LATE_TASKS = "tasks that were not predicted in time: %d, of project %r; %s"


class Background:
    """Two threads, one for the store and one for Redis; each does one job at a time.

    Args:
        runtime: of this process.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = ThreadPoolExecutor(1, "store")
        # A Redis that hangs must not keep the store waiting.
        self._queue = ThreadPoolExecutor(1, "queue")
        self._logger = PredictionLogger(runtime.prediction_log, runtime.embedder)
        self._shown: list[tuple[str, Sequence[Prediction]]] = []
        self._events: list[tuple[Mapping[str, Any], int]] = []
        self._lock = threading.Lock()

    def log_predictions(self, project: str, predictions: Sequence[Prediction]) -> None:
        """Store what was shown for which tasks, and which images those tasks have.

        Args:
            project: ``<id>.<unix time of creation>``.
            predictions: those without a result are left out.
        """
        if any(prediction.result is not None for prediction in predictions):
            with self._lock:
                self._shown.append((project, predictions))
            _submit(self._store, self._log_predictions)

    def purge_tasks(self, event: Mapping[str, Any]) -> None:
        """Erase what is stored about the tasks that a TASKS_DELETED event names."""
        _submit(self._store, self._purge_tasks, event)

    def start_run_for_late_tasks(self, project: str, late: int) -> None:
        """Let the workers predict what a /predict call had no time for.

        Args:
            project: ``<id>.<unix time of creation>``.
            late: how many tasks are left.
        """
        _submit(self._queue, start_run_for_late_tasks, self._runtime.settings, project, late)

    def record_event(self, event: Mapping[str, Any], project: int) -> None:
        """Record an event for the workers.

        Args:
            event: with an ``action`` of `jobs.events.RECORDED_ACTIONS`.
            project: its number.
        """
        if not self._runtime.settings.redis_url.get_secret_value():
            action = event["action"]
            log.info(
                "%s of project %d starts nothing: LS_CLIP_REDIS_URL is not set", action, project
            )
            return
        with self._lock:
            self._events.append((event, project))
        _submit(self._queue, self._record_events)

    def record_request(self, event: Mapping[str, Any], project: int) -> None:
        """Record what a person waits for; like `record_event`, but an error reaches the caller.

        Args:
            event: with an ``action`` of `jobs.events.RECORDED_ACTIONS`.
            project: its number.

        Raises:
            QueueError: no queue is set; or Redis refuses it, or does not answer in time.
        """
        settings = self._runtime.settings
        connection = queue.connect(settings, retries=0)

        def record() -> None:
            with queue.explained():
                record_event(connection, settings, event, project)

        try:
            self._queue.submit(record).result(REQUEST_SECONDS)
        except FutureTimeoutError as error:
            raise QueueError(
                f"Redis has not answered within {REQUEST_SECONDS:.0f} s.", queue.FIX
            ) from error

    def _record_events(self) -> None:
        """Record all events so far at once: those that come while Redis hangs cost one wait."""
        settings = self._runtime.settings
        with self._lock:
            events, self._events = self._events, []
        if not events:
            return
        recorded = 0
        try:
            connection = queue.connect(settings)
            for event, project in events:
                record_event(connection, settings, event, project)
                recorded += 1
        except (RedisError, QueueError) as error:
            # Not lost for good: the reconciler finds what was approved.
            lost = len(events) - recorded
            telemetry.EVENTS_LOST.inc(lost)
            event, project = events[recorded]
            log.error(
                "%s of project %d was not recorded, and %d more: %s",
                *(event["action"], project, lost - 1, error),
            )

    def _log_predictions(self) -> None:
        """Log all predictions so far at once: those that come meanwhile share one append."""
        with self._lock:
            shown, self._shown = self._shown, []
        if not shown:
            return
        try:
            self._logger.write(shown)
        except StoreError as error:
            telemetry.STORE_FAILURES.inc()
            projects = ", ".join(sorted({project[:20] for project, _ in shown}))
            log.error("what was shown in project %s is not logged: %s", projects, error)

    def _purge_tasks(self, event: Mapping[str, Any]) -> None:
        try:
            tasks = [int(task["id"]) for task in event["tasks"]]
            project = project_key(event["project"])
        except (KeyError, TypeError, ValueError):
            log.warning("TASKS_DELETED names no tasks of a project; nothing is erased")
            return
        try:
            purged = self._runtime.prediction_log.purge(project, tasks)
        except StoreError as error:
            telemetry.STORE_FAILURES.inc()
            log.error("deleted tasks that are not erased: %d; %s", len(tasks), error)
            return
        log.info("tasks that were deleted: %d; images erased: %d", len(tasks), purged.images)


def start_run_for_late_tasks(settings: Settings, project: str, late: int) -> None:
    """Let the workers predict what a /predict call had no time for; the log says so.

    Args:
        settings: of this process.
        project: ``<id>.<unix time of creation>``.
        late: how many tasks are left.
    """
    number = project.partition(".")[0]
    if not settings.redis_url.get_secret_value() or not re.fullmatch("[0-9]{1,18}", number):
        log.warning(LATE_TASKS, late, number[:20], "there are no workers")
        return
    try:
        run, is_new = enqueue.start_run(
            RunStore(queue.connect(settings, retries=0)),
            int(number),
            Scope.MISSING,
            Trigger.LABEL_STUDIO,
        )
    except QueueError as error:
        log.error(LATE_TASKS, late, number, f"no run can be started: {error}")
        return
    which = "new run" if is_new else "run in progress"
    log.warning(LATE_TASKS, late, number, f"the {which} {run.id} predicts them")


def _submit(pool: ThreadPoolExecutor, work: Callable[..., None], *arguments: Any) -> None:
    pool.submit(work, *arguments).add_done_callback(_log_unexpected_error)


def _log_unexpected_error(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        log.error("unexpected error after an answer", exc_info=error)
