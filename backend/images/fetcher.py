"""Fetching images from Label Studio, from other hosts and from ``data:`` URIs.

Task data is written by people who need not be trusted, and this process runs inside a network that
they may not reach. So each address is checked, and so is each redirect.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote, urljoin

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_before_delay
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry, Url

from backend.errors import ImageError, ImageReason
from backend.images.guard import guarded_pools, origin, remaining, time_limit
from backend.images.location import Locator, bad_url
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.messages.message import Message
from backend.settings import Settings

MAX_REDIRECTS = 5
ATTEMPTS = 3
_BLOCK = 65536
_HEADERS = {"User-Agent": "label-studio-clip", "Accept": "*/*", "Accept-Encoding": "identity"}
_STATUS_REASONS = {
    401: ImageReason.UNAUTHORIZED,
    403: ImageReason.FORBIDDEN,
    404: ImageReason.NOT_FOUND,
    410: ImageReason.NOT_FOUND,
}


class _TransientError(ImageError):
    """An ImageError that is worth a retry, after the pause that the host asked for (seconds)."""

    retry_after: float | None = None


class ImageFetcher:
    """Fetches the images that task data points to. Thread-safe.

    Connections are kept open per host.

    Args:
        settings: label_studio_url, label_studio_public_url, connect_timeout, fetch_timeout,
            max_image_bytes, allowed_hosts, offline and fetch_workers are read.
        studio_headers: returns the headers that authenticate at Label Studio. They are sent only
            to its scheme, host and port, and not after a redirect to another host.

    Raises:
        SettingsError: allowed_hosts has an entry with a slash that is not a network.
    """

    def __init__(self, settings: Settings, studio_headers: Callable[[], dict[str, str]]) -> None:
        self._settings = settings
        self._studio_headers = studio_headers
        self._locator = Locator(settings.label_studio_url, settings.label_studio_public_url)
        self._studio = self._locator.studio
        self._pools = guarded_pools(settings, self._studio)

    def close(self) -> None:
        """Close the idle connections. The fetcher can be used again."""
        self._pools.clear()

    def fetch(self, value: str) -> bytes:
        """Fetch one image, at most ``max_image_bytes`` long, within ``fetch_timeout`` seconds.

        Args:
            value: a path of Label Studio (``/data/upload/1/x.jpg``), an http(s) URL, or a
                ``data:image/...;base64,`` URI.

        Returns:
            The file's bytes, without content encoding; they may be empty or not an image.

        Raises:
            ImageError: its ``reason`` is ``bad_url``, ``unsupported_scheme``,
                ``credentials_in_url``, ``path_traversal``, ``private_address``, ``offline``,
                ``unreachable``, ``timeout``, ``too_many_redirects``, ``unauthorized``,
                ``forbidden``, ``not_found``, ``http_status`` or ``too_large``.
            ClipError: whatever ``studio_headers`` raises.
        """
        file = self.fetch_file(value, UNKNOWN)
        assert file is not None
        return file.data

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        """Fetch one image like `fetch`, unless it is the one that is known.

        Args:
            value: as for `fetch`.
            known: the validators that came with it before.

        Returns:
            The file; None if it is unchanged by its validators, and then its body was not read.

        Raises:
            ImageError: as for `fetch`.
            ClipError: whatever ``studio_headers`` raises.
        """
        if not isinstance(value, str) or not value.strip():
            raise ImageError(
                ImageReason.BAD_URL,
                Message("The task has no image address."),
                Message("Put a URL, or a path of Label Studio, into the task's image field."),
            )
        value = value.strip()
        if value[:5].lower() == "data:":
            return FetchedFile(self._from_data_uri(value))
        url = self._locator.locate(value)
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(self._settings.fetch_timeout),
            wait=_pause,
            reraise=True,
        )
        with time_limit(self._settings.fetch_timeout):
            return retrying(self._follow, url, known)

    def _from_data_uri(self, value: str) -> bytes:
        head, comma, body = value.partition(",")
        if not comma or not re.fullmatch(r"data:image/[^,]*;base64", head, re.IGNORECASE):
            raise ImageError(
                ImageReason.BAD_URL,
                Message("The data: URI is not of the form data:image/...;base64,..."),
                Message("Encode the image as base64 with an image type."),
            )
        if len(body) > 4 * self._settings.max_image_bytes:
            raise self._too_large(_DATA_URI)
        try:
            data = base64.b64decode("".join(unquote(body).split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError(
                ImageReason.BAD_URL,
                Message("The data: URI is not valid base64 ({error}).", error=error),
                Message("Encode it again."),
            ) from error
        if len(data) > self._settings.max_image_bytes:
            raise self._too_large(_DATA_URI)
        return data

    def _follow(self, url: Url, known: Validators) -> FetchedFile | None:
        with_token = True
        for _ in range(1 + MAX_REDIRECTS):
            # Once another host has decided where to go, the token is not sent any more.
            with_token = with_token and origin(url) == self._studio
            token = self._studio_headers() if with_token else {}
            answer = self._get(url, _HEADERS | known.conditions() | token, known)
            if not isinstance(answer, str):
                return answer
            url = self._locator.locate(_joined(url, answer))
        raise ImageError(
            ImageReason.TOO_MANY_REDIRECTS,
            Message(
                "{url}: more than {max_redirects} redirects.",
                url=_loggable(url),
                max_redirects=MAX_REDIRECTS,
            ),
            Message("Put the final address into the task's data."),
        )

    def _get(
        self, url: Url, headers: dict[str, str], known: Validators
    ) -> FetchedFile | str | None:
        """The file, or the address to which the host redirects, or None if it is unchanged."""
        try:
            pool = self._pools.connection_from_host(url.host, url.port, url.scheme)
            response = pool.urlopen(
                "GET",
                url.request_uri,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=remaining(),
            )
            try:
                return response.get_redirect_location() or self._file(url, response, known)
            finally:
                # A connection whose answer was read to the end is in its pool again already.
                response.close()
        except (TimeoutError, HTTPTimeoutError) as error:
            raise ImageError(
                ImageReason.TIMEOUT,
                Message(
                    "{url}: not complete after {fetch_timeout:g} s.",
                    url=_loggable(url),
                    fetch_timeout=self._settings.fetch_timeout,
                ),
                Message("Check that the host is fast enough, or raise LS_CLIP_FETCH_TIMEOUT."),
            ) from error
        except SSLError as error:
            raise ImageError(
                ImageReason.UNREACHABLE,
                Message(
                    "{url}: no trusted TLS connection ({error}).", url=_loggable(url), error=error
                ),
                Message("Fix the host's certificate, or name its CA bundle in SSL_CERT_FILE."),
            ) from error
        except ProtocolError as error:
            raise _TransientError(
                ImageReason.UNREACHABLE,
                Message(
                    "{url}: the connection broke ({error}).",
                    url=_loggable(url),
                    error=error.args[-1],
                ),
                Message("Try again; if it stays, look at the log of the host or of its proxy."),
            ) from error
        except HTTPError as error:
            raise ImageError(
                ImageReason.UNREACHABLE,
                Message(
                    "{url}: the answer cannot be read ({error}).", url=_loggable(url), error=error
                ),
                Message("Open the address in a browser, and fix the host."),
            ) from error

    def _file(self, url: Url, response: BaseHTTPResponse, known: Validators) -> FetchedFile | None:
        sent = Validators.of(response.headers)
        if known.conditions() and response.status == 304:
            # It has no body, and its connection is good for the next image.
            response.drain_conn()
            return None
        if response.status == 200 and known.match(sent):
            return None
        return FetchedFile(self._body(url, response), sent)

    def _body(self, url: Url, response: BaseHTTPResponse) -> bytes:
        if response.status != 200:
            raise self._status_error(url, response)
        limit = self._settings.max_image_bytes
        declared = response.headers.get("Content-Length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise self._too_large(_loggable(url))
        body = bytearray()
        while block := response.read(_BLOCK, decode_content=True):
            body += block
            if len(body) > limit:
                raise self._too_large(_loggable(url))
        return bytes(body)

    def _too_large(self, place: str) -> ImageError:
        return ImageError(
            ImageReason.TOO_LARGE,
            Message(
                "{place}: more than {max_image_bytes} bytes.",
                place=place,
                max_image_bytes=self._settings.max_image_bytes,
            ),
            Message("Scale the image down, or raise LS_CLIP_MAX_IMAGE_BYTES."),
        )

    def _status_error(self, url: Url, response: BaseHTTPResponse) -> ImageError:
        status = response.status
        reason = _STATUS_REASONS.get(status, ImageReason.HTTP_STATUS)
        message = Message("{url} answered {status}.", url=_loggable(url), status=status)
        if origin(url) == self._studio:
            fix = _STUDIO_FIXES.get(status, Message("Look at Label Studio's log."))
            if status == 401 and not self._settings.label_studio_api_key.get_secret_value():
                fix = Message(
                    "No token is set here: set LABEL_STUDIO_API_KEY to a personal access token."
                )
        elif status in {401, 403}:
            fix = Message(
                "Label Studio's token is not sent to other hosts. Connect the files as a storage "
                "in Label Studio, make the address public, or renew a signed URL. If this host is "
                "Label Studio under another name (LABEL_STUDIO_HOST), set "
                "LS_CLIP_LABEL_STUDIO_PUBLIC_URL={scheme}://{host}.",
                scheme=url.scheme,
                host=url.netloc,
            )
        else:
            fix = Message(
                "Open the address in a browser; correct it in the task's data if it is wrong."
            )
        if status not in {429, 502, 503, 504}:
            return ImageError(reason, message, fix)
        error = _TransientError(reason, message, fix)
        with suppress(InvalidHeader):
            error.retry_after = Retry().get_retry_after(response)
        return error


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    requested = error.retry_after if isinstance(error, _TransientError) else None
    return requested if requested is not None else 0.1 * 2**state.attempt_number


def _loggable(url: Url) -> str:
    """A URL for messages: without the query, which may hold a signature."""
    query = f"?{url.query}" if url.query and "/local-files" in (url.path or "") else ""
    return f"{url.scheme}://{url.netloc}{url.path or ''}{query}"[:300]


def _joined(url: Url, location: str) -> str:
    try:
        return urljoin(url.url, location)
    except ValueError as error:
        raise bad_url() from error


_DATA_URI = Message("the data: URI")
_STUDIO_FIXES = {
    401: Message(
        "The token of LS_CLIP_LABEL_STUDIO_API_KEY has expired or is of a kind that Label Studio "
        "does not accept: create a personal access token under Account & Settings."
    ),
    403: Message(
        "The user of LS_CLIP_LABEL_STUDIO_API_KEY may not see this project: give it access. For "
        "local files Label Studio must run with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true."
    ),
    404: Message(
        "The file is gone, or, for local files, no local storage of a project that this user sees "
        "covers its directory: add one under Settings > Cloud Storage."
    ),
}
