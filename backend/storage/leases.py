"""A lease: a lock in a bucket that expires when its holder dies.

It is an object that says who holds it and until when. A bucket creates an object only if it is not
there, and replaces it only if it is still the one that was read (If-None-Match and If-Match of
S3, https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion

LEASE_SECONDS = 120.0
"""After which the lease of a dead holder is free; the clocks of all machines must agree better."""


class Lease:
    """A lease as one of those who want it sees it.

    Args:
        uri: of the store: ``s3://``, ``gs://`` or ``az://``.
        path: of the lease's object below it.

    Raises:
        obstore.exceptions.BaseError: the bucket refuses or does not answer; so do all methods.
        FileNotFoundError: there is no such bucket; the same.
    """

    def __init__(self, uri: str, path: str) -> None:
        from obstore.store import from_url

        self._bucket = from_url(uri)
        self._path = path
        self._holder = uuid4().hex
        self._seen: UpdateVersion | None = None

    def take(self) -> bool:
        """Hold the lease for `LEASE_SECONDS` if nobody else does; returns whether it is held."""
        lease = self._read()
        if lease is None or lease["expires"] <= time.time() or lease["holder"] == self._holder:
            return self._write(LEASE_SECONDS)
        return False

    def renew(self) -> bool:
        """Hold the lease for another `LEASE_SECONDS`; returns whether it was still held."""
        return self._write_if_held(LEASE_SECONDS)

    def release(self) -> None:
        """Let others have the lease, if it is still held."""
        self._write_if_held(0.0)

    def _write_if_held(self, seconds: float) -> bool:
        if self._write(seconds):
            return True
        # What was written before may have arrived without its answer.
        lease = self._read()
        if lease is not None and lease["holder"] == self._holder:
            return self._write(seconds)
        # Never that of another holder.
        self._seen = None
        return False

    def _read(self) -> dict[str, Any] | None:
        from obstore import get

        try:
            found = get(self._bucket, self._path)
        except FileNotFoundError:
            self._seen = None
            return None
        self._seen = _version(found.meta)
        lease: dict[str, Any] = json.loads(bytes(found.bytes()))
        return lease

    def _write(self, seconds: float) -> bool:
        """Whether the object was still the one that was seen, and is replaced."""
        from obstore import put
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        lease = {"holder": self._holder, "expires": time.time() + seconds}
        try:
            written = put(
                self._bucket, self._path, json.dumps(lease).encode(), mode=self._seen or "create"
            )
        except (AlreadyExistsError, PreconditionError):
            return False
        except FileNotFoundError:
            if self._seen is None:
                raise  # There is no bucket.
            return False
        self._seen = _version(written)
        return True


def _version(told: ObjectMeta | PutResult) -> UpdateVersion:
    """What identifies the object: in S3 and Azure its ETag, in Google Cloud Storage a number."""
    version: UpdateVersion = {"e_tag": told["e_tag"]}
    if told["version"] is not None:
        version["version"] = told["version"]
    return version
