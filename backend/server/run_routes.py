"""HTTP: runs and trainings of a project, as docs/http.md lists them; and the queue in /metrics."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from flask import Flask, Response, jsonify, request
from prometheus_client.core import GaugeMetricFamily
from redis.exceptions import RedisError

from backend.errors import QueueError, RequestError
from backend.labelstudio.client import require_project
from backend.labelstudio.transport import UnansweredError
from backend.settings import Settings
from jobs import enqueue, queue
from jobs.run import ENDED, ONLY, Run
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

FAILURES_SHOWN = 100


def add_run_routes(
    app: Flask,
    settings: Settings,
    require_login: Callable[[], None],
    body: Callable[[], dict[str, Any]],
) -> None:
    """Register the routes.

    Args:
        app: the application.
        settings: of this process.
        require_login: raises RequestError unless the caller has logged in.
        body: the request's JSON object.
    """

    @cache
    def runs() -> RunStore:
        return RunStore(queue.connect(settings))

    @app.post("/projects/<int:project>/predict")
    def ask(project: int) -> tuple[Response, int]:
        require_login()
        only = (body() if request.get_data() else {}).get("only", "missing")
        if only not in ONLY:
            raise RequestError(
                "'only' has an unknown value.",
                f"Give one of: {', '.join(ONLY)}.",
                http_status=422,
                code="bad_field",
            )
        # A Label Studio that is away is no reason: the run waits.
        with suppress(UnansweredError):
            require_project(settings, project)
        run, fresh = enqueue.start(runs(), project, only, "http")
        return jsonify({**run.as_dict(), "joined": not fresh}), 202

    @app.get("/projects/<int:project>/runs")
    def listed(project: int) -> Response:
        require_login()
        with queue.explained():
            return jsonify({"runs": [run.as_dict() for run in runs().of_project(project)]})

    @app.get("/projects/<int:project>/runs/<run_id>")
    def shown(project: int, run_id: str) -> Response:
        require_login()
        with queue.explained():
            run = runs().require(project, run_id)
            return jsonify({**run.as_dict(), "failures": _failures(runs(), run)})

    @app.delete("/projects/<int:project>/runs/<run_id>")
    def cancelled(project: int, run_id: str) -> Response:
        require_login()
        with queue.explained():
            run = runs().require(project, run_id)
        if run.state not in ENDED:
            enqueue.cancel(runs(), run)
        with queue.explained():
            return jsonify(runs().require(project, run_id).as_dict())


def add_training_routes(app: Flask, settings: Settings, require_login: Callable[[], None]) -> None:
    """Register the routes around trainings; arguments as for `add_run_routes`."""

    @cache
    def trainings() -> TrainingStore:
        return TrainingStore(queue.connect(settings))

    @app.post("/projects/<int:project>/train")
    def train(project: int) -> tuple[Response, int]:
        require_login()
        with suppress(UnansweredError):
            require_project(settings, project)
        enqueue.ask_for_training(trainings(), project)
        with queue.explained():
            return jsonify(trainings().get(project).as_dict()), 202

    @app.get("/projects/<int:project>/training")
    def training(project: int) -> Response:
        require_login()
        with queue.explained():
            return jsonify(trainings().get(project).as_dict())


def _failures(runs: RunStore, run: Run) -> dict[str, dict[str, str]]:
    found = runs.failures(run.id)
    return {str(task): found[task] for task in list(found)[:FAILURES_SHOWN]}


def start_for_the_rest(settings: Settings, project: str, late: int) -> None:
    """Let the workers do what a call of many tasks had no time for; told in the log.

    Args:
        settings: of this process.
        project: ``<id>.<unix time of creation>``.
        late: how many tasks are left.
    """
    number = project.partition(".")[0]
    if not settings.redis_url.get_secret_value() or not re.fullmatch("[0-9]{1,18}", number):
        log.warning("%d tasks of project %r had no time; there are no workers", late, number[:20])
        return
    try:
        run, fresh = enqueue.start(
            RunStore(queue.connect(settings, retries=0)), int(number), "missing", "label-studio"
        )
    except QueueError as error:
        log.error("%d tasks of project %s are left: %s", late, number, error)
        return
    verb = "does" if fresh else "was going and does"
    log.warning(
        "%d tasks had no time: run %s %s the rest of project %s", late, run.id, verb, number
    )


class QueueDepth:
    """What /metrics shows of the queue: a collector, which asks when it is scraped.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> list[GaugeMetricFamily]:
        """Jobs that wait and live workers, by queue; nothing where there is no queue."""
        waiting = GaugeMetricFamily("ls_clip_queue_jobs", "Jobs that wait.", labels=["queue"])
        workers = GaugeMetricFamily("ls_clip_workers", "Live workers.", labels=["queue"])
        if not self._settings.redis_url.get_secret_value():
            return []
        try:
            connection = queue.connect(self._settings, retries=0)
            for name in queue.QUEUES:
                waiting.add_metric([name], queue.depth(connection, name))
                workers.add_metric([name], queue.workers(connection, name))
        except (RedisError, QueueError) as error:
            log.warning("the queue cannot be measured: %s", error)
            return []
        return [waiting, workers]
