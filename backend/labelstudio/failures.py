"""The errors of calls to Label Studio, and what can be done about each."""

from __future__ import annotations

import ssl

import requests
from label_studio_sdk.core.api_error import ApiError

from backend.errors import StudioError
from backend.labelstudio.tokens import TOKEN_FIX, StudioTokenError
from backend.messages.message import Message

URL_FIX = Message(
    "Set LABEL_STUDIO_URL to scheme, host and port as in http://localhost:8080, with the sub-path "
    "if Label Studio has one; the address of a page does not do."
)
BUSY = frozenset({429, 502, 503, 504})
"""Answers of a proxy before Label Studio, or of a Label Studio that is starting."""


class UnansweredError(StudioError):
    """No answer came, or only a gateway's: the call may have been carried out all the same."""


class StudioNotFoundError(StudioError):
    """Label Studio has no such object (any more), or hides it from the token's user."""

    http_status = 404


class BusyError(UnansweredError):
    """Label Studio is overloaded or restarting: the call is worth a retry."""


def listing_error(error: ApiError) -> StudioError:
    """The error for a failed listing of annotated tasks through the SDK."""
    status = error.status_code or 0
    if status == 404:
        return StudioNotFoundError(
            Message("Label Studio answers 404 to a listing of annotated tasks."),
            Message("Check the project's number, and whether it was deleted."),
            status=status,
        )
    kind = BusyError if status in BUSY or status >= 500 else StudioError
    return kind(
        Message("Label Studio answers {status} to a listing of annotated tasks.", status=status),
        TOKEN_FIX if status in {401, 403} else Message("Look into Label Studio's own log."),
        status=error.status_code,
    )


def explained(url: str, error: Exception) -> StudioError:
    """The error for a call without a usable answer.

    The reason may be a connection that fails, a refused token, or another program that answers.
    """
    if isinstance(error, ApiError) and (error.status_code or 0) in {400, 401, 403}:
        return StudioTokenError(
            Message(
                "Label Studio at {url} refuses the token ({status_code}).",
                url=url,
                status_code=error.status_code,
            ),
            TOKEN_FIX,
            status=error.status_code,
        )
    if isinstance(error, ApiError | ValueError) and not isinstance(
        error, requests.RequestException
    ):
        return StudioError(
            Message("What answers at {url} is not Label Studio's API.", url=url), URL_FIX
        )
    return unreachable(url, error)


def unreachable(url: str, error: Exception) -> StudioError:
    """The error for a request that Label Studio did not answer.

    Args:
        url: Label Studio's address.
        error: what requests or httpx raised.
    """
    tls = _tls_error(error)
    if tls is not None and tls.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return StudioError(
            Message("What answers at {url} speaks no TLS.", url=url),
            Message(
                "Set LABEL_STUDIO_URL to {address}.", address=url.replace("https://", "http://", 1)
            ),
        )
    if isinstance(tls, ssl.SSLCertVerificationError):
        return StudioError(
            Message("The certificate of {url} is not trusted here.", url=url),
            Message(
                "Set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to the file of the authority that "
                "signed it, or correct the host in LABEL_STUDIO_URL."
            ),
        )
    kind = UnansweredError if isinstance(error, requests.Timeout) else BusyError
    return kind(
        Message(
            "Label Studio at {url} does not answer ({kind}).",
            url=url,
            kind=type(error).__name__,
        ),
        Message("Start it, or correct LABEL_STUDIO_URL."),
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of the TLS handshake that requests, urllib3 or httpx wrapped, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause
