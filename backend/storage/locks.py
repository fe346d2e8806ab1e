"""Locks of a store: one holder per name at a time, across threads, processes and machines.

In a directory these are file locks, which the operating system releases when their holder dies. In
a bucket a lock is a lease, which its holder renews, and which expires when the holder dies.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from backend.errors import StoreError
from backend.messages.message import Message
from backend.storage.artifacts import first_line, store_errors
from backend.storage.leases import LEASE_SECONDS, Lease

WAIT_SECONDS = 60.0
"""How long `Locks.hold` waits for another holder."""
_POLL_SECONDS = 0.2


class Locks:
    """The locks of one store. Thread-safe; not reentrant.

    Args:
        uri: a directory, or a URI that LanceDB knows.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @contextmanager
    def hold(self, name: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Be the only holder of a lock while the block runs; waits for another holder to end.

        Raises:
            StoreError: another holder kept it for longer than ``wait_seconds``, or the store cannot
                be written.
        """
        with self._held(name, wait_seconds) as held:
            if not held:
                raise StoreError(
                    Message(
                        "Another process has kept the lock {name} of the store for "
                        "{wait_seconds:.0f} s.",
                        name=name,
                        wait_seconds=wait_seconds,
                    ),
                    Message(
                        "Try again when it has ended; in a bucket, the lock of a process that "
                        "died is free after {lease_seconds:.0f} s.",
                        lease_seconds=LEASE_SECONDS,
                    ),
                )
            yield

    @contextmanager
    def hold_if_free(self, name: str, wait_seconds: float = 0.0) -> Iterator[bool]:
        """Hold a lock while the block runs, or say that another does, after ``wait_seconds``.

        Returns:
            Whether the lock is held.

        Raises:
            StoreError: the store cannot be written.
        """
        with self._held(name, wait_seconds) as held:
            yield held

    @contextmanager
    def _held(self, name: str, wait_seconds: float) -> Iterator[bool]:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        if "://" in self._uri:
            with _leased(self._uri, f"locks/{digest}.json", wait_seconds) as held:
                yield held
            return
        folder = Path(self._uri) / "locks"
        with store_errors(self._uri, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{digest}.lock", mode=0o600)
            with suppress(Timeout):
                lock.acquire(timeout=wait_seconds)
        try:
            yield lock.is_locked
        finally:
            lock.release()


@contextmanager
def _leased(uri: str, path: str, wait_seconds: float) -> Iterator[bool]:
    """Hold a lease while the block runs; gives whether it could be had in time."""
    from obstore.exceptions import BaseError

    deadline = time.monotonic() + wait_seconds
    try:
        lease = Lease(uri, path)
        while not (held := lease.take()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(
            Message(
                "The store at {uri} cannot be locked: {error}.", uri=uri, error=first_line(error)
            ),
            Message(
                "Check that the bucket is there. Give the keys to it in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or by the machine's role (profiles are not read), and its "
                "region in AWS_REGION. Its server must know conditional writes."
            ),
        ) from error
    if not held:
        yield False
        return
    stopped, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not lost.is_set() and not stopped.wait(LEASE_SECONDS / 4):
            # While the bucket does not answer for a moment, most of the lease is still left.
            with suppress(BaseError, OSError):
                if not lease.renew():
                    lost.set()

    keeper = threading.Thread(target=renew, name="lease", daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        stopped.set()
        keeper.join()
        # What cannot be released now expires by itself.
        with suppress(BaseError, OSError):
            lease.release()
    if lost.is_set():
        raise StoreError(
            Message(
                "A lock of the store at {uri} was lost to another process while it was held.",
                uri=uri,
            ),
            Message("Set the clocks of all machines, then repeat what was asked for."),
        )
