"""Reading a file below a folder, whatever people who may write there have made of the path.

The path is opened name by name, and no name may be a symbolic link, so it cannot lead out of the
folder, not even if somebody exchanges a name in between.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from backend.images.direct import DirectReadError, Outcome
from backend.images.guard import remaining
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.messages.message import Message

SETTLED_SECONDS = 2.0
"""A file that was changed less than this ago may change again without another time: FAT has even
seconds, and other file systems the time of the clock's last tick."""
_BLOCK = 1 << 20
_REFUSALS = {
    errno.ELOOP: Message("a symbolic link"),
    errno.ENOTDIR: Message("a part of the path is no folder, or is a symbolic link"),
    errno.EACCES: Message("no permission"),
    errno.EPERM: Message("no permission"),
    errno.ENAMETOOLONG: Message("a name that is too long"),
}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe waits for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_below(
    root: Path, parts: Sequence[str], known: Validators, max_bytes: int
) -> FetchedFile | None:
    """Read a regular file; use it inside `guard.time_limit`.

    Args:
        root: a folder; it may itself be a symbolic link.
        parts: names from the root to the file, from `direct.plain_parts`.
        known: its validators of before.
        max_bytes: a larger file is refused.

    Returns:
        The file; None if it is the one with these validators.

    Raises:
        DirectReadError: it cannot be read.
    """
    try:
        with _opened(root, parts) as file:
            return _read(file, known, max_bytes)
    except FileNotFoundError as error:
        raise DirectReadError(Outcome.MISSING, Message("no such file")) from error
    except TimeoutError as error:
        raise DirectReadError(Outcome.FAILED, Message("it takes too long")) from error
    except OSError as error:
        # The error's own text names the path, which task data has chosen.
        raise DirectReadError(
            Outcome.REFUSED if error.errno in _REFUSALS else Outcome.FAILED,
            _REFUSALS.get(error.errno or 0, os.strerror(error.errno or 0)),
        ) from error
    except ValueError as error:
        raise DirectReadError(Outcome.REFUSED, Message("no name that a file can have")) from error


@contextmanager
def _opened(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of the file, from folder to folder."""
    folder = os.open(root, _FOLDER)
    try:
        for name in parts[:-1]:
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        file = os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        yield file
    finally:
        os.close(file)


def _read(file: int, known: Validators, max_bytes: int) -> FetchedFile | None:
    before = os.fstat(file)
    if not stat.S_ISREG(before.st_mode):
        raise DirectReadError(Outcome.REFUSED, Message("no regular file"))
    validators = _validators(before)
    if known.match(validators):
        return None
    blocks: list[bytes] = []
    size = before.st_size if before.st_size > max_bytes else 0
    # Counted, not believed: the file may grow while it is read.
    while size <= max_bytes and (block := os.read(file, min(_BLOCK, max_bytes + 1 - size))):
        blocks.append(block)
        size += len(block)
        remaining()
    if size > max_bytes:
        raise DirectReadError(
            Outcome.REFUSED, Message("more than {max_bytes} bytes", max_bytes=max_bytes)
        )
    after = os.fstat(file)
    if size != after.st_size or _times(before) != _times(after):
        raise DirectReadError(Outcome.FAILED, Message("it changed while it was read"))
    return FetchedFile(b"".join(blocks), validators)


def _times(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_ctime_ns


def _validators(status: os.stat_result) -> Validators:
    """What changes with a file; unknown while a change might not show.

    The ETag is the one that Label Studio makes of the same file, so that it can tell later whether
    the file is unchanged. It is weak, and so the file system's own word counts here, which Label
    Studio does not send: the time of the last change of anything about the file, which nobody can
    set, and which file it is.
    """
    last = max(_times(status))
    if last > time.time_ns() - SETTLED_SECONDS * 1e9:
        return UNKNOWN
    return Validators(
        f'W/"{status.st_mtime_ns:x}-{status.st_size:x}"',
        f"disk {status.st_ctime_ns:x} {status.st_ino:x}",
        status.st_size,
    )
