"""The page of a project, and how far its runs and trainings are."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from backend.messages.catalogue import localized
from backend.projects.overview import activity, overview
from backend.projects.state_words import OUTCOMES, RUN_STATES, TRAINING_STATES
from backend.server.pages.access import (
    access,
    csrf_token,
    is_admin,
    member_of,
    project_now,
    visitor,
)
from backend.server.pages.rendering import page
from backend.server.state import state
from jobs.run import ENDED, Run

blueprint = Blueprint("overview", __name__, url_prefix="/projects/<int:project>")


@blueprint.get("/")
def show(project: int) -> Response:
    """How a project stands."""
    known = project_now(project)
    has_queue = bool(access().settings.redis_url.get_secret_value())
    connection = state().trainings.connection if has_queue else None
    return page(
        "overview.html",
        project=project,
        now=overview(state().runtime.store, known, connection),
        visitor=visitor(),
        is_admin=is_admin(known),
        csrf=csrf_token(),
        run_states=RUN_STATES,
        training_states=TRAINING_STATES,
        outcomes=OUTCOMES,
        ended=ENDED,
        studio=access().settings.studio_address,
    )


@blueprint.get("/progress")
def progress(project: int) -> Response:
    """How far they are, ``{"runs": [...], "goes_on": ..., "stamp": ...}``; asked for often."""
    member_of(project)
    now = activity(state().trainings.connection, project)
    return jsonify(
        {
            "runs": [_progress(run) for run in now.runs],
            "goes_on": now.goes_on,
            "stamp": now.stamp,
        }
    )


def _progress(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": localized(RUN_STATES[run.state], access().settings.language),
        "done": run.embedded + run.cached,
        "tasks": run.listed,
        "imported": run.imported,
        "failed": run.failed,
    }
