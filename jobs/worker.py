"""Workers: a process that keeps the encoder and takes jobs, and a supervisor that watches it.

RQ's own worker forks for each job, which breaks CUDA and loads the model anew. So jobs run in the
worker's process, a thread sends its heartbeat, and a light parent process replaces it after
``LS_CLIP_WORKER_JOBS`` jobs or when it dies. The parent also reconciles runs (`jobs.reconciler`),
whatever the child is busy with.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute
from rq.worker import WorkerStatus
from rq.worker_registration import register

from backend import telemetry
from backend.errors import ClipError, QueueError, SettingsError
from backend.heap import use_one_heap
from backend.messages.message import Message
from backend.processes import die_with_parent
from backend.settings import Settings
from jobs import queue
from jobs.enqueue import FUNCTIONS
from jobs.key_migration import adopt_former_keys
from jobs.queue import as_queue_error
from jobs.reconciler import EVERY_SECONDS, reconcile
from jobs.shutdown import request_stop

log = logging.getLogger("jobs.worker")
"""By name, because the module also runs as ``__main__``."""

HEARTBEAT_SECONDS = 10
JOB_TTL = 35
"""Seconds without a heartbeat after which another worker takes a job over."""
WORKER_TTL = 30
START_FAILED = 4
"""The exit code of a worker whose restart would not help."""
RESTART_PAUSES = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Seconds before a process that died is replaced: longer each time it dies early."""
EARLY_SECONDS = 60.0


class KnownJob(queue.QuietJob):
    """Runs only this project's own jobs, because others may write to Redis."""

    @property
    def func(self) -> Any:
        """The job's function, from `jobs.enqueue.FUNCTIONS`.

        Raises:
            DeserializationError: the job is not one of ours.
        """
        if self.func_name not in FUNCTIONS:
            raise DeserializationError(f"{self.func_name} is no job of label-studio-clip")
        return import_attribute(FUNCTIONS[self.func_name])


class ClipWorker(SimpleWorker):
    """RQ's worker with a heartbeat during jobs and a prompt, clean stop."""

    job_class = KnownJob

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds without a heartbeat after which the job may be taken over."""
        return JOB_TTL

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Also registers the worker again if Redis was emptied."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None and not self.connection.hexists(self.key, "birth"):
            self.connection.hset(self.key, mapping=self.serialize())
            register(self)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job in this process while a thread sends heartbeats."""
        execution = self.prepare_execution(job)
        done = Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    self.maintain_heartbeats(job, execution)
                except RedisError as error:
                    log.warning("the job's heartbeat: %s", as_queue_error(error))

        heart = Thread(target=beat, daemon=True)
        heart.start()
        try:
            succeeded = self.perform_job(job, queue, execution)
        finally:
            done.set()
            heart.join()
        kind = job.id.split("-")[1] if "-" in job.id else "other"
        telemetry.JOBS.labels(kind, "done" if succeeded else "failed").inc()
        self.set_state(WorkerStatus.IDLE)

    def handle_warm_shutdown_request(self) -> None:
        """Called on SIGTERM: the running job ends at its next batch."""
        request_stop()
        super().handle_warm_shutdown_request()


def work(settings: Settings, names: Sequence[str]) -> None:
    """Take jobs until asked to stop, or until ``worker_jobs`` are done.

    Raises:
        ClipError: the encoder or the store cannot be used.
    """
    from backend.runtime import process_runtime

    if queue.PREDICT in names:
        log.info("loading the encoder %s", settings.encoder)
        encoder = process_runtime().encoder
        if encoder.advice:
            log.info("%s", encoder.advice)
        encoder.load()
    if settings.worker_metrics_port:
        _show_metrics(settings)
    connection = queue.connect(settings, retries=8)
    worker = ClipWorker(
        [queue.queue(connection, name) for name in names],
        connection=connection,
        serializer=JSONSerializer,
        worker_ttl=WORKER_TTL,
        job_monitoring_interval=HEARTBEAT_SECONDS,
        log_job_description=False,
    )
    log.info("worker %s listens on %s", worker.name[:8], ", ".join(names))
    worker.work(max_jobs=settings.worker_jobs, logging_level="WARNING")


def _show_metrics(settings: Settings) -> None:
    from prometheus_client import start_http_server

    try:
        start_http_server(settings.worker_metrics_port, settings.host)
    except OSError as error:
        raise SettingsError(
            Message(
                "LS_CLIP_WORKER_METRICS_PORT={worker_metrics_port} cannot be used: {strerror}.",
                worker_metrics_port=settings.worker_metrics_port,
                strerror=error.strerror,
            ),
            Message("Give each worker of a machine a port of its own, or 0."),
        ) from error


def supervise(settings: Settings, names: Sequence[str], overrides: Mapping[str, str]) -> int:
    """Keep one worker process running until asked to stop, and reconcile all runs meanwhile.

    Args:
        settings: of this process.
        names: queues to listen on, in order of priority.
        overrides: environment variables for the worker on top of our own.

    Returns:
        The exit code.

    Raises:
        QueueError: Redis cannot be reached at the start.
    """
    connection = queue.connect(settings)
    with queue.explained():
        connection.ping()
        adopt_former_keys(connection)
    stop = Event()
    with _on_signals(stop):
        deaths = 0
        while not stop.wait(RESTART_PAUSES[min(deaths, len(RESTART_PAUSES) - 1)]):
            started = time.monotonic()
            child = _spawn(names, overrides)
            try:
                while child.poll() is None and not stop.wait(EVERY_SECONDS / 5):
                    _reconcile(connection, settings)
            finally:
                _end(child, settings.worker_grace)
            if child.returncode == START_FAILED:
                return 1
            if not stop.is_set() and child.returncode != 0:
                log.error("the worker process died (%s); it is replaced", child.returncode)
            early = time.monotonic() - started < EARLY_SECONDS
            deaths = (deaths + 1 if child.returncode else 1) if early else 0
    return 0


def _spawn(names: Sequence[str], overrides: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A fresh interpreter: neither CUDA nor LanceDB survives a fork."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.worker", *names],
        env={**os.environ, **overrides},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        log.warning("the worker did not stop within %.0f s and is killed", grace)
        child.kill()
        child.wait()


def _reconcile(connection: Any, settings: Settings) -> None:
    try:
        reconcile(connection, settings)
    except RedisError as error:
        log.warning("runs cannot be reconciled now: %s", queue.as_queue_error(error))
    except QueueError as error:
        log.error("runs could not be reconciled: %s", error)
    except Exception:
        log.exception("runs could not be reconciled")


@contextmanager
def _on_signals(stop: Event) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """The worker process: ``python -m jobs.worker QUEUE ...``."""
    from backend.logs import configure_logging
    from backend.settings import settings

    use_one_heap()
    configure_logging(settings())
    try:
        work(settings(), sys.argv[1:])
    except (QueueError, RedisError) as error:
        log.error("%s", error)
        return 1
    except ClipError as error:
        log.error("%s", error)
        return START_FAILED
    return 0


if __name__ == "__main__":
    code = main()
    # Not above: the supervisor needs no store.
    from backend.storage.compaction import FINISH_SECONDS, finish_compactions

    finish_compactions(FINISH_SECONDS)
    logging.shutdown()
    # Threads inside the model's libraries may abort a normal exit.
    os._exit(code)
