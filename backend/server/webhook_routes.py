"""``POST /webhook``: Label Studio's events (https://labelstud.io/guide/webhook_reference).

Label Studio waits for the answer inside the annotator's Submit, so an event is answered at once
and acted upon afterwards (`Background`).
"""

from __future__ import annotations

import logging

from flask import Blueprint, Response, jsonify, request

from backend import telemetry
from backend.errors import RequestError
from backend.labelstudio.events import EVENT_ACTIONS, Action
from backend.server.auth import has_login, require_login, require_webhook_secret
from backend.server.requests import json_body
from backend.server.state import state
from jobs.events import RECORDED_ACTIONS, project_number

log = logging.getLogger(__name__)

blueprint = Blueprint("webhook", __name__)


@blueprint.post("/webhook")
def webhook() -> Response:
    """Note an event: ``{"status": "noted"}``, or ``"ignored"`` for an unknown action.

    Events need the webhook secret. START_TRAINING comes from Label Studio's ML connector, which
    sends basic authentication and no header of ours; where it cannot be recorded the answer is 503.
    """
    if not has_login():
        # Nothing of an unknown caller's body is read.
        require_webhook_secret()
    body = json_body()
    action = body.get("action")
    if action == Action.START_TRAINING:
        require_login()
    else:
        require_webhook_secret()
    if not isinstance(action, str):
        raise RequestError("'action' must be a string.", http_status=422, code="missing_field")
    known = action in EVENT_ACTIONS or action == Action.START_TRAINING
    telemetry.WEBHOOKS.labels(action if known else "unknown").inc()
    project = project_number(body, request.args.get("project"))
    log.info(
        "webhook %s for project %s: %s",
        action if known else "of an unknown action",
        "(not named)" if project is None else project,
        "noted" if known else "ignored",
    )
    if action == Action.TASKS_DELETED:
        state().background.purge_tasks(body)
    elif action == Action.START_TRAINING and project is not None:
        # A person has pressed a button, and reconciling would not find out.
        state().background.record_request(body, project)
    elif action in RECORDED_ACTIONS and project is not None:
        state().background.record_event(body, project)
    return jsonify({"status": "noted" if known else "ignored"})
