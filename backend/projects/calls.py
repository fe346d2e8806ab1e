"""Keeps two calls of the same kind for one project from running side by side on a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from backend.encoders.weights import CACHE
from backend.errors import StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.messages.message import Message

LOCKS = CACHE / "locks"
"""Files that are locked while a call runs; the operating system frees those of a dead process."""


@contextmanager
def alone(
    studio: LabelStudioClient, number: int, message: str, *, kind: str = ""
) -> Iterator[None]:
    """Be the only call of a kind for a project; a second one is refused at once.

    Args:
        studio: the Label Studio.
        number: the project.
        message: what the second one is told, in one sentence.
        kind: of the call; different kinds may run side by side. Empty: to connect.

    Raises:
        StudioError: there is another one, or the locks cannot be written.
    """
    name = f"{urlsplit(studio.url).netloc.replace(':', '-')}-{number}{kind and f'-{kind}'}.lock"
    lock = FileLock(LOCKS / name)
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudioError(message, Message("Wait until that call has ended.")) from error
    except OSError as error:
        raise StudioError(
            Message(
                "{path} cannot be locked: {reason}.",
                path=lock.lock_file,
                reason=str(error.strerror),
            ),
            Message("Make the folder {folder} writable.", folder=LOCKS),
        ) from error
    try:
        yield
    finally:
        lock.release()
