"""``/projects/ID/...``: runs and trainings of a project, which the workers do."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, Response, jsonify, request

from backend.errors import RequestError
from backend.labelstudio.client import require_project
from backend.labelstudio.failures import UnansweredError
from backend.server.auth import requires_login
from backend.server.requests import json_body
from backend.server.state import state
from jobs import enqueue, queue
from jobs.run import ENDED, Scope, Trigger

FAILURES_SHOWN = 100

blueprint = Blueprint("runs", __name__, url_prefix="/projects/<int:project>")


@blueprint.post("/predict")
@requires_login
def start_run(project: int) -> tuple[Response, int]:
    """Ask the workers for a run, or join the one that is going on: 202 with the run."""
    body = json_body() if request.get_data() else {}
    scope, revalidate = body.get("only", Scope.MISSING), body.get("revalidate", False)
    if scope not in [*Scope]:
        raise RequestError(
            "'only' has an unknown value.",
            f"Give one of: {', '.join(Scope)}.",
            http_status=422,
            code="bad_field",
        )
    if not isinstance(revalidate, bool):
        raise RequestError("'revalidate' must be true or false.", http_status=422, code="bad_field")
    if revalidate and scope != Scope.ALL:
        raise RequestError(
            "'revalidate' is about all tasks.",
            'Send {"only": "all", "revalidate": true}.',
            http_status=422,
            code="bad_field",
        )
    _require_project(project)
    run, is_new = enqueue.start_run(
        state().runs, project, Scope(scope), Trigger.HTTP, revalidate=revalidate
    )
    enqueue.require_revalidation(run, revalidate)
    return jsonify({**run.as_dict(), "joined": not is_new}), 202


@blueprint.get("/runs")
@requires_login
def list_runs(project: int) -> Response:
    """``{"runs": [...]}``, newest first."""
    with queue.explained():
        return jsonify({"runs": [run.as_dict() for run in state().runs.of_project(project)]})


@blueprint.get("/runs/<run_id>")
@requires_login
def show_run(project: int, run_id: str) -> Response:
    """The run, with ``failures``: task id -> error, for the first `FAILURES_SHOWN` tasks."""
    runs = state().runs
    with queue.explained():
        run = runs.require(project, run_id)
        failures = runs.failures(run.id)
    shown = {str(task): failures[task] for task in list(failures)[:FAILURES_SHOWN]}
    return jsonify({**run.as_dict(), "failures": shown})


@blueprint.delete("/runs/<run_id>")
@requires_login
def cancel_run(project: int, run_id: str) -> Response:
    """Cancel the run unless it has ended; the run as it is afterwards."""
    runs = state().runs
    with queue.explained():
        run = runs.require(project, run_id)
    if run.state not in ENDED:
        enqueue.cancel(runs, run)
    with queue.explained():
        return jsonify(runs.require(project, run_id).as_dict())


@blueprint.post("/train")
@requires_login
def start_training(project: int) -> tuple[Response, int]:
    """Ask the workers for a training: 202 with the state of the project's training."""
    _require_project(project)
    enqueue.request_training(state().trainings, project)
    with queue.explained():
        return jsonify(state().trainings.get(project).as_dict()), 202


@blueprint.get("/training")
@requires_login
def show_training(project: int) -> Response:
    """The state of the project's training."""
    with queue.explained():
        return jsonify(state().trainings.get(project).as_dict())


def _require_project(project: int) -> None:
    """Refuse a project that Label Studio does not have; while it is away, any will do."""
    with suppress(UnansweredError):
        require_project(state().settings, project)
