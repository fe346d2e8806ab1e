"""Records of a release whose keys in Redis named no installation, brought under this one's keys."""

from __future__ import annotations

import logging

from redis import Redis

from jobs import queue

log = logging.getLogger(__name__)

_FORMER = frozenset(
    {"active", "due", "due-known", "project", "run", "tending", "training", "trainings"}
)
"""What followed the prefix of a key."""


def adopt_former_keys(connection: Redis) -> int:
    """Take over the runs, trainings and schedule that a former release has left.

    Its jobs are deleted: the reconciler enqueues those of runs that have not ended. May be
    interrupted and repeated.

    Args:
        connection: to Redis, with the id of this installation.

    Returns:
        Number of keys that were taken over.

    Raises:
        RedisError: Redis is away.
    """
    former = Redis(connection_pool=connection.connection_pool)
    adopted = 0
    for old in list(connection.scan_iter(f"{queue.PREFIX}*", count=1000)):
        name = old.decode(errors="replace").removeprefix(queue.PREFIX)
        if name.partition(":")[0] not in _FORMER:
            continue
        new = queue.key(connection, name)
        kind = connection.type(old)
        # The backend may have recorded events before this worker was started.
        if kind == b"zset":
            connection.zunionstore(new, [new, old], aggregate="MIN")
        elif kind == b"set":
            connection.sunionstore(new, [new, old])
        else:
            connection.renamenx(old, new)
        connection.delete(old)
        adopted += 1
    if adopted:
        log.warning("records of a former release that are taken over: %d", adopted)
        for name in queue.QUEUES:
            jobs = queue.queue(former, name)
            for job_id in [*jobs.get_job_ids(), *jobs.started_job_registry.get_job_ids()]:
                queue.remove(former, name, job_id)
    return adopted
