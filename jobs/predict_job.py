"""A run's jobs: list the tasks and cut them into shards, embed each shard, import everything.

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
from backend.errors import ClipError, ImageError, ImageReason, QueueError, SettingsError, StoreError
from backend.inference.embedder import Filled
from backend.inference.predictor import Predictor
from backend.inference.versions import STATISTICS_UP_TO
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.importing import predicted
from backend.labelstudio.projects import project_key
from backend.labelstudio.transport import UnansweredError
from backend.runtime import Runtime, process_runtime
from backend.storage.maintenance import dedupe
from backend.storage.tables import chunks
from jobs import project_lock, queue, schedule
from jobs.enqueue import enqueue_finish_if_complete, enqueue_shard, shard_id
from jobs.listing import prefetched, tasks_by_image, tasks_in_scope
from jobs.publish import promote, require_labels_of
from jobs.run import ENDED, Run, RunState, Scope, Shard, Trigger
from jobs.run_files import RunFiles, erase_ended
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.shutdown import stop_requested
from jobs.training_state import TrainingStore

log = logging.getLogger(__name__)

CAREFUL_AFTER = 3
"""Failures after which a shard is embedded image by image, to find the one that kills workers."""
OUTAGE_REASONS = frozenset(
    {
        ImageReason.UNREACHABLE,
        ImageReason.TIMEOUT,
        ImageReason.HTTP_STATUS,
        ImageReason.LABEL_STUDIO,
    }
)
"""Failures of images that may come from an outage of Label Studio; the last: no access token."""
RETRIED = (UnansweredError, StoreError, QueueError, RedisError)


class _StoppedError(Exception):
    """The worker was asked to stop, or the run has ended."""


def plan(run_id: str) -> Retry | None:
    """List the project's tasks once, cut them into shards, and enqueue each as it comes.

    When repeated, it goes on after the last task that is in a shard.
    """
    try:
        _plan(run_id)
    except _StoppedError:
        return _stopped(f"run {run_id}: its listing")
    return None


def _plan(run_id: str) -> None:
    with _job(run_id, RunState.LISTING) as (runs, run):
        if run is None:
            return
        runtime = process_runtime()
        studio = LabelStudioClient(runtime.settings)
        project = studio.projects.get(run.project)
        config = parse_config(project["label_config"])
        config.require_controls()
        _sweep(runs, runtime)
        key = project_key(project)
        if run.planned_version:
            require_labels_of(run, config)
            _require_the_same_encoder(runtime, run)
        current = runtime.versions.get(config, key, run.head or None)
        version = run.planned_version or current.name
        skipped = set() if run.scope == Scope.ALL else predicted(studio, run.project, version)
        runs.note(
            run_id,
            config=config.digest,
            key=key,
            encoder=runtime.encoder.id,
            planned_version=version,
            model_version=version,
            left_out=len(skipped),
        )
        planned = runs.get(run_id) or run
        files = RunFiles(runtime.store, run_id)
        files.write_config(project["label_config"])
        before = runs.shards(run_id)
        number, listed = len(before), sum(shard.tasks for shard in before)
        tasks = tasks_in_scope(
            studio,
            run.project,
            run.scope,
            config,
            skipped,
            known_field=current.known_field,
            after=files.tasks(number - 1)[-1]["id"] if before else 0,
        )
        for shard in prefetched(chunks(tasks, runtime.settings.shard_size)):
            if stop_requested() or runs.state(run_id) != RunState.LISTING:
                raise _StoppedError
            files.write_tasks(number, shard)
            runs.add_shard(run_id, Shard(number=number, tasks=len(shard)))
            listed += len(shard)
            runs.note(run_id, listed=listed)
            if runtime.embedder.has_all([*tasks_by_image(shard)]):
                # Faster done here than enqueued, and Label Studio lists on meanwhile.
                _embed(runs, planned, number, stored=True)
            else:
                enqueue_shard(runs, run_id, number)
            number += 1
        log.info("run %s: %d tasks in %d shards", run_id, listed, number)
        if not runs.move(run_id, RunState.EMBEDDING):
            raise _StoppedError
        enqueue_finish_if_complete(runs, run_id)


def embed(run_id: str, number: int) -> Retry | None:
    """Make sure that the store has the embeddings of a shard's images."""
    try:
        with _job(run_id) as (runs, run):
            if run is not None:
                with telemetry.SHARD_SECONDS.time():
                    _embed(runs, run, number)
                enqueue_finish_if_complete(runs, run_id)
    except _StoppedError:
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
        _require_the_same_encoder(runtime, run)
        with project_lock.importing(runs.connection, run.project):
            promote(runs, run, runtime)
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
            runs.note(run_id, blocked_on=str(error))
        raise
    except ClipError as error:
        log.error("run %s has failed: %s", run_id, error)
        runs.end(run_id, RunState.FAILED, error)
        _sweep(runs, runtime)


def _embed(runs: RunStore, run: Run, number: int, stored: bool = False) -> None:
    """With ``stored`` the store is known to have all of the shard's embeddings."""
    runtime = process_runtime()
    _require_the_same_encoder(runtime, run)
    files = RunFiles(runtime.store, run.id)
    tasks = files.tasks(number)
    images = tasks_by_image(tasks)
    runtime.prediction_log.link_images(
        run.key,
        ((task, runtime.embedder.address(value)) for value, of in images.items() for task in of),
    )
    recorded = next((shard for shard in runs.shards(run.id) if shard.number == number), None)
    before = recorded.embedded if recorded is not None else 0

    def step(cached: int, done: int, failed: int) -> None:
        now = Shard(
            number=number,
            tasks=len(tasks),
            embedded=before + done,
            cached=max(0, cached - before),
            failed=failed,
        )
        if runs.progress(run.id, now) in ENDED or stop_requested():
            raise _StoppedError

    failures: dict[str, ImageError] = {}
    if runs.attempts(run.id, shard_id(run.id, number)) >= CAREFUL_AFTER:
        failures = _one_by_one(runs, run, number, list(images))
    filled = Filled(0, len(images), {})
    if not stored:
        filled = runtime.embedder.fill([value for value in images if value not in failures], step)
    failures |= filled.failures
    unreached = [value for value, error in failures.items() if error.reason in OUTAGE_REASONS]
    if unreached:
        # If Label Studio is away, this raises, and the shard is retried with these images.
        LabelStudioClient(runtime.settings).version()
        for value in unreached:
            del failures[value]
        failures |= runtime.embedder.fill(unreached).failures
    failed = {task: error for value, error in failures.items() for task in images[value]}
    for task, error in failed.items():
        log.warning("run %s shard %d task %d: %s", run.id, number, task, error)
    runs.record_failures(run.id, {task: error.as_dict() for task, error in failed.items()})
    _score_early(runtime, run, number, files)
    cached = max(0, filled.cached - before)
    embedded = len(images) - len(failures) - cached
    now = Shard(
        number=number,
        tasks=len(tasks),
        embedded=embedded,
        cached=cached,
        failed=len(failures),
        done=True,
    )
    if runs.progress(run.id, now) in ENDED:
        raise _StoppedError


def _score_early(runtime: Runtime, run: Run, number: int, files: RunFiles) -> None:
    """Compute a shard's predictions now, if nothing can change the version any more.

    Then only the import is left when the last shard is done.
    """
    config, tasks, versions = files.config(), files.tasks(number), runtime.versions
    if number == 0 and len(tasks) >= STATISTICS_UP_TO:
        # What `promote` would take: the run's first tasks.
        versions.freeze_statistics(config, run.key, tasks, runtime.embedder.stored)
    if versions.is_settled(config, run.key):
        version = versions.get(config, run.key, run.head or None)
        made = Predictor(version, runtime.embedder).predict_stored(tasks)
        files.write_predictions(number, version.name, made)


def _require_the_same_encoder(runtime: Runtime, run: Run) -> None:
    if run.encoder != runtime.encoder.id:
        raise SettingsError(
            f"The run was begun with {run.encoder}, and this worker has {runtime.encoder.id}.",
            "Give all workers the same LS_CLIP_ENCODER, LS_CLIP_REGIONS and LS_CLIP_PRECISION "
            "(set it to float32 where some have a GPU and some have not).",
        )


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
                "The worker's process died whenever it touched this image.",
                "Save the image anew with an image editor; the worker's log may tell more.",
            )
            continue
        runs.hold(run.id, number, address)
        failures |= embedder.fill([value]).failures
        runs.hold(run.id, number, None)
        if stop_requested():
            raise _StoppedError
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
        log.info("the store is deduplicated; %d duplicate rows deleted", deleted)


def _sweep(runs: RunStore, runtime: Runtime) -> None:
    """Delete the files of runs that have ended; they may hold images as ``data:`` URIs."""
    try:
        erase_ended(runtime.store, {run.id for run in runs.active()})
    except StoreError as error:
        log.warning("files of ended runs were not deleted: %s", error)
