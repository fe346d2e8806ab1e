"""HTTP: what Label Studio calls (https://labelstud.io/guide/ml_create), and /metrics.

Label Studio shows no error of a backend to anyone, so each one is logged and counted here, and
answered in one shape: ``{"error": {"code", "message", "fix"}}``.
"""

from __future__ import annotations

import hmac
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from werkzeug.exceptions import HTTPException

from backend import telemetry
from backend.errors import ClipError, ImageError, ImageReason, RequestError
from backend.inference.prediction import Prediction
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.runtime import Runtime
from backend.server.background import Background
from backend.server.ml_backend import ClipBackend
from backend.server.run_routes import (
    QueueDepth,
    add_run_routes,
    add_training_routes,
    start_for_the_rest,
)
from backend.server.settings_comparison import differing
from backend.settings import Settings
from jobs.events import RECORDED_ACTIONS, START_TRAINING, project_number

log = logging.getLogger(__name__)

LATE = frozenset({ImageReason.TIMEOUT, ImageReason.BUSY})
"""Failures of a task that time would mend."""
VERSIONS_SHOWN = 100
LOGGED_TASKS = 20
"""Tasks of one call that are named in the log because they are left open."""
SPARE_THREADS = 4
"""Request threads that /predict never takes, so that /health always has one."""


def create_app(runtime: Runtime) -> Flask:
    """The WSGI application of one process."""
    settings = runtime.settings
    app = Flask("label-studio-clip")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    predicting = threading.BoundedSemaphore(settings.threads - SPARE_THREADS)
    served: dict[str, None] = {}
    background = Background(runtime)

    def backend(body: Mapping[str, Any], config_field: str) -> ClipBackend:
        config = body.get(config_field)
        if config is not None and not isinstance(config, str):
            raise RequestError(
                f"{config_field!r} must be a string.", http_status=422, code="bad_field"
            )
        project = body.get("project") or ""
        return ClipBackend(str(project), config, runtime=runtime)

    def remember(version: str) -> None:
        served[version] = None
        while len(served) > VERSIONS_SHOWN:
            del served[next(iter(served))]

    @app.get("/")
    @app.get("/health")
    def health() -> Response:
        return jsonify({"status": "UP", "model_class": "ClipBackend"})

    @app.post("/setup")
    def setup() -> Response:
        _require_basic_auth(settings)
        version = backend(_body(), "schema").version
        remember(version)
        return jsonify({"model_version": version})

    @app.post("/predict")
    def predict() -> Response:
        _require_basic_auth(settings)
        body = _body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise RequestError(
                "'tasks' must be a list of tasks.", http_status=422, code="missing_field"
            )
        tasks = [task if isinstance(task, dict) else {} for task in tasks]
        model = backend(body, "label_config")
        if predicting.acquire(blocking=False):
            try:
                predictions = model.predict_tasks(tasks, settings.predict_seconds)
            finally:
                predicting.release()
        else:
            predictions = [_busy(model.version) for _ in tasks]
        version = predictions[0].model_version if predictions else model.version
        remember(version)
        _count(predictions)
        late = sum(1 for one in predictions if one.failure and one.failure.reason in LATE)
        if late and len(tasks) > 1:
            start_for_the_rest(settings, model.project, late)
        background.remember(model.project, predictions)
        return jsonify(
            {"results": [one.as_item() for one in predictions], "model_version": version}
        )

    @app.get("/versions")
    def versions() -> Response:
        _require_basic_auth(settings)
        return jsonify({"versions": list(served)})

    @app.post("/compare")
    def compare() -> Response:
        _require_basic_auth(settings)
        body = _body()
        salt, theirs = body.get("salt"), body.get("digests")
        if not isinstance(salt, str) or not isinstance(theirs, dict):
            raise RequestError(
                "'salt' and 'digests' must be given.", http_status=422, code="missing_field"
            )
        return jsonify({"differ": differing(settings, salt, theirs)})

    _add_webhook_route(app, settings, background)
    _show_metrics(app, settings)
    add_run_routes(app, settings, lambda: _require_basic_auth(settings), _body)
    add_training_routes(app, settings, lambda: _require_basic_auth(settings))
    _observe(app)
    _explain_errors(app)
    return app


def _add_webhook_route(app: Flask, settings: Settings, background: Background) -> None:
    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        if not _has_basic_auth(settings):
            # Nothing of an unknown caller's body is read.
            _require_secret(settings)
        body = _body()
        action = body.get("action")
        if action == START_TRAINING:
            _require_basic_auth(settings)
        else:
            _require_secret(settings)
        if not isinstance(action, str):
            raise RequestError("'action' must be a string.", http_status=422, code="missing_field")
        known = action in EVENT_ACTIONS or action == START_TRAINING
        telemetry.WEBHOOKS.labels(action if known else "unknown").inc()
        project = project_number(body, request.args.get("project"))
        log.info(
            "webhook %s for project %s: %s",
            action if known else "of an unknown action",
            "(not named)" if project is None else project,
            "noted" if known else "ignored",
        )
        if action == "TASKS_DELETED":
            background.forget(body)
        elif action in RECORDED_ACTIONS and project is not None:
            background.record_event(body, project)
        return jsonify({"status": "noted" if known else "ignored"}), 200


def _show_metrics(app: Flask, settings: Settings) -> None:
    of_the_queue = CollectorRegistry()
    of_the_queue.register(QueueDepth(settings))

    @app.get("/metrics")
    def metrics() -> Response:
        content = generate_latest() + generate_latest(of_the_queue)
        return Response(content, content_type=CONTENT_TYPE_LATEST)


def _observe(app: Flask) -> None:
    """Log and count each request; never its body or headers, which hold secrets."""

    @app.before_request
    def start() -> None:
        g.started = time.monotonic()

    @app.after_request
    def finish(response: Response) -> Response:
        seconds = time.monotonic() - g.get("started", time.monotonic())
        route = request.url_rule.rule if request.url_rule is not None else "unknown"
        telemetry.REQUESTS.labels(route, str(response.status_code)).inc()
        telemetry.REQUEST_SECONDS.labels(route).observe(seconds)
        level = logging.DEBUG if route in {"/health", "/metrics"} else logging.INFO
        log.log(level, "%s %s %d in %.3f s", request.method, route, response.status_code, seconds)
        return response


def _explain_errors(app: Flask) -> None:
    """One error shape for everything that can go wrong."""

    @app.errorhandler(ClipError)
    def explained(error: ClipError) -> tuple[Response, int]:
        log.log(logging.WARNING if error.http_status < 500 else logging.ERROR, "%s", error)
        response = jsonify({"error": error.as_dict()})
        if error.http_status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="label-studio-clip"'
        return response, error.http_status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        code, message, fix = _HTTP_ERRORS.get(status, ("http", error.name, ""))
        return jsonify({"error": {"code": code, "message": message, "fix": fix}}), status

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("unexpected error in %s", request.path)
        message = "Something went wrong inside the backend."
        fix = "The backend's log has the details; please report them."
        return jsonify({"error": {"code": "internal", "message": message, "fix": fix}}), 500


_HTTP_ERRORS = {
    400: ("bad_request", "The request cannot be read.", "Send valid JSON."),
    404: ("not_found", "There is no such route.", "docs/http.md lists the routes."),
    405: ("method_not_allowed", "This route has another method.", "docs/http.md lists them."),
    413: (
        "too_large",
        "The request body is larger than LS_CLIP_MAX_BODY_BYTES.",
        "Send fewer tasks at once, or raise the setting.",
    ),
}


def _body() -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        RequestError: 415 not JSON by its content type, 400 not JSON, 422 not an object.
    """
    if not request.is_json:
        raise RequestError(
            "The body must be JSON.",
            "Send the header Content-Type: application/json.",
            http_status=415,
            code="unsupported_media_type",
        )
    try:
        body = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise RequestError(
            "The body is not valid JSON.", "Send a JSON object.", http_status=400, code="bad_json"
        ) from error
    if not isinstance(body, dict):
        raise RequestError(
            "The body must be a JSON object.", "Send an object.", http_status=422, code="bad_body"
        )
    return body


def _has_basic_auth(settings: Settings) -> bool:
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if not user and not password:
        return True
    given = request.authorization
    sent = (given.username or "", given.password or "") if given is not None else ("", "")
    # Both are compared, always, so that the time tells nothing.
    return _equal(sent[0], user) & _equal(sent[1], password)


def _require_basic_auth(settings: Settings) -> None:
    if not _has_basic_auth(settings):
        raise RequestError(
            "Wrong or missing basic authentication.",
            "Run ls-clip connect PROJECT, which tells Label Studio the credentials.",
            http_status=401,
            code="unauthorized",
        )


def _require_secret(settings: Settings) -> None:
    secret = settings.webhook_secret.get_secret_value()
    if not secret and not settings.basic_auth_user:
        return
    if not secret or not _equal(request.headers.get(SECRET_HEADER, ""), secret):
        raise RequestError(
            f"Wrong or missing {SECRET_HEADER}.",
            "Run ls-clip connect PROJECT, which makes the webhook with the secret.",
            http_status=401,
            code="unauthorized",
        )


def _equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode(), expected.encode())


def _busy(version: str) -> Prediction:
    failure = ImageError(
        ImageReason.BUSY,
        "Too many predictions are being made at once.",
        "Open the task again later, or raise LS_CLIP_THREADS.",
    )
    return Prediction(None, version, None, None, (), failure)


def _count(predictions: list[Prediction]) -> None:
    left_open = [one for one in predictions if one.result is None]
    for one in left_open:
        reason = one.failure.reason if one.failure is not None else "unknown"
        telemetry.PREDICTIONS.labels(reason).inc()
    telemetry.PREDICTIONS.labels("predicted").inc(len(predictions) - len(left_open))
    for one in left_open[:LOGGED_TASKS]:
        log.warning("task %s is left open: %s", one.task, one.failure)
    if len(left_open) > LOGGED_TASKS:
        log.warning("%d more tasks are left open", len(left_open) - LOGGED_TASKS)
