"""Error answers: whatever goes wrong has the shape ``{"error": {"code", "message", "fix"}}``."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import BadRequest, HTTPException

from backend.errors import ClipError
from backend.messages.message import Message
from backend.server.state import state

log = logging.getLogger(__name__)


class InternalError(ClipError):
    """A bug."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__(
            Message("Something went wrong inside the backend."),
            Message("The backend's log has the details; please report them."),
        )


_HTTP_ERRORS = {
    400: ("bad_request", "The request cannot be read.", "Send a valid request."),
    404: ("not_found", "There is no such route.", "docs/http.md lists the routes."),
    405: ("method_not_allowed", "This route has another method.", "docs/http.md lists them."),
    413: (
        "too_large",
        "The request body is larger than LS_CLIP_MAX_BODY_BYTES.",
        "Send fewer tasks at once, or raise the setting.",
    ),
}
"""HTTP status -> code, message and fix, for errors that Flask itself raises."""


def register_handlers(app: Flask) -> None:
    """Answer every error of an application in the one shape."""
    app.register_error_handler(ClipError, _clip_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ParseException, _bad_framing)
    app.register_error_handler(NoMoreData, _bad_framing)
    app.register_error_handler(Exception, _unexpected_error)


def _clip_error(error: ClipError) -> tuple[Response, int]:
    log.log(logging.WARNING if error.http_status < 500 else logging.ERROR, "%s", error)
    response = jsonify({"error": error.as_dict(state().settings.language)})
    if error.http_status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="label-studio-clip"'
    return response, error.http_status


def _http_error(error: HTTPException) -> tuple[Response, int]:
    status = error.code or 500
    code, message, fix = _HTTP_ERRORS.get(status, ("http", error.name, ""))
    return jsonify({"error": {"code": code, "message": message, "fix": fix}}), status


def _bad_framing(error: Exception) -> tuple[Response, int]:
    """The body is chunked, and its chunks are broken."""
    log.warning("%s %s: %s", request.method, request.path, type(error).__name__)
    return _http_error(BadRequest())


def _unexpected_error(error: Exception) -> tuple[Response, int]:
    log.exception("unexpected error in %s", request.path)
    return jsonify({"error": InternalError().as_dict()}), 500
