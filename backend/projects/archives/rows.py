"""What every reader makes of an archive: rows, some with the reason for leaving them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from backend.images.address import compact_address


class Reason(StrEnum):
    """Why something of an archive is left out."""

    NO_IMAGE = "no_image"
    NO_LABEL = "no_label"
    SKIPPED = "skipped"
    """All annotations of the task were cancelled."""
    NOT_SERVED = "not_served"
    """Label Studio cannot show the address."""
    UNKNOWN_LABEL = "unknown_label"
    NO_KNOWN_LABEL = "no_known_label"
    """All labels of the image are unknown."""
    DUPLICATE = "duplicate"
    NOT_TEXT = "not_text"
    """A file name, an address or a task's data that is not Unicode: no program can pass it on."""
    PAGES = "pages"
    """A task with several pages, some of which are files to upload."""
    NO_SUCH_IMAGE = "no_such_image"
    """The annotation is of an image that the file does not list."""
    MISSING_FILE = "missing_file"
    AMBIGUOUS = "ambiguous"
    """An absolute path whose end is a file, but not if the same is stripped as of the others."""
    UNREADABLE_FILE = "unreadable_file"
    OUTSIDE = "outside"
    """A link or a path that leads out of the archive: to publish it could give a secret away."""
    OTHER_FORMAT = "other_format"
    """An image in a format that Label Studio takes no upload of, or that no browser shows."""
    NOT_AN_IMAGE = "not_an_image"
    LOOSE = "loose"
    """Beside the folders of the labels."""
    DEEPER = "deeper"
    """In a folder below that of a label."""
    UNLISTED = "unlisted"
    """The metadata of the folder does not name it."""
    SYSTEM_FILE = "system_file"
    """Left behind by a file manager; nobody misses it."""


def is_unicode(text: str) -> bool:
    """Whether a text has no half characters, as in file names of another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Row:
    """One image of an archive.

    Attributes:
        where: it is in the archive, for a person: ``row 3``, ``cat/1.jpg``.
        labels: that are known to be on the image.
        image: its address; empty for a file to be uploaded.
        file: to be uploaded; None where there is an address.
        data: of the task to be made; its image field is filled in when the task is made.
        source: recognises the image in a second import; empty: the address does.
        reason: why the row is left out; None: it is not.
        path: on a disk, of a file that is to be looked for below the folder of the images.
        elsewhere: where below that folder the only file of this name is, if not where it should be.
        one_of_several: whether the archive may list the image again on purpose, for each of its
            annotations, so that saying nothing new is no mistake.
    """

    where: str
    labels: tuple[str, ...] = ()
    image: str = ""
    file: Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    reason: Reason | None = None
    one_of_several: bool = False
    path: str = ""
    elsewhere: str = ""

    @property
    def key(self) -> str:
        """What recognises the image."""
        return self.source or compact_address(self.image)


@dataclass(frozen=True)
class LeftOut:
    """How often something was left out for one reason, and where it was first.

    Attributes:
        count: how often.
        example: where it was first.
        elsewhere: where the file of the example is instead; empty: not known.
    """

    count: int
    example: str
    elsewhere: str = ""


@dataclass(frozen=True)
class Archive:
    """The images of an archive, each once, and what was left out.

    Attributes:
        rows: the images.
        left_out: by reason.
        stripped: what all absolute paths begin with that were found below a folder; empty: none.
    """

    rows: Sequence[Row]
    left_out: Mapping[Reason, LeftOut]
    stripped: str = ""

    @property
    def is_incomplete(self) -> bool:
        """Whether something was left out that somebody may miss."""
        return bool({*self.left_out} - {Reason.SYSTEM_FILE})

    def without(self, rows: Sequence[Row], reason: Reason, count: int, example: str) -> Archive:
        """The archive with these rows only, because of one more reason.

        Args:
            rows: that stay.
            reason: for the others.
            count: how much was left out for it.
            example: of it.
        """
        if not count:
            return self
        left_out = {**self.left_out, reason: LeftOut(count, example)}
        return replace(self, rows=rows, left_out=left_out)


def gather(rows: Iterable[Row]) -> Archive:
    """Join the rows of each image, and count what is left out."""
    images: dict[str, Row] = {}
    left_out: dict[Reason, LeftOut] = {}
    # An image may have a label in another of its annotations.
    unlabelled: dict[str, Row] = {}
    for row in rows:
        reason = row.reason or (None if row.labels else Reason.NO_LABEL)
        if reason is Reason.NO_LABEL and row.one_of_several:
            unlabelled[row.key] = row
        elif reason is not None:
            _count(left_out, reason, row)
        elif row.key in images:
            first = images[row.key]
            labels = tuple(dict.fromkeys((*first.labels, *row.labels)))
            if labels == first.labels and not row.one_of_several:
                _count(left_out, Reason.DUPLICATE, row)
            images[row.key] = replace(first, labels=labels)
        else:
            images[row.key] = replace(row, labels=tuple(dict.fromkeys(row.labels)))
    for key, row in unlabelled.items():
        if key not in images:
            _count(left_out, Reason.NO_LABEL, row)
    return Archive([*images.values()], left_out)


def _count(left_out: dict[Reason, LeftOut], reason: Reason, row: Row) -> None:
    before = left_out.get(reason, LeftOut(0, row.where, row.elsewhere))
    left_out[reason] = replace(before, count=before.count + 1)
