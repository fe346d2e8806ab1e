"""Who may call a route: basic authentication, and the secret of webhooks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flask import request

from backend.errors import RequestError
from backend.labelstudio.events import SECRET_HEADER
from backend.server.credentials import login_matches, webhook_secret_matches
from backend.server.state import state

P = ParamSpec("P")
R = TypeVar("R")


def requires_login(view: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a view: it is called only with the right basic authentication."""

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        require_login()
        return view(*args, **kwargs)

    return guarded


def require_login() -> None:
    """Refuse a request without the right basic authentication.

    Raises:
        RequestError: 401.
    """
    if not has_login():
        raise RequestError(
            "Wrong or missing basic authentication.",
            "Run ls-clip connect PROJECT, which tells Label Studio the credentials.",
            http_status=401,
            code="unauthorized",
        )


def has_login() -> bool:
    """Whether the request has the right basic authentication, or none is asked for."""
    return login_matches(state().settings, request.headers.get("Authorization", ""))


def require_webhook_secret() -> None:
    """Refuse a request without the webhook secret.

    Raises:
        RequestError: 401.
    """
    if not webhook_secret_matches(state().settings, request.headers.get(SECRET_HEADER, "")):
        raise RequestError(
            f"Wrong or missing {SECRET_HEADER}.",
            "Run ls-clip connect PROJECT, which makes the webhook with the secret.",
            http_status=401,
            code="unauthorized",
        )
