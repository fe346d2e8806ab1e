"""A token that a person has pasted, kept in their browser, encrypted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken
from werkzeug.wrappers import Response

COOKIE = "__Host-ls_clip"
"""Browsers take a cookie of this name from its own host only, encrypted or on this machine."""
SECONDS = 12 * 3600
"""How long a pasted token is good for."""


class TokenCookie:
    """Puts tokens into cookies and takes them out again.

    Args:
        secret: of this installation, or of this process.
    """

    def __init__(self, secret: bytes) -> None:
        key = hashlib.sha256(b"ls-clip token cookie:" + secret).digest()
        self._cipher = Fernet(base64.urlsafe_b64encode(key))

    def read(self, cookies: Mapping[str, str]) -> str | None:
        """The token in a request's cookies; None where there is none, or it has had its time."""
        try:
            return self._cipher.decrypt(cookies.get(COOKIE, ""), ttl=SECONDS).decode()
        except InvalidToken:
            return None

    def write(self, response: Response, token: str) -> None:
        """Have the browser keep a token."""
        response.set_cookie(
            COOKIE,
            self._cipher.encrypt(token.encode()).decode(),
            max_age=SECONDS,
            secure=True,
            httponly=True,
            samesite="Strict",
        )

    def clear(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")
