"""Connect a Label Studio project: backend, webhook, settings, predictions; any number of times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.encoders.base import Encoder
from backend.encoders.label_texts import unreadable_message
from backend.errors import SettingsError, StoreError, StudioError, as_text, counted
from backend.inference.label_embeddings import unreadable_labels
from backend.labels.config import EVIDENCE_NAME, LabelConfig, parse_config
from backend.labels.controls import known_labels
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.logs import Progress
from backend.messages.catalogue import localized
from backend.messages.message import Message, in_sequence
from backend.projects.calls import alone
from backend.projects.registration import make_webhook, register_backend, show_scores
from backend.projects.renaming import probable_renames
from backend.projects.review import TICKED_TASKS, offer_round, settle_order
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder
from backend.training.clicks_text import with_text
from backend.training.project_measures import clicks_of_project
from jobs import enqueue, queue
from jobs.local_run import run_locally
from jobs.polling import require_workers, wait
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

WORKER_SECONDS = 15.0
"""A worker listens only once its encoder is loaded."""
SAMPLE = 200
"""Tasks looked at to find out whether a field holds labels."""
SHOWN = {"show_collab_predictions": True}
"""A connected project's settings: boxes are ticked."""


@dataclass
class ConnectReport:
    """The result of connecting a project.

    Attributes:
        tasks: tasks of the project.
        imported: predictions made by this call.
        predicted: tasks that have a prediction of ``model_version``.
        model_version: what the project now shows; empty if nothing.
        order: in which "Label All Tasks" serves the tasks.
        tab: title of the tab with the tasks to review next; empty if there is none.
        blind: tasks of the project that are shown without suggestions on purpose.
        failures: task id -> why it has no prediction, or only a part, and what fixes that.
        warnings: what a person should know, one sentence each.
        ticks: labels that predictions tick, a task, in the mean of the project, or of a sample of
            `TICKED_TASKS`; None where nobody knows.
        required: whether the config says of a control that each image has one of its labels.
        clicks: what suggestions cost on reviewed tasks, see `with_text`; None where nobody knows.
    """

    tasks: int = 0
    imported: int = 0
    predicted: int = 0
    model_version: str = ""
    order: ReviewOrder = ReviewOrder.RANDOM
    tab: str = ""
    blind: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    ticks: float | None = None
    required: bool = False
    clicks: dict[str, Any] | None = None


def connect(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    number: int,
    progress: Progress = lambda what, done, total: None,
    *,
    known_field: str | None = None,
    order: ReviewOrder | None = None,
    revalidate: bool = False,
) -> ConnectReport:
    """Make a project show suggestions, and keep it that way when called again.

    Args:
        settings: URL and credentials of the backend, which must be running.
        studio: the Label Studio.
        runtime: of this process.
        number: the project.
        progress: called with what is being done.
        known_field: the task-data field with labels known beforehand, from now on; empty: none;
            None: as before.
        order: in which "Label All Tasks" serves the tasks from now on; None: as before, and
            random in a new project.
        revalidate: whether it is asked for each stored image if it was replaced.

    Raises:
        LabelConfigError: the project's labeling config has no control that can be predicted.
        QueueError: a queue is set, and Redis does not answer or no worker listens.
        StudioError: Label Studio refuses a step, or lost predictions.
    """
    project = studio.projects.get(number)
    refused = Message("Project {number} is already being connected.", number=number)
    # Two calls at once would import its predictions twice.
    with alone(studio, number, refused):
        if known_field is not None:
            state = ProjectState(runtime.store, project_key(project))
            _require_known_labels(studio, project, state, known_field)
            state.set_known_field(known_field)
        return _connect(
            settings, studio, runtime, project, progress, order=order, revalidate=revalidate
        )


def _require_known_labels(
    studio: LabelStudioClient, project: Mapping[str, Any], state: ProjectState, known_field: str
) -> None:
    """Refuse a field in which no task has a label of the config."""
    tasks = studio.tasks.sample(int(project["id"]), SAMPLE) if known_field else []
    former = state.former_names()
    controls = parse_config(project["label_config"]).with_former(former).controls
    if tasks and not any(
        known_labels(control.for_task(task["data"]), task["data"], known_field)
        for control in controls
        for task in tasks
    ):
        there = sorted({name for task in tasks for name in task["data"]})
        raise SettingsError(
            Message(
                "None of {tasks} looked at has a label of the labeling config in {known_field!r}.",
                tasks=counted(len(tasks), "task"),
                known_field=known_field,
            ),
            Message(
                "The tasks' data has the fields: {names}. Labels must be written as in the "
                "labeling config.",
                names=", ".join(there),
            ),
        )


def _connect(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    project: Mapping[str, Any],
    progress: Progress,
    *,
    order: ReviewOrder | None,
    revalidate: bool,
) -> ConnectReport:
    number = int(project["id"])
    config = parse_config(project["label_config"])
    config.require_controls()
    by_workers = bool(settings.redis_url.get_secret_value())
    warnings = _warnings(config, runtime.encoder, is_trained=by_workers)
    if by_workers:
        # Before anything is changed in Label Studio.
        progress(Message("looking for a worker"), 0, 1)
        require_workers(settings, queue.connect(settings), seconds=WORKER_SECONDS)
    state = ProjectState(runtime.store, project_key(project))
    # First: a call that is interrupted must not make a new project look like a connected one.
    served, left_alone = settle_order(studio, state, project, order)
    warnings += [left_alone] if left_alone else []
    # From here on a label that is added is known to be younger than what was reviewed.
    state.labels_since(config.label_keys(), time.time(), config.conditions())
    warnings += [
        in_sequence(
            found.question,
            Message(
                "If it is the same label under another name: {command}.", command=found.command
            ),
        )
        for found in probable_renames(state, config, number)
    ]
    progress(Message("registering the backend"), 0, 1)
    former = register_backend(settings, studio, number)
    make_webhook(settings, studio, number, former)
    show_scores(studio, number)

    def report(run: Run) -> None:
        if run.state == RunState.IMPORTING:
            progress(
                Message("importing predictions"), run.imported, max(run.listed - run.failed, 1)
            )
        else:
            done = run.embedded + run.cached + run.failed
            progress(Message("embedding images"), done, max(run.listed, 1))

    if by_workers:
        run, failures = run_by_workers(settings, number, report, revalidate=revalidate)
    else:
        scope = Scope.ALL if revalidate else Scope.MISSING
        run, failures = run_locally(
            runtime, number, scope, Trigger.CONNECT, report, revalidate=revalidate
        )
    after = studio.projects.get(number)
    tasks, shown = int(after["task_number"]), str(after["model_version"] or "")
    if len(failures) < tasks:
        studio.projects.update(number, **SHOWN)
    progress(Message("choosing the next tasks"), 0, 1)
    offer = offer_round(runtime, studio, after)
    warnings += [offer.warning] if offer.warning else []
    notes = [*warnings, *run.notes]
    clicks = _clicks(settings, studio, runtime, number, notes)
    return ConnectReport(
        tasks=tasks,
        imported=run.imported,
        predicted=studio.predictions.versions(number).get(shown, 0),
        model_version=shown,
        order=served,
        tab=offer.tab,
        blind=offer.blind,
        failures={task: as_text(why, settings.language) for task, why in failures.items()},
        warnings=[localized(note, settings.language) for note in notes],
        ticks=_ticks(runtime, project_key(project), shown),
        required=any(control.required for control in config.controls),
        clicks=clicks,
    )


def run_by_workers(
    settings: Settings, number: int, report: Callable[[Run], None], *, revalidate: bool = False
) -> tuple[Run, dict[int, dict[str, str]]]:
    """Start a run and wait for its end; waits first for one that is going on already.

    Returns:
        The run, which is done, and task id -> why it has no prediction, or only a part.

    Raises:
        QueueError: Redis does not answer.
        StudioError: the run failed or was cancelled.
    """
    runs = RunStore(queue.connect(settings))
    scope = Scope.ALL if revalidate else Scope.MISSING

    def start() -> tuple[Run, bool]:
        return enqueue.start_run(runs, number, scope, Trigger.CONNECT, revalidate=revalidate)

    run, is_new = start()
    while not is_new:
        # It may be about other tasks, or have listed them before the last ones came.
        wait(runs, run.id, report)
        run, is_new = start()
    run = wait(runs, run.id, report)
    if run.state != RunState.DONE:
        error = run.error or {
            "message": Message("The run {id} was cancelled.", id=run.id),
            "fix": Message("Run it again."),
        }
        raise StudioError(error["message"], error["fix"])
    return run, runs.failures(run.id)


def _clicks(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    number: int,
    notes: list[str],
) -> dict[str, Any] | None:
    """What suggestions cost; where that cannot be found out, a note says so: all else is done."""
    try:
        clicks = clicks_of_project(settings, studio, runtime.versions, runtime.embedder, number)
    except (StudioError, StoreError) as error:
        counted_not = Message("The clicks that suggestions cost could not be counted.")
        notes.append(in_sequence(counted_not, error.message, error.fix))
        return None
    if clicks is None:
        return None
    missing = None
    if settings.redis_url.get_secret_value():
        missing = TrainingStore(queue.connect(settings)).get(number).missing
    return with_text(clicks, missing, settings.language)


def _ticks(runtime: Runtime, key: str, version: str) -> float | None:
    """Choices that the predictions of a version tick, a task, as they were logged.

    Counted is whatever they select, also what the config preselects. Blind tasks are left out. Of
    more than `TICKED_TASKS` tasks so many are drawn, the same ones each time.

    Returns:
        None where no prediction of it is logged.
    """
    tasks = sorted(runtime.prediction_log.tasks(key))
    if len(tasks) > TICKED_TASKS:
        tasks = random.Random(key).sample(tasks, TICKED_TASKS)
    ticks = [
        sum(map(len, logged.choices.values()))
        for (_, name), logged in runtime.prediction_log.of_tasks(key, tasks).items()
        if name == version and logged.choices is not None
    ]
    return sum(ticks) / len(ticks) if ticks else None


def _warnings(config: LabelConfig, encoder: Encoder, *, is_trained: bool) -> list[str]:
    warnings = list(config.skipped)
    unread = unreadable_labels(encoder, config)
    if unread:
        warnings.append(in_sequence(*unreadable_message(encoder, unread)))
        if not is_trained:
            warnings.append(
                Message(
                    "No head will learn these labels: that takes a queue (LS_CLIP_REDIS_URL) and "
                    "a worker (docs/workers.md)."
                )
            )
    if config.evidence is None:
        warnings.append(
            Message(
                'The probabilities will not be shown while labeling. Add <TextArea name="{name}" '
                'toName="{to_name}" editable="false" maxSubmissions="0" rows="1"/> to the '
                "labeling config to see them. It also says of a task that is shown without "
                "suggestions that this is on purpose.",
                name=EVIDENCE_NAME,
                to_name=config.controls[0].to_name,
            )
        )
    return warnings
