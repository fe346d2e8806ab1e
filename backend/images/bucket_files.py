"""Objects of buckets that this process may read itself, instead of by way of Label Studio.

Which ones is the operator's decision alone: task data names the object, and neither the host nor
the credentials. Both come from this process's environment, as for a store in a bucket.
"""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from backend.images.address import store_address
from backend.images.direct import DirectReadError, Outcome, Place, Source, Tally, plain_parts
from backend.images.guard import remaining, time_limit
from backend.images.validators import FetchedFile, Validators
from backend.messages.message import Message
from backend.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

PAUSE_SECONDS = 60.0
"""For so long a bucket is left alone that does not answer, or not as a bucket does."""
SHARE = 0.5
"""Of the time for an image; the rest is for Label Studio, if the bucket does not answer."""
_BLOCK = 1 << 20
_OBJECT = re.compile(r"(s3|gs|azure-blob)://([^/?#]+)/([^?]+)", re.IGNORECASE)
_SCHEMES = {"azure-blob": "az"}
"""What obstore calls a scheme, where Label Studio has another word."""


class BucketFiles:
    """See the module. Thread-safe.

    Args:
        settings: label_studio_url, read_buckets, connect_timeout, fetch_timeout and
            max_image_bytes are read.
        source: fetches all other addresses, and what cannot be read.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._buckets: dict[str, _Bucket] = {}
        for entry in settings.read_bucket_list:
            scheme, _, path = entry.partition("://")
            name, _, prefix = path.partition("/")
            uri = f"{scheme}://{name}"
            self._buckets.setdefault(uri, _Bucket(uri, settings)).prefixes.append(prefix)
        self._tally = Tally()

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at this address; None if it is the one with these validators.

        Raises:
            ImageError: as for `ImageFetcher.fetch_file`, which all else goes through.
            ClipError: the same.
        """
        found = self._object(value)
        if found is None:
            return self._source.fetch_file(value, known)
        bucket, key = found
        with time_limit(self._settings.fetch_timeout):
            if time.monotonic() < bucket.paused_until:
                self._tally.count(Place.BUCKETS, Outcome.FAILED)
                return self._source.fetch_file(value, known)
            try:
                with time_limit(SHARE * self._settings.fetch_timeout):
                    file = bucket.read(key, known)
            except DirectReadError as error:
                self._tally.failed(Place.BUCKETS, f"LS_CLIP_READ_BUCKETS={bucket.uri}", error)
                return self._source.fetch_file(value, known)
            self._tally.count(Place.BUCKETS, Outcome.READ)
            return file

    def place_of(self, value: str) -> Place | None:
        """Where the file at this address lies; None if it is none that may be read directly."""
        return Place.BUCKETS if self._object(value) else None

    def read(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at an address that has a place; None if it is the one with these validators.

        Raises:
            DirectReadError: it cannot be read there.
        """
        found = self._object(value)
        assert found is not None
        bucket, key = found
        return bucket.read(key, known)

    def _object(self, value: str) -> tuple[_Bucket, str] | None:
        """The bucket and the key that an address means, if it is one that may be read."""
        if not self._buckets or value[:5].lower() == "data:":
            return None
        parsed = _OBJECT.fullmatch(
            store_address(
                value, self._settings.label_studio_url, self._settings.label_studio_public_url
            )
        )
        if parsed is None:
            return None
        scheme, name, key = parsed.groups()
        bucket = self._buckets.get(f"{scheme.lower()}://{name}")
        if bucket is None or not bucket.allows(key) or plain_parts(key) is None:
            return None
        return bucket, key


class _Bucket:
    """A bucket that may be read.

    Args:
        uri: as Label Studio writes it.
        settings: see `BucketFiles`.

    Attributes:
        uri: the same.
        prefixes: below which objects may be read; an empty one allows all.
        paused_until: by time.monotonic(); it does not answer.
    """

    def __init__(self, uri: str, settings: Settings) -> None:
        self.uri = uri
        self.prefixes: list[str] = []
        self.paused_until = 0.0
        self._settings = settings
        self._lock = threading.Lock()
        self._opened: Any = None

    def allows(self, key: str) -> bool:
        """Whether this object may be read."""
        return any(not prefix or key.startswith(f"{prefix}/") for prefix in self.prefixes)

    def read(self, key: str, known: Validators) -> FetchedFile | None:
        """An object; None if it is the one with these validators.

        Raises:
            DirectReadError: it cannot be read.
        """
        from obstore import get
        from obstore.exceptions import (
            BaseError,
            NotModifiedError,
            PermissionDeniedError,
        )

        try:
            options: GetOptions = {"if_none_match": known.etag} if known.etag else {}
            return self._body(get(self._client(), key, options=options), known)
        except NotModifiedError:
            return None
        except FileNotFoundError as error:
            # Also where there is no such bucket.
            raise DirectReadError(
                Outcome.MISSING, Message("no such object, or no such bucket")
            ) from error
        except PermissionDeniedError as error:
            # Of this object alone, perhaps: some buckets say so of objects that are not there.
            raise DirectReadError(Outcome.REFUSED, Message("no permission")) from error
        except (BaseError, OSError, ValueError) as error:
            self.paused_until = time.monotonic() + PAUSE_SECONDS
            reason = Message(
                "{kind}; it is left alone for {seconds:.0f} s",
                kind=type(error).__name__,
                seconds=PAUSE_SECONDS,
            )
            raise DirectReadError(Outcome.FAILED, reason) from error

    def _body(self, answer: GetResult, known: Validators) -> FetchedFile | None:
        sent = Validators.of(
            {
                "ETag": answer.meta["e_tag"] or "",
                # As HTTP writes it, and so as Label Studio's way brings it.
                "Last-Modified": format_datetime(answer.meta["last_modified"], usegmt=True),
                "Content-Length": str(answer.meta["size"]),
            }
        )
        if known.match(sent):
            return None
        limit = self._settings.max_image_bytes
        body = bytearray()
        if answer.meta["size"] <= limit:
            for block in answer.stream(min_chunk_size=_BLOCK):
                body += block
                remaining()
                if len(body) > limit:
                    break
        if max(len(body), answer.meta["size"]) > limit:
            raise DirectReadError(Outcome.REFUSED, Message("more than {limit} bytes", limit=limit))
        return FetchedFile(bytes(body), sent)

    def _client(self) -> Any:
        """The connection to the bucket, made once.

        Raises:
            obstore.exceptions.BaseError: the environment does not say how.
        """
        from obstore.store import from_url

        with self._lock:
            if self._opened is None:
                scheme, _, name = self.uri.partition("://")
                seconds = SHARE * self._settings.fetch_timeout
                self._opened = from_url(
                    f"{_SCHEMES.get(scheme, scheme)}://{name}",
                    client_options={
                        "timeout": timedelta(seconds=seconds),
                        "connect_timeout": timedelta(seconds=self._settings.connect_timeout),
                        # Options replace what the environment says; this is its usual name there.
                        "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
                    },
                    retry_config={
                        "max_retries": 2,
                        "retry_timeout": timedelta(seconds=SHARE * seconds),
                    },
                )
            return self._opened
