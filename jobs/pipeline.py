"""The first steps of a run, whoever carries it out: list the tasks in shards, embed each shard.

The last one is `jobs.publish.promote`. Each step may be repeated at any time: what is embedded is
in the store, and only the difference is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from backend.errors import ImageError, ImageReason, SettingsError
from backend.inference.confidence_freezing import freeze_confidences
from backend.inference.embedder import Filled
from backend.inference.frozen_statistics import UP_TO as STATISTICS_UP_TO
from backend.inference.model_version import ModelVersion
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.importing import predicted
from backend.labelstudio.projects import project_key
from backend.messages.message import Message
from backend.runtime import Runtime
from backend.storage.project_state import ProjectState
from backend.storage.region_codes import present_id
from backend.storage.score_files import ScoreFiles
from backend.storage.tables import chunks
from jobs.listing import (
    Task,
    link_images,
    prefetched,
    still_there,
    tasks_by_image,
    tasks_in_scope,
    to_predict,
)
from jobs.publish import require_labels_of
from jobs.run import ENDED, Run, RunState, Scope, Shard
from jobs.run_files import RunFiles
from jobs.run_log import RunLog
from jobs.score_keeping import scores_of, tasks_to_score
from jobs.shutdown import stop_requested

OUTAGE_REASONS = frozenset(
    {
        ImageReason.UNREACHABLE,
        ImageReason.TIMEOUT,
        ImageReason.HTTP_STATUS,
        ImageReason.LABEL_STUDIO,
    }
)
"""Failures of images that may come from an outage of Label Studio; the last: no access token."""


class StoppedError(Exception):
    """The worker was asked to stop, or the run has ended."""


def list_shards(
    runs: RunLog, run: Run, runtime: Runtime, files: RunFiles
) -> Iterator[tuple[int, list[Task]]]:
    """List the tasks that a run is about once, and cut them into shards.

    When repeated, it goes on after the last task that is in a shard.

    Yields:
        The number and the tasks of each shard once it is recorded; the next ones are listed
        meanwhile.

    Raises:
        LabelConfigError: the labels were changed since the run began, or there are none for us.
        SettingsError: the run was begun with another encoder.
        StudioError: Label Studio refuses, or does not answer.
        StoreError: the store cannot be read or written.
        StoppedError: see there.
    """
    studio = LabelStudioClient(runtime.settings)
    project = studio.projects.get(run.project)
    config = parse_config(project["label_config"])
    config.require_controls()
    key = project_key(project)
    # What is reviewed before a label is known to exist says nothing about it.
    state = ProjectState(runtime.store, key)
    state.labels_since(config.label_keys(), time.time(), config.conditions())
    if run.planned_version:
        require_labels_of(run, config)
        require_same_encoder(runtime, run)
    current = runtime.versions.get(config, key, run.head or None)
    version = run.planned_version or current.name
    skipped = set() if run.scope == Scope.ALL else predicted(studio, run.project, version)
    log = runtime.prediction_log
    to_score = tasks_to_score(config, ScoreFiles(runtime.store).tasks(key, version), log.tasks(key))
    runs.note(
        run.id,
        config=config.digest,
        key=key,
        encoder=runtime.encoder.id,
        planned_version=version,
        model_version=version,
        left_out=len(skipped),
    )
    files.write_config(project["label_config"])
    before = runs.shards(run.id)
    number, listed = len(before), sum(shard.tasks for shard in before)
    tasks = tasks_in_scope(
        studio,
        run.project,
        run.scope,
        config,
        skipped,
        to_score=to_score,
        known_field=current.known_field,
        after=files.tasks(number - 1)[-1]["id"] if before else 0,
    )
    for shard in prefetched(chunks(tasks, runtime.settings.shard_size)):
        if stop_requested() or runs.state(run.id) != RunState.LISTING:
            raise StoppedError
        files.write_tasks(number, shard)
        # The others have been linked before.
        link_images(log, key, runtime.embedder, to_predict(shard))
        count = len(to_predict(shard))
        runs.add_shard(run.id, Shard(number=number, tasks=count))
        listed += count
        runs.note(run.id, listed=listed)
        yield number, shard
        number += 1


def embed_shard(
    runs: RunLog,
    run: Run,
    runtime: Runtime,
    files: RunFiles,
    number: int,
    *,
    stored: bool = False,
    unusable: Mapping[str, ImageError] | None = None,
) -> dict[int, ImageError]:
    """Make sure that the store has the embeddings of a shard's images.

    Args:
        runs: where progress is recorded.
        run: whose shard, after its listing began.
        runtime: of this process.
        files: of the run.
        number: of the shard.
        stored: the store is known to have all of its embeddings.
        unusable: image address -> failure of images that are not to be touched.

    Returns:
        Task id -> why an image of it has no embedding.

    Raises:
        SettingsError: the run was begun with another encoder.
        StudioError: Label Studio does not answer, so that images of it may be missing.
        StoreError: the store cannot be read or written.
        StoppedError: see there.
    """
    require_same_encoder(runtime, run)
    embedder = runtime.embedder
    tasks = files.tasks(number)
    count = len(to_predict(tasks))
    if not all("only_scored" in task for task in tasks):
        # An earlier release has listed them, and linked nothing yet.
        link_images(runtime.prediction_log, run.key, embedder, tasks)
    tasks = still_there(runtime.prediction_log, run.key, tasks)
    images = tasks_by_image(to_predict(tasks))
    recorded = next((shard for shard in runs.shards(run.id) if shard.number == number), None)
    before = recorded.embedded if recorded is not None else 0

    def step(cached: int, done: int, failed: int) -> None:
        now = Shard(
            number=number,
            tasks=count,
            embedded=before + done,
            cached=max(0, cached - before),
            failed=failed,
            changed=0 if recorded is None else recorded.changed,
        )
        if runs.progress(run.id, now) in ENDED or stop_requested():
            raise StoppedError

    failures = dict(unusable or {})
    filled = Filled(0, len(images), {})
    if not stored:
        usable = [value for value in images if value not in failures]
        filled = embedder.fill(usable, step, revalidate=run.revalidate)
    failures |= filled.failures
    changed, revalidated = [*filled.changed], filled.revalidated
    unreached = [value for value, error in failures.items() if error.reason in OUTAGE_REASONS]
    if unreached:
        # If Label Studio is away, this raises, and the shard is repeated with these images.
        LabelStudioClient(runtime.settings).version()
        for value in unreached:
            del failures[value]
        again = embedder.fill(unreached, revalidate=run.revalidate)
        failures |= again.failures
        changed += again.changed
        revalidated += again.revalidated
    failed = {task: error for value, error in failures.items() for task in images[value]}
    language = runtime.settings.language
    runs.record_failures(run.id, {task: error.as_dict(language) for task, error in failed.items()})
    _score_early(runtime, run, files, number, tasks)
    cached = max(0, filled.cached - before)
    now = Shard(
        number=number,
        tasks=count,
        embedded=len(images) - len(failures) - cached,
        cached=cached,
        failed=len(failures),
        done=True,
        revalidated=revalidated,
        changed=files.add_changed(number, changed),
    )
    if runs.progress(run.id, now) in ENDED:
        raise StoppedError
    return failed


def _score_early(
    runtime: Runtime, run: Run, files: RunFiles, number: int, tasks: list[Task]
) -> None:
    """Compute a shard's predictions now, if nothing can change the version any more.

    Then only the import is left when the last shard is done.
    """
    config, versions = files.config(), runtime.versions
    listed = to_predict(tasks)
    if number == 0 and len(listed) >= STATISTICS_UP_TO:
        # What `promote` would take: the run's first tasks.
        versions.statistics.freeze(config, run.key, listed, runtime.embedder.stored)
        current = versions.get(config, run.key, run.head or None)
        freeze_confidences(versions, current, listed, runtime.embedder)
    version = versions.get(config, run.key, run.head or None)
    if (
        versions.statistics.is_complete(config, run.key)
        and version.is_settled
        and not _draws_a_bank(version)
    ):
        predictions = Predictor(version, runtime.embedder).predict_stored(tasks)
        files.write_scores(number, version.name, scores_of(version, predictions))
        wanted = {task["id"] for task in listed}
        files.write_predictions(
            number, version.name, [item for item in predictions if item.task in wanted]
        )


def _draws_a_bank(version: ModelVersion) -> bool:
    """Whether `promote` may draw a bank where there is none, so that the version changes."""
    return bool(version.statistics.keys() - version.banks.keys())


def require_same_encoder(runtime: Runtime, run: Run) -> None:
    """Refuse to go on with another encoder than the one that the run began with.

    Raises:
        SettingsError: this process has another one.
    """
    if run.encoder == runtime.encoder.id:
        return
    if present_id(run.encoder) == runtime.encoder.id:
        raise SettingsError(
            Message("The run was begun by an older release, whose embeddings differed a little."),
            Message("Ask for it again: ls-clip predict {project}.", project=run.project),
        )
    raise SettingsError(
        Message(
            "The run was begun with {encoder}, and this worker has {id}.",
            encoder=run.encoder,
            id=runtime.encoder.id,
        ),
        Message(
            "Give all workers the same LS_CLIP_ENCODER, LS_CLIP_REGIONS and LS_CLIP_PRECISION "
            "(set it to float32 where some have a GPU and some have not)."
        ),
    )
