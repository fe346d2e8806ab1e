"""From an address in task data to the URL that it means, with the checks that need no network."""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import parse_qsl, unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from backend.errors import ImageError, ImageReason
from backend.images.guard import origin
from backend.messages.message import Message

MAX_URL_LENGTH = 8192
_CLOUD_SCHEMES = {"s3", "s3a", "gs", "azure-blob", "azure-spi"}


class Locator:
    """See the module. Thread-safe.

    Args:
        label_studio_url: where Label Studio is reached, without a trailing slash.
        public_url: what it calls itself in task data, without a trailing slash; may be empty.

    Attributes:
        studio: Label Studio's origin.
    """

    def __init__(self, label_studio_url: str, public_url: str = "") -> None:
        self._base = label_studio_url
        base = parse_url(label_studio_url)
        self.studio = origin(base)
        self._prefix = (base.path or "").rstrip("/")
        public = parse_url(public_url) if public_url else None
        self._public = None if public is None else origin(public)
        self._public_prefix = "" if public is None else (public.path or "").rstrip("/")

    def path_at_studio(self, url: Url) -> str | None:
        """The path of a URL below Label Studio's address, as it is sent; None for other hosts."""
        if origin(url) != self.studio:
            return None
        path = url.path or "/"
        below = path.removeprefix(self._prefix)
        return below if below.startswith("/") else path

    def locate(self, value: str) -> Url:
        """The absolute URL of an address in task data, checked.

        Raises:
            ImageError: its ``reason`` is ``bad_url``, ``unsupported_scheme``,
                ``credentials_in_url`` or ``path_traversal``.
        """
        if value.startswith("//"):
            raise ImageError(
                ImageReason.BAD_URL,
                Message("The address names no scheme."),
                Message("Write http: or https: before the //."),
            )
        if value.startswith("/"):
            value = self._base + self._below(value)
        url = self.checked(value)
        # The path as it was written: a parsed one has another spelling.
        written = "/" + "/".join(value.split("/")[3:])
        if origin(url) == self._public != self.studio and self._is_studios(written):
            return self.checked(self._base + self._below(written))
        return url

    def _is_studios(self, path: str) -> bool:
        """Whether a path at the public name is Label Studio's, which may share it with others."""
        return path.startswith((f"{self._public_prefix}/", "/data/", "/tasks/"))

    def _below(self, path: str) -> str:
        """A path without the sub-path, which Label Studio includes in some addresses only."""
        for prefix in (self._prefix, self._public_prefix):
            if prefix and path.startswith(f"{prefix}/"):
                return path.removeprefix(prefix)
        return path

    def checked(self, text: str) -> Url:
        """Parse an absolute URL, with all checks that do not need its host to be resolved.

        Raises:
            ImageError: as for `locate`.
        """
        if len(text) > MAX_URL_LENGTH or re.search(r"[\x00-\x1f\x7f]", text):
            raise bad_url()
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
        if scheme and scheme[1].lower() not in {"http", "https"}:
            _refuse_scheme(scheme[1].lower())
        try:
            url = parse_url(text)
        except LocationParseError as error:
            raise bad_url() from error
        if not scheme or not url.host:
            raise bad_url()
        if url.auth is not None:
            raise ImageError(
                ImageReason.CREDENTIALS_IN_URL,
                Message(
                    "The address of the image at {host} carries a user name or password.",
                    host=url.host,
                ),
                Message("Remove it; connect the files as a storage in Label Studio instead."),
            )
        if origin(url) == self.studio:
            _refuse_traversal(text)
        return url


def bad_url() -> ImageError:
    """The error for what is no address."""
    return ImageError(
        ImageReason.BAD_URL,
        Message("The address of the image is neither a URL nor a path of Label Studio."),
        Message("Use http://..., https://..., or a path that starts with /."),
    )


def _refuse_scheme(scheme: str) -> NoReturn:
    raise ImageError(
        ImageReason.UNSUPPORTED_SCHEME,
        Message("Images are not fetched from {scheme}: addresses.", scheme=scheme),
        Message("Connect the bucket as a storage of the Label Studio project.")
        if scheme in _CLOUD_SCHEMES
        else Message("Use http(s), or upload the image to Label Studio."),
    )


def _refuse_traversal(text: str) -> None:
    """Refuse an address at Label Studio that tries to leave its directory."""
    path, _, query = text.partition("?")
    is_local_file = _fully_unquoted(path).rstrip("/").endswith("/data/local-files")
    given = parse_qsl(query, keep_blank_values=True)
    files = [_fully_unquoted(value) for name, value in given if is_local_file and name == "d"]
    others = [value for name, value in given if not is_local_file or name != "d"]
    plain = _fully_unquoted(text)
    if any(re.match(r"[A-Za-z]:|\\|//", file) for file in files):
        raise ImageError(
            ImageReason.PATH_TRAVERSAL,
            Message("The path of the image starts with a drive, with // or with a backslash."),
            Message("Write the path relative to the storage: ?d=folder/image.jpg."),
        )
    if (
        # Label Studio on Windows writes them between the folders of a local file.
        "\\" in "".join(map(_fully_unquoted, (path, *others)))
        or "\0" in plain
        or ".." in re.split(r"[/\\?&=#;]", plain)
    ):
        raise ImageError(
            ImageReason.PATH_TRAVERSAL,
            Message("The path of the image tries to leave its directory."),
            Message("Write the path relative to the storage, without .. and without backslashes."),
        )


def _fully_unquoted(text: str) -> str:
    while (plain := unquote(text)) != text:
        text = plain
    return text
