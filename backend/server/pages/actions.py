"""What an admin starts from a project's page: predict, train, cancel, roll back."""

from __future__ import annotations

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response

from backend.labelstudio.projects import project_key
from backend.projects.rollback import is_in_use, previous_head, start_rollback
from backend.server.pages.access import require_admin
from backend.server.state import state
from backend.storage.head_registry import HeadRegistry
from jobs import enqueue, queue
from jobs.run import ENDED, Scope, Trigger

blueprint = Blueprint("actions", __name__, url_prefix="/projects/<int:project>/actions")


@blueprint.post("/predict")
def predict(project: int) -> Response:
    """Ask the workers for suggestions for the tasks that have none of the current version."""
    require_admin(project)
    enqueue.start_run(state().runs, project, Scope.MISSING, Trigger.PAGE)
    return _back(project)


@blueprint.post("/train")
def train(project: int) -> Response:
    """Ask the workers to train now."""
    require_admin(project)
    enqueue.request_training(state().trainings, project)
    return _back(project)


@blueprint.post("/cancel")
def cancel(project: int) -> Response:
    """Cancel the run that the form names, unless it has ended."""
    require_admin(project)
    runs = state().runs
    with queue.explained():
        run = runs.require(project, request.form.get("run", ""))
    if run.state not in ENDED:
        enqueue.cancel(runs, run)
    return _back(project)


@blueprint.post("/rollback")
def rollback(project: int) -> Response:
    """Return to the head that the form names, or to the one before."""
    key = project_key(require_admin(project))
    registry = HeadRegistry(state().runtime.store)
    head = request.form.get("head") or previous_head(registry, key, project)
    if not is_in_use(registry, key, head):
        start_rollback(state().trainings, registry, key, project, head, trigger=Trigger.PAGE)
    return _back(project)


def _back(project: int) -> Response:
    return redirect(url_for("pages.overview.show", project=project), 303)
