"""HTTP calls of Label Studio's API: tokens, retries, and errors that name the fix.

Both kinds of token work: the SDK exchanges a personal access token for access tokens that live five
minutes, and a legacy token is sent as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx
import requests
from label_studio_sdk.core.api_error import ApiError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from backend.errors import StudioError
from backend.labelstudio.refusals import Refusal, read_refusal
from backend.labelstudio.tokens import TOKEN_FIX, StudioTokenError, ends_soon, refuse_access_token
from backend.messages.message import Message
from backend.settings import Settings

URL_FIX = Message(
    "Set LABEL_STUDIO_URL to scheme, host and port as in http://localhost:8080, with the sub-path "
    "if Label Studio has one; the address of a page does not do."
)
SECONDS = 30.0
IMPORT_SECONDS = 600.0
_BUSY = frozenset({429, 502, 503, 504})
"""Answers of a proxy before Label Studio, or of a Label Studio that is starting."""


class UnansweredError(StudioError):
    """No answer came, or only a gateway's: the call may have been carried out all the same."""


class StudioNotFoundError(StudioError):
    """Label Studio has no such object (any more), or hides it from the token's user."""

    http_status = 404


class _BusyError(UnansweredError):
    """Label Studio is overloaded or restarting: the call is worth a retry."""


class Transport:
    """Makes the calls to one Label Studio.

    Args:
        settings: label_studio_url and label_studio_api_key are read.

    Attributes:
        url: Label Studio's address.
        sdk: the SDK's client, for calls that it has.

    Raises:
        StudioTokenError: no token is set, it has expired, or it is not a token.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.label_studio_url
        key = settings.label_studio_api_key.get_secret_value().strip()
        if not key:
            raise StudioTokenError(Message("No Label Studio token is set."), TOKEN_FIX)
        if not (key.isascii() and key.isprintable()):
            raise StudioTokenError(
                Message("The Label Studio token has characters that no token has."), TOKEN_FIX
            )
        refuse_access_token(key)
        # Costs four seconds of CPU, which commands without a Label Studio need not wait for.
        from label_studio_sdk import LabelStudio

        try:
            self.sdk = LabelStudio(
                base_url=self.url,
                api_key=key,
                httpx_client=httpx.Client(
                    timeout=SECONDS,
                    # Neither a redirect nor a proxy may get to see the token.
                    follow_redirects=False,
                    trust_env=False,
                    # An exchange of tokens is not repeated, see `call`.
                    limits=httpx.Limits(max_keepalive_connections=0),
                ),
            )
        except ApiError as error:
            raise StudioTokenError(
                Message("The Label Studio token has expired."), TOKEN_FIX
            ) from error
        self._session = _session()

    def headers(self) -> dict[str, str]:
        """The Authorization header. It must be sent to Label Studio only.

        Raises:
            StudioError: the token cannot be exchanged for an access token.
        """
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
            raise self.explained(error) from error
        return {"Authorization": sent["Authorization"]}

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        files: Any = None,
        timeout: float = SECONDS,
        attempts: int = 4,
    ) -> Any:
        """Make one API call, with retries and back-off while Label Studio is busy or restarting.

        Args:
            method: HTTP method.
            path: below Label Studio's address, with a leading slash.
            params, json, files: as for requests.
            timeout: seconds without a byte of the answer.
            attempts: how often the call is made at most; a call that is made once has a connection
                of its own.

        Returns:
            The parsed JSON; None for an empty answer.

        Raises:
            UnansweredError: no answer came; a POST may have been carried out.
            StudioNotFoundError: Label Studio answered 404.
            StudioError: Label Studio refuses, or something else answers at its address.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(attempts),
            wait=wait_exponential(multiplier=0.5, max=10),
            reraise=True,
        )
        content = {"params": params, "json": json, "files": files}
        if attempts > 1:
            return retrying(self._once, self._session, method, path, timeout, content)
        # Some servers, uWSGI for example, close a connection after an answer without saying so.
        with _session() as session:
            return self._once(session, method, path, timeout, content)

    def content(self, path: str) -> bytes | None:
        """The content of a file that Label Studio serves; None if it does not.

        Args:
            path: below Label Studio's address, with a leading slash.

        Raises:
            StudioError: no answer came.
        """
        try:
            answer = self._session.get(
                self.url + path,
                headers=self.headers(),
                timeout=(5.0, SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise self.explained(error) from error
        return answer.content if answer.status_code == 200 else None

    def refusal(self, path: str, body: Mapping[str, Any]) -> Refusal | None:
        """Why Label Studio refuses a POST; None if it accepts it, or for a reason not known."""
        try:
            self.call("POST", path, json=body, attempts=1)
        except StudioError as error:
            return read_refusal(error.reply)
        return None

    def _once(
        self,
        session: requests.Session,
        method: str,
        path: str,
        timeout: float,
        content: Mapping[str, Any],
    ) -> Any:
        try:
            answer = session.request(
                method,
                self.url + path,
                headers=self.headers(),
                timeout=(5.0, timeout),
                allow_redirects=False,
                **content,
            )
        except requests.RequestException as error:
            raise self.explained(error) from error
        status = answer.status_code
        if status in _BUSY:
            raise _BusyError(
                Message(
                    "Label Studio answers {status} to {method} {path}.",
                    status=status,
                    method=method,
                    path=path,
                ),
                Message("Wait until it is up and less busy."),
                status=status,
            )
        if status >= 500:
            # A POST that failed inside Label Studio may have been carried out, so no retry.
            kind = UnansweredError if method == "POST" else _BusyError
            reply = _reply(answer)
            raise kind(
                Message(
                    "Label Studio answers {status} to {method} {path}: {reply}",
                    status=status,
                    method=method,
                    path=path,
                    reply=reply,
                ),
                Message("Look into Label Studio's own log."),
                status=status,
                reply=reply,
            )
        if status == 404 and "json" not in answer.headers.get("Content-Type", ""):
            raise StudioError(
                Message("What answers at {url} is not Label Studio's API.", url=self.url),
                URL_FIX,
                status=status,
            )
        if not answer.ok or answer.is_redirect:
            refused = StudioNotFoundError if status == 404 else StudioError
            reply = _reply(answer)
            raise refused(
                Message(
                    "Label Studio answers {status} to {method} {path}: {reply}",
                    status=status,
                    method=method,
                    path=path,
                    reply=reply,
                ),
                _fix(answer, reply),
                status=status,
                reply=reply,
            )
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise StudioError(
                Message(
                    "{url} answers {method} {path} with something that is not JSON.",
                    url=self.url,
                    method=method,
                    path=path,
                ),
                URL_FIX,
                status=status,
            ) from error

    def refused(self, error: ApiError) -> StudioError:
        """The error for a failed listing of annotated tasks through the SDK."""
        status = error.status_code or 0
        if status == 404:
            return StudioNotFoundError(
                Message("Label Studio answers 404 to a listing of annotated tasks."),
                Message("Check the project's number, and whether it was deleted."),
                status=status,
            )
        kind = _BusyError if status in _BUSY or status >= 500 else StudioError
        return kind(
            Message(
                "Label Studio answers {status} to a listing of annotated tasks.", status=status
            ),
            TOKEN_FIX if status in {401, 403} else Message("Look into Label Studio's own log."),
            status=error.status_code,
        )

    def explained(self, error: Exception) -> StudioError:
        """The error for a call without a usable answer.

        The reason may be a connection that fails, a refused token, or another program that answers.
        """
        if isinstance(error, ApiError) and (error.status_code or 0) in {400, 401, 403}:
            return StudioTokenError(
                Message(
                    "Label Studio at {url} refuses the token ({status_code}).",
                    url=self.url,
                    status_code=error.status_code,
                ),
                TOKEN_FIX,
                status=error.status_code,
            )
        if isinstance(error, ApiError | ValueError) and not isinstance(
            error, requests.RequestException
        ):
            return StudioError(
                Message("What answers at {url} is not Label Studio's API.", url=self.url), URL_FIX
            )
        return unreachable(self.url, error)


def _session() -> requests.Session:
    session = requests.Session()
    # A proxy must not get to see the token.
    session.trust_env = False
    return session


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
    kind = UnansweredError if isinstance(error, requests.Timeout) else _BusyError
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


def _reply(answer: requests.Response) -> str:
    """Label Studio's own words, shortened."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text.strip().splitlines()[0][:200] if answer.text.strip() else "no text"
    if isinstance(content, dict):
        wrong = content.get("validation_errors") or content.get("detail") or content
        return str(wrong)[:500]
    return str(content)[:500]


def _fix(answer: requests.Response, reply: str) -> str:
    if answer.status_code == 401:
        return TOKEN_FIX
    if answer.status_code == 403:
        if read_refusal(reply) is Refusal.PRIVATE_ADDRESS:
            return (
                "Start Label Studio with ML_BLOCK_LOCAL_IP=false and "
                "SSRF_PROTECTION_ENABLED=false (both), or give the backend a public address."
            )
        return Message("Use the token of a user who may change this project.")
    if answer.status_code == 404:
        return Message(
            "Check the project's number (it is in the address of its page) and the token's user."
        )
    if answer.is_redirect:
        return Message("Set LABEL_STUDIO_URL to the address that Label Studio redirects to.")
    return ""
