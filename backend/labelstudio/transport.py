"""HTTP calls of Label Studio's API: retries, and errors that name the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from backend.errors import StudioError
from backend.labelstudio.authorization import Authorization
from backend.labelstudio.failures import (
    BUSY,
    URL_FIX,
    BusyError,
    StudioNotFoundError,
    UnansweredError,
    unreachable,
)
from backend.labelstudio.refusals import Refusal, read_refusal
from backend.labelstudio.tokens import TOKEN_FIX
from backend.messages.message import Message

SECONDS = 30.0
IMPORT_SECONDS = 600.0


class Transport:
    """Makes the calls to one Label Studio.

    Args:
        url: Label Studio's address, without a slash at its end.
        authorization: of whoever makes the calls.

    Attributes:
        url: the same.
    """

    def __init__(self, url: str, authorization: Authorization) -> None:
        self.url = url
        self._authorization = authorization
        self._session = _session()

    def headers(self) -> dict[str, str]:
        """The headers of whoever makes the calls. They must be sent to Label Studio only.

        Raises:
            StudioError: the token cannot be exchanged for an access token.
        """
        return self._authorization.headers()

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
            retry=retry_if_exception_type(BusyError),
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
        answer = self._send(self._session, "GET", path, SECONDS)
        return answer.content if answer.status_code == 200 else None

    def refusal(self, path: str, body: Mapping[str, Any]) -> Refusal | None:
        """Why Label Studio refuses a POST; None if it accepts it, or for a reason not known."""
        try:
            self.call("POST", path, json=body, attempts=1)
        except StudioError as error:
            return read_refusal(error.reply)
        return None

    def _send(
        self, session: requests.Session, method: str, path: str, timeout: float, **content: Any
    ) -> requests.Response:
        try:
            return session.request(
                method,
                self.url + path,
                headers=self.headers(),
                timeout=(5.0, timeout),
                allow_redirects=False,
                **content,
            )
        except requests.RequestException as error:
            raise unreachable(self.url, error) from error

    def _once(
        self,
        session: requests.Session,
        method: str,
        path: str,
        timeout: float,
        content: Mapping[str, Any],
    ) -> Any:
        answer = self._send(session, method, path, timeout, **content)
        status = answer.status_code
        if status in BUSY:
            raise BusyError(
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
            kind = UnansweredError if method == "POST" else BusyError
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


def _session() -> requests.Session:
    session = requests.Session()
    # A proxy must not get to see the token.
    session.trust_env = False
    return session


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
