"""The routes of all pages, and what is the same for each of them."""

from __future__ import annotations

import logging

from flask import Blueprint, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from backend.errors import ClipError
from backend.server.errors import InternalError
from backend.server.pages import access, actions, overview_page, sign_in
from backend.server.pages.refusals import SignInError
from backend.server.pages.rendering import FOLDER, error_page

log = logging.getLogger(__name__)

blueprint = Blueprint(
    "pages", __name__, static_folder=FOLDER / "static", static_url_path="/pages/static"
)
blueprint.before_request(access.take_place)
blueprint.before_request(access.require_own_request)
blueprint.after_request(access.protect)
blueprint.teardown_request(access.leave_place)
for part in (sign_in, overview_page, actions):
    blueprint.register_blueprint(part.blueprint)


@blueprint.errorhandler(ClipError)
def show_error(error: ClipError) -> Response:
    """An error as a page, or as JSON for a script of ours."""
    log.log(logging.WARNING if error.http_status < 500 else logging.ERROR, "%s", error)
    if request.accept_mimetypes.best == "application/json":
        answer: Response = jsonify({"error": error.as_dict(access.access().settings.language)})
        answer.status_code = error.http_status
        return answer
    if isinstance(error, SignInError):
        return sign_in.sign_in_page(request.path if request.method == "GET" else "", 401)
    return error_page(error)


@blueprint.errorhandler(Exception)
def show_unexpected_error(error: Exception) -> Response | HTTPException:
    """A bug, as a page; what Flask refuses is answered as on all other routes."""
    if isinstance(error, HTTPException):
        return error
    log.exception("unexpected error in %s", request.path)
    return show_error(InternalError())
