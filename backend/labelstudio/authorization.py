"""Whose rights a call to Label Studio has: those of a token's user, or of a browser's session.

Both kinds of token work: the SDK exchanges a personal access token for access tokens that live five
minutes, and a legacy token is sent as it is. A session is Label Studio's own cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import httpx
from label_studio_sdk.core.api_error import ApiError

from backend.labelstudio.failures import explained
from backend.labelstudio.tokens import TOKEN_FIX, StudioTokenError, ends_soon, refuse_access_token
from backend.messages.message import Message

SESSION_COOKIE = "sessionid"
"""Label Studio's cookie; its value is signed, and ends after five days without use."""
SECONDS = 30.0
"""Without a byte of an answer of the SDK's."""


class Authorization(Protocol):
    """Of all calls of a `backend.labelstudio.transport.Transport`."""

    def headers(self) -> dict[str, str]:
        """The headers that say who calls. They must be sent to Label Studio only.

        Raises:
            StudioError: the token cannot be exchanged for an access token.
        """


class TokenAuthorization:
    """The rights of a token's user.

    Args:
        url: Label Studio's address.
        key: a personal access token, or a legacy one.

    Attributes:
        sdk: the SDK's client with this token.

    Raises:
        StudioTokenError: it is empty, has expired, or is not a token.
    """

    def __init__(self, url: str, key: str) -> None:
        key = key.strip()
        if not key:
            raise StudioTokenError(Message("No Label Studio token is set."), TOKEN_FIX)
        if not (key.isascii() and key.isprintable()):
            raise StudioTokenError(
                Message("The Label Studio token has characters that no token has."), TOKEN_FIX
            )
        refuse_access_token(key)
        # Costs four seconds of CPU, which commands without a Label Studio need not wait for.
        from label_studio_sdk import LabelStudio

        self._url = url
        try:
            self.sdk = LabelStudio(
                base_url=url,
                api_key=key,
                httpx_client=httpx.Client(
                    timeout=SECONDS,
                    # Neither a redirect nor a proxy may get to see the token.
                    follow_redirects=False,
                    trust_env=False,
                    # An exchange of tokens is not repeated, see `Transport.call`.
                    limits=httpx.Limits(max_keepalive_connections=0),
                ),
            )
        except ApiError as error:
            raise StudioTokenError(
                Message("The Label Studio token has expired."), TOKEN_FIX
            ) from error

    def headers(self) -> dict[str, str]:
        """See `Authorization.headers`."""
        tokens = self.sdk._client_wrapper._tokens_client
        try:
            if ends_soon(tokens._access_token_expiration):
                # The SDK would send it until its last second, and it may be read later.
                with tokens._token_refresh_lock:
                    if ends_soon(tokens._access_token_expiration):
                        tokens._set_access_token(tokens.refresh().access)
            sent: Mapping[str, str] = self.sdk._client_wrapper.get_headers()
        except (ApiError, httpx.HTTPError, ValueError) as error:
            # ValueError: the answer to the token exchange is not the expected JSON.
            raise explained(self._url, error) from error
        return {"Authorization": sent["Authorization"]}


class SessionAuthorization:
    """The rights of whoever is signed in to Label Studio in a browser.

    Args:
        session: the value of the browser's `SESSION_COOKIE`.
    """

    def __init__(self, session: str) -> None:
        self._session = session

    def headers(self) -> dict[str, str]:
        """See `Authorization.headers`."""
        return {"Cookie": f"{SESSION_COOKIE}={self._session}"}
