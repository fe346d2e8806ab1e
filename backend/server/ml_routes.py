"""The routes of an ML backend, which Label Studio calls (https://labelstud.io/guide/ml_create)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, jsonify

from backend import telemetry
from backend.errors import ImageError, ImageReason, RequestError
from backend.inference.model_version import ModelVersion
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.server.auth import requires_login
from backend.server.requests import json_body, labeling_config, text_field
from backend.server.settings_comparison import differing
from backend.server.state import state

log = logging.getLogger(__name__)

LATE = frozenset({ImageReason.TIMEOUT, ImageReason.BUSY})
"""Failures of a task that could be answered later."""
LOGGED_TASKS = 20
"""Tasks of one call that are named in the log because they are left open."""

blueprint = Blueprint("ml", __name__)


@blueprint.get("/")
@blueprint.get("/health")
def health() -> Response:
    """``{"status": "UP"}``; no login, and no model is needed for it."""
    return jsonify({"status": "UP", "model_class": "ClipBackend"})


@blueprint.post("/setup")
@requires_login
def setup() -> Response:
    """The version that predicts for the project and labeling config in the body."""
    body = json_body()
    version = _version(_project(body), text_field(body, "schema")).name
    state().add_served(version)
    return jsonify({"model_version": version})


@blueprint.post("/predict")
@requires_login
def predict() -> Response:
    """One item per task, in order; a task that cannot be answered now has no ``result``."""
    body = json_body()
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError(
            "'tasks' must be a list of tasks.", http_status=422, code="missing_field"
        )
    tasks = [task if isinstance(task, dict) else {} for task in tasks]
    project = _project(body)
    version = _version(project, text_field(body, "label_config"))
    predictions = _predictions(version, tasks)
    state().add_served(version.name)
    _count(predictions)
    late = sum(1 for each in predictions if each.failure and each.failure.reason in LATE)
    if late:
        state().background.start_run_for_late_tasks(project, late)
    state().background.log_predictions(project, predictions)
    return jsonify(
        {
            "results": [prediction.as_item() for prediction in predictions],
            "model_version": version.name,
        }
    )


@blueprint.get("/versions")
@requires_login
def versions() -> Response:
    """The versions that were answered with since the start."""
    return jsonify({"versions": state().served_versions})


@blueprint.post("/compare")
@requires_login
def compare() -> Response:
    """Names of the settings that differ from the caller's, who sends salted hashes of its own."""
    body = json_body()
    salt, digests = body.get("salt"), body.get("digests")
    if not isinstance(salt, str) or not isinstance(digests, dict):
        raise RequestError(
            "'salt' and 'digests' must be given.", http_status=422, code="missing_field"
        )
    return jsonify({"differ": differing(state().settings, salt, digests)})


def _project(body: Mapping[str, Any]) -> str:
    """The project as Label Studio names it to backends: ``<id>.<unix time of creation>``."""
    return str(body.get("project") or "")


def _version(project: str, xml: str | None) -> ModelVersion:
    return state().runtime.versions.get(labeling_config(xml), project)


def _predictions(version: ModelVersion, tasks: Sequence[Mapping[str, Any]]) -> list[Prediction]:
    """One prediction per task, or only failures where too many calls predict already."""
    shared = state()
    if not shared.predicting.acquire(blocking=False):
        return [_busy(version.name) for _ in tasks]
    try:
        predictor = Predictor(version, shared.runtime.embedder)
        return predictor.predict(tasks, shared.settings.predict_seconds)
    finally:
        shared.predicting.release()


def _busy(model_version: str) -> Prediction:
    failure = ImageError(
        ImageReason.BUSY,
        "Too many predictions are being made at once.",
        "Open the task again later, or raise LS_CLIP_THREADS.",
    )
    return Prediction(None, model_version, None, None, (), failure)


def _count(predictions: Sequence[Prediction]) -> None:
    """Count the predictions by outcome, and log the tasks that are left open."""
    left_open = [prediction for prediction in predictions if prediction.result is None]
    for prediction in left_open:
        reason = prediction.failure.reason if prediction.failure is not None else "unknown"
        telemetry.PREDICTIONS.labels(reason).inc()
    telemetry.PREDICTIONS.labels("predicted").inc(len(predictions) - len(left_open))
    for prediction in left_open[:LOGGED_TASKS]:
        log.warning("task %s is left open: %s", prediction.task, prediction.failure)
    if len(left_open) > LOGGED_TASKS:
        log.warning("tasks that are left open, too: %d", len(left_open) - LOGGED_TASKS)
