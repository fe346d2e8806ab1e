"""What a host says about a file, so that an unchanged one need not be sent again (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,1000}"')
_DATE_LENGTH = 100


@dataclass(frozen=True)
class Validators:
    """The headers that come with a file and change when it does; empty where a host sends none.

    A file that was read from a disk has some of its own kind (`backend.images.disk`).

    Attributes:
        etag: with its quotes, and ``W/`` where it is weak.
        last_modified: as it was sent, never interpreted; of a file on a disk no date.
        size: the declared length of the body; None if it was not declared.
    """

    etag: str = ""
    last_modified: str = ""
    size: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Validators:
        """Those of an answer; what has not the form of such a header is left out."""
        etag = headers.get("ETag", "").strip()
        date = headers.get("Last-Modified", "").strip()
        length = headers.get("Content-Length", "").strip()
        return cls(
            etag if _ETAG.fullmatch(etag) else "",
            date if len(date) <= _DATE_LENGTH and date.isascii() else "",
            int(length) if length.isdecimal() and len(length) < 19 else None,
        )

    @property
    def tell_something(self) -> bool:
        """Whether an unchanged file can be told by them."""
        return bool(self.etag) or (bool(self.last_modified) and self.size is not None)

    def conditions(self) -> dict[str, str]:
        """Headers with which a host answers 304 if the file is unchanged.

        Never If-Modified-Since: many hosts answer 304 to it if the file is older than the date, as
        one is that was put there with its own time kept.
        """
        return {"If-None-Match": self.etag} if self.etag else {}

    def match(self, sent: Validators) -> bool:
        """Whether those that were sent now belong to the same content.

        An equal weak ETag proves nothing by itself here: a host that takes part in conditional
        requests would have answered 304.
        """
        if self.etag != sent.etag:
            return False
        if self.etag and not self.etag.startswith("W/"):
            return True
        known = bool(self.last_modified) and self.size is not None
        return known and (self.last_modified, self.size) == (sent.last_modified, sent.size)


UNKNOWN = Validators()
"""Nothing is known: the file is always sent."""


@dataclass(frozen=True)
class FetchedFile:
    """A file as it was fetched.

    Attributes:
        data: its bytes.
        validators: that came with it.
    """

    data: bytes
    validators: Validators = UNKNOWN
