"""One process at a time imports into a project: a lock in Redis that its holder renews."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from jobs.queue import key

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS = 60


@contextmanager
def importing(connection: Redis, project: int) -> Iterator[None]:
    """Be the only one that imports into a project; waits for whoever does so now.

    The lock of a process that died is released after `LOCK_SECONDS`.
    """
    name = key(connection, f"project:{project}:importing")
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
        # If Redis is away, the lock expires by itself.
        with suppress(RedisError):
            lock.release()
