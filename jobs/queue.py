"""Names of the queues, and how jobs get into them. Imports settings and errors, nothing heavier.

Everything in Redis is JSON. RQ's default is pickle, which would run the code of anyone who can
write to Redis (https://python-rq.org/docs/#considerations-for-jobs).
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry
from rq import Queue, Worker
from rq.exceptions import DuplicateJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from backend.errors import QueueError
from backend.messages.catalogue import Language
from backend.messages.message import Message
from backend.settings import Settings
from jobs.record import is_about_one_key

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFIX = "ls-clip:"
"""Of all our keys in Redis; RQ's begin with ``rq:``. The installation's id follows."""
PREDICT = "predict"
TRAIN = "train"
QUEUES = (PREDICT, TRAIN)
JOB_SECONDS = 2 * 3600
"""Time limit of a job; RQ's own default of 180 s is too short for a shard on a CPU."""
KEEP_SECONDS = 3600
"""How long RQ keeps a job that has ended; its result is in the run's record."""
ALIVE = frozenset({JobStatus.QUEUED, JobStatus.STARTED})
"""Of jobs that need not be enqueued again. Nothing of ours is scheduled or deferred by RQ."""
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ResponseError)
"""What RQ raises where a job in Redis is damaged."""
_READ_ITS_LOG = Message("Read the log of Redis; ls-clip doctor tries again.")
_REFUSALS: tuple[tuple[type[RedisError], str, str], ...] = (
    (
        OutOfMemoryError,
        Message("Redis has used up its memory and writes nothing more"),
        Message(
            "Raise its maxmemory, or give it a database of its own; its maxmemory-policy should "
            "be noeviction."
        ),
    ),
    (
        ReadOnlyError,
        Message("This Redis is a read-only replica"),
        Message("Set LS_CLIP_REDIS_URL to the primary."),
    ),
    (
        BusyLoadingError,
        Message("Redis is still loading its data"),
        Message("Wait until it has, then try again."),
    ),
    (
        AuthenticationError,
        Message("Redis refuses the user name or the password"),
        Message("Correct them in LS_CLIP_REDIS_URL: redis://USER:PASSWORD@HOST:6379/0."),
    ),
    (
        NoPermissionError,
        Message("The user of LS_CLIP_REDIS_URL may not use a command"),
        Message("Allow it all commands on the keys ls-clip:* and rq:* (ACL SETUSER)."),
    ),
    (
        MaxConnectionsError,
        Message("Redis has no connection left"),
        Message("Raise its maxclients."),
    ),
)
FIX = Message("Start Redis or Valkey, or correct LS_CLIP_REDIS_URL.")


class Connection(Redis):
    """A connection to Redis that knows whose keys it works with.

    Attributes:
        installation: id of the installation: several may use one Redis.
        language: of the texts for people that are kept in records.
    """

    installation = ""
    language = Language.ENGLISH


def key(connection: Redis, name: str) -> str:
    """A key of ours in Redis, which no other installation uses.

    Args:
        connection: from `connect`.
        name: of the key within the installation.
    """
    installation = _installation(connection)
    return f"{PREFIX}{installation}:{name}" if installation else PREFIX + name


def own_name(connection: Redis, name: str) -> str:
    """The name of a queue, or the id of a job that is no part of a run, in this installation.

    RQ's names and ids are shared by all that use a Redis.
    """
    installation = _installation(connection)
    return f"{name}-{installation}" if installation else name


def language(connection: Redis) -> Language:
    """Of the texts for people that are kept in records."""
    spoken: Language = getattr(connection, "language", Language.ENGLISH)
    return spoken


def _installation(connection: Redis) -> str:
    """The id of the installation; empty on the connection to a former release's keys."""
    return str(getattr(connection, "installation", ""))


def connect(settings: Settings, retries: int = 2) -> Connection:
    """The connection to Redis.

    Args:
        settings: ``redis_url``.
        retries: how often a command is repeated while Redis does not answer; 2 takes about a
            second, and 8 outlasts a restart.

    Raises:
        QueueError: no address is set, or it is not a valid one.
    """
    url = settings.redis_url.get_secret_value()
    if not url:
        raise QueueError(
            Message("No queue is set, so there are no runs and no workers."),
            Message(
                "Set LS_CLIP_REDIS_URL (redis://HOST:6379/0) for the backend and its workers; "
                "without one, ls-clip connect PROJECT predicts in its own process."
            ),
        )
    try:
        connection: Connection = Connection.from_url(
            url,
            socket_connect_timeout=2.0,
            retry=Retry(ExponentialWithJitterBackoff(cap=10.0, base=0.3), retries),
            retry_on_error=[ConnectionError, TimeoutError, BusyLoadingError],
        )
        # An option that redis-py does not know is otherwise found at the first command.
        pool = connection.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        # The error's text may contain a part of the password.
        raise QueueError(Message("LS_CLIP_REDIS_URL cannot be read."), FIX) from error
    connection.installation = settings.installation_id
    connection.language = settings.language
    return connection


def place(settings: Settings) -> str:
    """Host and port of Redis, without user and password, for messages."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    return f"{parts.hostname or parts.path}:{parts.port or 6379}"


class QuietJob(Job):
    """Calls nobody back: whom, is written in Redis, to which others may write."""

    success_callback = failure_callback = stopped_callback = None

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Sends none."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of Redis into one that names the fix.

    Raises:
        QueueError: Redis does not answer, or refuses.
    """
    try:
        yield
    except RedisError as error:
        raise as_queue_error(error) from error


def as_queue_error(error: RedisError) -> QueueError:
    """An error of Redis as one that says what it refused, and names the fix."""
    for kind, message, fix in _REFUSALS:
        if isinstance(error, kind):
            return QueueError(Message("{message} ({error}).", message=message, error=error), fix)
    if isinstance(error, ResponseError):
        return QueueError(Message("Redis refuses a command ({error}).", error=error), _READ_ITS_LOG)
    return QueueError(
        Message("Redis does not answer ({kind}: {error}).", kind=type(error).__name__, error=error),
        FIX,
    )


def queue(connection: Redis, name: str) -> Queue:
    """One of `QUEUES`, of the installation."""
    return Queue(
        own_name(connection, name),
        connection=connection,
        job_class=QuietJob,
        serializer=JSONSerializer,
        default_timeout=JOB_SECONDS,
    )


def enqueue(connection: Redis, name: str, function: str, *arguments: object, job_id: str) -> bool:
    """Put a job into a queue, unless one of this id is there already.

    Args:
        connection: to Redis.
        name: one of `QUEUES`.
        function: its import path below ``jobs``; the worker runs no other.
        arguments: JSON-able.
        job_id: letters, digits, ``-`` and ``_``.

    Returns:
        Whether it was put there.
    """
    try:
        queue(connection, name).enqueue_call(
            function,
            args=arguments,
            job_id=job_id,
            result_ttl=KEEP_SECONDS,
            failure_ttl=KEEP_SECONDS,
            unique=True,
        )
    except DuplicateJobError:
        return False
    return True


def statuses(connection: Redis, name: str, job_ids: Sequence[str]) -> dict[str, JobStatus]:
    """Job id -> its status in RQ.

    Left out are unknown jobs, and those that a worker took from the queue and died before it began.
    """
    waiting = set(queue(connection, name).get_job_ids())
    known = {job.id: job.get_status(refresh=False) for job in _jobs(connection, job_ids)}
    return {
        job_id: status
        for job_id, status in known.items()
        if status != JobStatus.QUEUED or job_id in waiting
    }


def _jobs(connection: Redis, job_ids: Sequence[str]) -> list[Job]:
    """Those that are known; what cannot be read is no job, and is deleted."""
    try:
        jobs = Job.fetch_many(job_ids, connection=connection, serializer=JSONSerializer)
    except _UNREADABLE:
        jobs = [_job(connection, job_id) for job_id in job_ids]
    return [job for job in jobs if job is not None]


def _job(connection: Redis, job_id: str) -> Job | None:
    try:
        (job,) = Job.fetch_many([job_id], connection=connection, serializer=JSONSerializer)
    except _UNREADABLE as error:
        if isinstance(error, ResponseError) and not is_about_one_key(error):
            raise
        log.error("the job %s cannot be read, and is deleted: %s", job_id, error)
        connection.delete(Job.key_for(job_id))
        return None
    return job


def remove(connection: Redis, name: str, job_id: str) -> None:
    """Delete a job from the queue and from RQ's registries; one that is running goes on."""
    jobs = queue(connection, name)
    # Else RQ, ten minutes later, calls the next job of this id failed: left there by a worker that
    # died while it took the job.
    jobs.intermediate_queue.remove(job_id)
    connection.delete(jobs.intermediate_queue.get_first_seen_key(job_id))
    job = _job(connection, job_id)
    if job is not None:
        # RQ lists an execution for a minute longer than it keeps it, and trips over the difference
        # when the worker has died.
        job.execution_registry.cleanup(time.time() + 60)
        job.delete()


def depth(connection: Redis, name: str) -> int:
    """Jobs that wait in a queue."""
    return int(queue(connection, name).count)


def workers(connection: Redis, name: str) -> int:
    """Live workers that listen on a queue."""
    return len(Worker.all(queue=queue(connection, name), serializer=JSONSerializer))
