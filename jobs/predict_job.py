"""A run's jobs in the queue: the steps of `jobs.pipeline` and `jobs.publish`, one job each.

Each may be repeated at any time: what is embedded is in the store, what is imported is in Label
Studio, and only the difference is done. A job that raises is retried later (`jobs.reconciler`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError
from rq import Retry

from backend import telemetry
from backend.errors import ClipError, ImageError, ImageReason, QueueError, StoreError
from backend.labelstudio.failures import UnansweredError
from backend.messages.message import Message
from backend.runtime import Runtime, process_runtime
from backend.storage.maintenance import dedupe
from jobs import project_lock, queue, schedule
from jobs.enqueue import enqueue_finish_if_complete, enqueue_shard, shard_id
from jobs.listing import tasks_by_image
from jobs.pipeline import StoppedError, embed_shard, list_shards, require_same_encoder
from jobs.publish import promote
from jobs.run import ENDED, Run, RunState, Trigger
from jobs.run_files import RunFiles, erase_ended
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.shutdown import stop_requested
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

CAREFUL_AFTER = 3
"""Failures after which a shard is embedded image by image, to find the one that kills workers."""
RETRIED = (UnansweredError, StoreError, QueueError, RedisError)


def plan(run_id: str) -> Retry | None:
    """List the project's tasks once, cut them into shards, and enqueue each as it comes.

    When repeated, it goes on after the last task that is in a shard.
    """
    try:
        _plan(run_id)
    except StoppedError:
        return _stopped(f"run {run_id}: its listing")
    return None


def _plan(run_id: str) -> None:
    with _job(run_id, RunState.LISTING) as (runs, run):
        if run is None:
            return
        runtime = process_runtime()
        _sweep(runs, runtime)
        files = RunFiles(runtime.store.artifacts, run_id)
        for number, tasks in list_shards(runs, run, runtime, files):
            images = [*tasks_by_image(tasks)]
            if runtime.embedder.needs_nothing(images, revalidate=run.revalidate):
                # Faster done here than enqueued, and Label Studio lists on meanwhile.
                embed_shard(runs, runs.get(run_id) or run, runtime, files, number, stored=True)
            else:
                enqueue_shard(runs, run_id, number)
        listed = runs.get(run_id) or run
        log.info("run %s: tasks: %d, shards: %d", run_id, listed.listed, listed.shards)
        if not runs.move(run_id, RunState.EMBEDDING):
            raise StoppedError
        enqueue_finish_if_complete(runs, run_id)


def embed(run_id: str, number: int) -> Retry | None:
    """Make sure that the store has the embeddings of a shard's images."""
    try:
        with _job(run_id) as (runs, run):
            if run is not None:
                with telemetry.SHARD_SECONDS.time():
                    _embed(runs, run, number)
                enqueue_finish_if_complete(runs, run_id)
    except StoppedError:
        return _stopped(f"run {run_id} shard {number}")
    return None


def sweep() -> None:
    """Delete the files of runs that have ended."""
    runtime = process_runtime()
    _sweep(RunStore(queue.connect(runtime.settings, retries=8)), runtime)


def _stopped(what: str) -> Retry | None:
    """Put the job back into the queue, unless the run has ended; embeddings so far are stored."""
    if not stop_requested():
        sweep()
        return None
    log.info("%s stopped between two batches", what)
    return Retry(max=1_000_000, enqueue_at_front=True)


def finish(run_id: str) -> None:
    """Score everything, import what Label Studio lacks, verify it, and show it."""
    with _job(run_id, RunState.IMPORTING) as (runs, run):
        if run is None:
            return
        runtime = process_runtime()
        require_same_encoder(runtime, run)
        with project_lock.importing(runs.connection, run.project):
            promote(runs, run, runtime, RunFiles(runtime.store.artifacts, run_id))
        if run.head and runtime.versions.heads.serving(run.key) == run.head:
            trainings = TrainingStore(runs.connection)
            accepted = runtime.versions.heads.candidate(run.key)
            trainings.note(run.project, refreshed=time.time(), candidate=accepted)
            if accepted:
                # Another head was accepted meanwhile and still waits.
                schedule.add(runs.connection, Kind.REFRESH, run.project, time.time())
            if run.trigger != Trigger.TRAINING:
                # A rollback: reconciling makes it last.
                schedule.add(runs.connection, Kind.RECONCILE, run.project, time.time())
        runs.end(run_id, RunState.DONE)
        if run.trigger not in {Trigger.CONNECT, Trigger.TRAINING}:
            # The one refreshes the round itself, the other brings no tasks.
            schedule.add(runs.connection, Kind.ADDED, run.project, time.time())
        moment = time.time() + runtime.settings.reconcile_every
        schedule.add(runs.connection, Kind.RECONCILE, run.project, moment)
        _maintain_store(runs, runtime)


@contextmanager
def _job(run_id: str, state: RunState | None = None) -> Iterator[tuple[RunStore, Run | None]]:
    """The run, moved to a state; None if it has ended. Errors inside are recorded in the run."""
    runtime = process_runtime()
    runs = RunStore(queue.connect(runtime.settings, retries=8))
    run = runs.get(run_id)
    if (
        run is None
        or run.state in ENDED
        or (state is not None and not runs.move(run_id, state, blocked_on=""))
    ):
        yield runs, None
        return
    try:
        yield runs, run
    except RETRIED as error:
        with suppress(RedisError):
            runs.note(run_id, blocked_on=error.in_words(runtime.settings.language))
        raise
    except ClipError as error:
        log.error("run %s has failed: %s", run_id, error)
        runs.end(run_id, RunState.FAILED, error)
        _sweep(runs, runtime)


def _embed(runs: RunStore, run: Run, number: int) -> None:
    runtime = process_runtime()
    files = RunFiles(runtime.store.artifacts, run.id)
    unusable: dict[str, ImageError] = {}
    if runs.attempts(run.id, shard_id(run.id, number)) >= CAREFUL_AFTER:
        require_same_encoder(runtime, run)
        unusable = _one_by_one(runs, run, number, [*tasks_by_image(files.tasks(number))])
    failed = embed_shard(runs, run, runtime, files, number, unusable=unusable)
    for task, error in failed.items():
        log.warning("run %s shard %d task %d: %s", run.id, number, task, error)


def _one_by_one(
    runs: RunStore, run: Run, number: int, images: Sequence[str]
) -> dict[str, ImageError]:
    """Embed images singly, each recorded before it is touched; what killed a worker is left out."""
    embedder = process_runtime().embedder
    failures: dict[str, ImageError] = {}
    deadly = runs.deadly(run.id, number)
    for value in images:
        address = embedder.address(value)
        if address in deadly:
            failures[value] = ImageError(
                ImageReason.WORKER_DIED,
                Message("The worker's process died each time it processed this image."),
                Message(
                    "Save the image again with an image editor; the worker's log may tell more."
                ),
            )
            continue
        runs.hold(run.id, number, address)
        failures |= embedder.fill([value], revalidate=run.revalidate).failures
        runs.hold(run.id, number, None)
        if stop_requested():
            raise StoppedError
    return failures


def _maintain_store(runs: RunStore, runtime: Runtime) -> None:
    """Clean the store up after a run; it does no harm if this fails."""
    _sweep(runs, runtime)
    encoder = runtime.encoder
    try:
        deleted = dedupe(runtime.store, encoder.id, encoder.dim)
    except StoreError as error:
        log.warning("the store was not deduplicated: %s", error)
    else:
        log.info("the store is deduplicated; duplicate rows deleted: %d", deleted)


def _sweep(runs: RunStore, runtime: Runtime) -> None:
    """Delete the files of runs that have ended; they may hold images as ``data:`` URIs."""
    try:
        erase_ended(runtime.store.artifacts, runs)
    except StoreError as error:
        log.warning("files of ended runs were not deleted: %s", error)
