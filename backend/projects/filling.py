"""Predictions for all tasks of a project: by the workers, or here where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import StudioError, as_text
from backend.inference.embedder import Embedder
from backend.inference.prediction import Prediction, logged
from backend.inference.predictor import Predictor
from backend.inference.task_images import image_of
from backend.labels.config import LabelConfig, parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.importing import Importer, duplicates_note, predicted, show
from backend.labelstudio.projects import project_key
from backend.logs import Progress
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.prediction_log import PredictionLog
from jobs import enqueue, queue
from jobs.polling import wait
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore

SHARD = 256
"""Tasks embedded or scored at once: bounds the memory, whatever the project's size."""
SHOWN = {"show_collab_predictions": True, "sampling": "Uncertainty sampling"}
"""A connected project's settings: boxes are ticked, and the least certain tasks come first."""

"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass
class FillReport:
    """What came of it.

    Attributes:
        tasks: tasks of the project.
        imported: predictions made by this call.
        predicted: tasks that have a prediction of ``model_version``.
        model_version: what the project now shows.
        failures: task id -> why it has no prediction, or only a part, and what mends that.
        warnings: what a person should know, one sentence each.
    """

    tasks: int = 0
    imported: int = 0
    predicted: int = 0
    model_version: str = ""
    failures: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def fill_by_workers(
    settings: Settings, studio: LabelStudioClient, number: int, progress: Progress
) -> FillReport:
    """Start a run and wait for its end; one that is going on already is waited for before.

    Raises:
        QueueError: Redis does not answer.
        StudioError: the run failed or was cancelled.
    """
    runs = RunStore(queue.connect(settings))

    def report(run: Run) -> None:
        if run.state == RunState.IMPORTING:
            progress("importing predictions", run.imported, max(run.listed - run.failed, 1))
        else:
            progress("embedding images", run.embedded + run.cached, max(run.listed, 1))

    run, is_new = enqueue.start_run(runs, number, Scope.MISSING, Trigger.CONNECT)
    while not is_new:
        # It may be about other tasks, or have listed them before the last ones came.
        wait(runs, run.id, report)
        run, is_new = enqueue.start_run(runs, number, Scope.MISSING, Trigger.CONNECT)
    run = wait(runs, run.id, report)
    if run.state != RunState.DONE:
        error = run.error or {"message": f"The run {run.id} was cancelled.", "fix": "Run it again."}
        raise StudioError(error["message"], error["fix"])
    failures = {task: as_text(why) for task, why in runs.failures(run.id).items()}
    tasks = int(studio.projects.get(number)["task_number"])
    if len(failures) < tasks:
        studio.projects.update(number, **SHOWN)
    there = studio.predictions.versions(number).get(run.model_version, 0)
    return FillReport(tasks, run.imported, there, run.model_version, failures, list(run.notes))


def fill_here(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    project: Mapping[str, Any],
    progress: Progress,
) -> FillReport:
    """Embed, score and import what is missing in this process.

    Raises:
        StudioError: Label Studio refuses a step, or lost predictions.
        StoreError: the store cannot be read or written.
    """
    number, key = int(project["id"]), project_key(project)
    config = parse_config(project["label_config"])
    tasks = list(studio.tasks.iterate(number))
    # Already predicted under today's version: nothing to fetch, encode or even load.
    there = predicted(studio, number, runtime.versions.get(config, key).name)
    _embed(runtime.embedder, config, _without(tasks, there), progress)
    runtime.versions.freeze_statistics(config, key, tasks, runtime.embedder.embed)
    predictor = Predictor(runtime.versions.get(config, key), runtime.embedder)
    version = predictor.version.name
    importer = Importer(studio, number, version)
    predictions = _predict(predictor, _without(tasks, importer.there), progress)
    report = FillReport(len(tasks), model_version=version)
    report.failures = {
        one.task: str(one.failure)
        for one in predictions
        if one.result is None and one.task is not None
    }
    _remember(runtime, key, predictions)
    _import(importer, predictions, settings.import_size, progress)
    report.imported, report.predicted = importer.created, len(importer.there)
    if parse_config(studio.projects.get(number)["label_config"]).digest != config.digest:
        raise StudioError(
            "The labeling config was changed while the tasks were predicted.",
            "Run ls-clip connect again.",
        )
    if len(report.failures) < len(tasks):
        # Tasks that were deleted meanwhile are nobody's fault.
        still_there = {int(task["id"]) for task in studio.tasks.iterate(number)}
        expected = ({int(task["id"]) for task in tasks} & still_there) - set(report.failures)
        note = duplicates_note(number, importer.verify(expected))
        report.warnings += [note] if note else []
        show(studio, number, version, **SHOWN)
    # Of several images one may be missing: such a task is predicted, and told of all the same.
    report.failures |= {
        one.task: str(one.failure)
        for one in predictions
        if one.result is not None and one.failure is not None and one.task is not None
    }
    return report


def _remember(runtime: Runtime, key: str, predictions: Sequence[Prediction]) -> None:
    """Keep what is shown, and which images it is shown for."""
    prediction_log = PredictionLog(runtime.store)
    prediction_log.add(key, logged(predictions))
    prediction_log.link_images(key, images_of(runtime.embedder, predictions))


def images_of(embedder: Embedder, predictions: Sequence[Prediction]) -> list[tuple[int, str]]:
    """Task id and image address of what these predictions looked at."""
    return [
        (one.task, embedder.address(image))
        for one in predictions
        if one.task is not None
        for image in one.images
    ]


def _import(
    importer: Importer, predictions: Sequence[Prediction], size: int, progress: Progress
) -> None:
    items = [one.as_import() for one in predictions if one.result is not None]
    for start in range(0, len(items), size):
        progress("importing predictions", start, len(items))
        importer.add(items[start : start + size])
    progress("importing predictions", len(items), len(items))
    if importer.dropped:
        task, reason = next(iter(importer.dropped.items()))
        raise StudioError(
            f"{len(importer.dropped)} predictions are not there; task {task}: {reason}",
            "Check that nobody changed the labels meanwhile, then run ls-clip connect again.",
        )


def _without(tasks: Sequence[Mapping[str, Any]], done: set[int]) -> list[Mapping[str, Any]]:
    return [task for task in tasks if task["id"] not in done]


def _embed(
    embedder: Embedder,
    config: LabelConfig,
    tasks: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> None:
    for start in range(0, len(tasks), SHARD):
        progress("embedding images", start, len(tasks))
        images = [
            value
            for task in tasks[start : start + SHARD]
            for control in config.controls
            if (value := image_of(control, task)) is not None
        ]
        embedder.embed(images)
    progress("embedding images", len(tasks), len(tasks))


def _predict(
    predictor: Predictor,
    tasks: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> list[Prediction]:
    predictions: list[Prediction] = []
    for start in range(0, len(tasks), SHARD):
        progress("scoring", start, len(tasks))
        predictions += predictor.predict(tasks[start : start + SHARD])
    progress("scoring", len(tasks), len(tasks))
    return predictions
