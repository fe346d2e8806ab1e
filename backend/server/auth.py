"""Who may call a route: basic authentication, and the secret of webhooks.

Label Studio sends basic authentication with the calls to an ML backend, and only headers of our
choice with webhooks. All comparisons take the same time whatever is sent.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flask import request

from backend.errors import RequestError
from backend.labelstudio.events import SECRET_HEADER
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
    settings = state().settings
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    if not user and not password:
        return True
    given = request.authorization
    sent = (given.username or "", given.password or "") if given is not None else ("", "")
    # "&" compares both, always, so that the time tells nothing.
    return _equal(sent[0], user) & _equal(sent[1], password)


def require_webhook_secret() -> None:
    """Refuse a request without the webhook secret.

    Without a secret but with a login configured every webhook is refused; without either, none.

    Raises:
        RequestError: 401.
    """
    settings = state().settings
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
