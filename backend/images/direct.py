"""Reading image files where they lie, without Label Studio: what all such places have in common.

Such a way only ever saves work. What it does not find, or may not read, goes through Label Studio
as before, and each attempt is counted, so that an operator sees whether the way is of use.
"""

from __future__ import annotations

import logging
import threading
from enum import StrEnum
from typing import Protocol

from backend import telemetry
from backend.images.validators import FetchedFile, Validators

log = logging.getLogger(__name__)


class Place(StrEnum):
    """Where files may lie; a label of the metric `ls_clip_direct_reads_total`."""

    LOCAL_FILES = "local_files"
    UPLOADS = "uploads"
    BUCKETS = "buckets"


class Outcome(StrEnum):
    """What became of an attempt; the other label. After all but ``read``, Label Studio is asked."""

    READ = "read"
    """Read, or found to be unchanged."""
    ASKED = "asked"
    """Fetched through Label Studio, to learn whether it serves files of that folder."""
    DIFFERS = "differs"
    """Label Studio serves other bytes than lie there."""
    MISSING = "missing"
    REFUSED = "refused"
    """A symbolic link, no regular file, too large, or no permission."""
    FAILED = "failed"
    """The disk or the bucket gives an error, or takes too long."""


class DirectReadError(Exception):
    """A file cannot be read where it should lie.

    Args:
        outcome: the kind of the problem.
        reason: the problem in words, without what task data says.
    """

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Source(Protocol):
    """Where image files come from: Label Studio and the web, a disk, or a bucket."""

    def fetch_file(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at this address; None if it is the one with these validators.

        Raises:
            ImageError: it cannot be fetched or read.
        """


class DirectSource(Source, Protocol):
    """A source that reads some addresses where they lie, and passes the others on."""

    def place_of(self, value: str) -> Place | None:
        """Where the file at this address lies; None if it is none that may be read directly."""

    def read(self, value: str, known: Validators) -> FetchedFile | None:
        """The file at an address that has a place; None if it is the one with these validators.

        Nobody is asked whether it may be read. Use it inside `guard.time_limit`.

        Raises:
            DirectReadError: it cannot be read there.
        """


def plain_parts(path: str) -> tuple[str, ...] | None:
    """The names that make up a relative path; None if one of them could lead anywhere else.

    No name is empty, ``.`` or ``..``, begins with a dot (hidden files), or holds a backslash, a
    NUL or another control character.
    """
    parts = tuple(path.split("/"))
    if any(
        not part or part[0] == "." or "\\" in part or any(ord(sign) < 32 for sign in part)
        for part in parts
    ):
        return None
    return parts


class Tally:
    """Counts attempts, and logs the first of each kind. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[tuple[str, Outcome]] = set()

    def count(self, place: Place, outcome: Outcome) -> None:
        """Count one attempt."""
        telemetry.DIRECT_READS.labels(place, outcome).inc()

    def failed(self, place: Place, where: str, error: DirectReadError) -> None:
        """Count an attempt that failed, and log it if it is the first of its kind there.

        Args:
            place: where the file should lie.
            where: the setting and its value that led there.
            error: the problem.
        """
        self.count(place, error.outcome)
        with self._lock:
            first = (where, error.outcome) not in self._told
            self._told.add((where, error.outcome))
        if first:
            log.warning(
                "%s: an image cannot be read there and is fetched through Label Studio (%s: %s). "
                "Further ones are only counted; ls-clip doctor PROJECT looks at a few.",
                where,
                error.outcome,
                error.reason,
            )
