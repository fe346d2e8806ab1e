"""What all processes must agree on about a project: what it shows, and who is importing into it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from jobs.queue import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS = 60


def current_version(connection: Redis, project: int) -> str:
    """The version that was last made complete and shown; empty if there is none."""
    value = connection.get(f"{PREFIX}project:{project}:version")
    return value.decode() if value is not None else ""


def set_config(connection: Redis, project: int, config: str) -> None:
    """Set the digest of the config that is predicted for."""
    connection.set(f"{PREFIX}project:{project}:config", config)


def set_current(connection: Redis, project: int, model_version: str) -> None:
    """The last step of a promotion: what is shown."""
    connection.set(f"{PREFIX}project:{project}:version", model_version)


def current_config(connection: Redis, project: int) -> str:
    """Digest of the labeling config that is predicted for; empty if there is none."""
    value = connection.get(f"{PREFIX}project:{project}:config")
    return value.decode() if value is not None else ""


@contextmanager
def importing(connection: Redis, project: int) -> Iterator[None]:
    """Be the only one that imports into a project; waits for whoever does so now.

    The lock of a process that died is free after a minute.
    """
    name = f"{PREFIX}project:{project}:importing"
    lock = connection.lock(name, timeout=LOCK_SECONDS, thread_local=False)
    lock.acquire()
    stopped = Event()

    def keep() -> None:
        while not stopped.wait(LOCK_SECONDS / 4):
            # While Redis is away for a moment, the lock still has most of its minute.
            with suppress(RedisError):
                lock.reacquire()

    keeper = Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stopped.set()
        keeper.join()
        # It runs out by itself.
        with suppress(RedisError):
            lock.release()
