"""Reading what a request holds: its JSON body, and the labeling config in it."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import request

from backend.errors import LabelConfigError, RequestError
from backend.labels.config import LabelConfig, parse_config

log = logging.getLogger(__name__)


def json_body() -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        RequestError: 415 if the content type is not JSON, 400 if the body is not JSON, 422 if it
            is not an object.
    """
    if not request.is_json:
        raise RequestError(
            "The body must be JSON.",
            "Send the header Content-Type: application/json.",
            http_status=415,
            code="unsupported_media_type",
        )
    try:
        # Not request.get_json(): its errors have another shape, and it keeps the body in memory.
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


def text_field(body: dict[str, Any], name: str) -> str | None:
    """A field of a body that is a string or missing.

    Raises:
        RequestError: 422 if it is anything else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{name!r} must be a string.", http_status=422, code="bad_field")
    return value


def labeling_config(xml: str | None) -> LabelConfig:
    """The parsed config; one without controls if it cannot be read, which is logged.

    Label Studio shows no error of a backend, so a broken config must not break the connection.
    """
    try:
        return parse_config(xml or "<View/>")
    except LabelConfigError as error:
        log.error("%s", error)
        return LabelConfig((), None, (str(error),))
