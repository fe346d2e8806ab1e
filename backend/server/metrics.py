"""``GET /metrics`` for Prometheus, and what is logged and counted of each request."""

from __future__ import annotations

import logging
import time

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from redis.exceptions import RedisError

from backend import telemetry
from backend.errors import QueueError
from backend.server.state import state
from backend.settings import Settings
from jobs import queue

log = logging.getLogger(__name__)

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """All metrics in Prometheus' text format; no login."""
    of_the_queue = CollectorRegistry()
    of_the_queue.register(QueueDepth(state().settings))
    content = generate_latest() + generate_latest(of_the_queue)
    return Response(content, content_type=CONTENT_TYPE_LATEST)


class QueueDepth:
    """Prometheus collector of the queue, which asks Redis when it is scraped.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> list[GaugeMetricFamily]:
        """Waiting jobs and live workers, by queue; empty without a queue or while Redis is away."""
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


def observe_requests(app: Flask) -> None:
    """Log and count each request; never its body or headers, which hold secrets."""
    app.before_request(_start)
    app.after_request(_finish)


def _start() -> None:
    g.started = time.monotonic()


def _finish(response: Response) -> Response:
    seconds = time.monotonic() - g.get("started", time.monotonic())
    # Not the path: each unknown one would make a metric of its own.
    route = request.url_rule.rule if request.url_rule is not None else "unknown"
    telemetry.REQUESTS.labels(route, str(response.status_code)).inc()
    telemetry.REQUEST_SECONDS.labels(route).observe(seconds)
    level = logging.DEBUG if route in {"/health", "/metrics"} else logging.INFO
    log.log(level, "%s %s %d in %.3f s", request.method, route, response.status_code, seconds)
    return response
