"""The demo's annotator: reviews tasks with the truth, and waits for the head that comes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from backend.demo.photos import LABELS, DemoPhoto
from backend.errors import StudioError
from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.runtime import Runtime
from backend.vlpl import metrics
from jobs import enqueue, queue
from jobs.polling import wait, wait_for_refresh, wait_for_training
from jobs.run import RunState
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

CONTROL = "tags"
TEST_TASKS = 60
"""Tasks that the annotator leaves alone at least: the only ones that are measured."""

Waiting = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """How right the suggestions of some tasks are; shares in [0, 1]."""

    model_version: str
    tasks: int
    suggested: float
    labels: float
    precision: float
    recall: float
    mean_average_precision: float
    clicks: float


def measure(
    runtime: Runtime,
    studio: LabelStudioClient,
    project: int,
    photos: Sequence[DemoPhoto],
    tasks: set[int],
) -> Measured:
    """Compare what Label Studio shows with what is on the collages; blind tasks are left out.

    Args:
        runtime: of this process.
        studio: the Label Studio.
        project: its number.
        photos: with the truth.
        tasks: ids of the tasks to look at.
    """
    described = studio.projects.get(project)
    key, version = project_key(described), described["model_version"]
    share = runtime.settings.blind_share
    rows = [
        task
        for task in studio.tasks.iterate(project)
        if task["id"] in tasks and not is_blind(key, task["id"], share)
    ]
    suggested: dict[int, list[str]] = {task["id"]: [] for task in rows}
    for prediction in studio.predictions.of_project(project):
        if prediction["model_version"] == version and prediction["task"] in suggested:
            for item in prediction["result"]:
                if item["from_name"] == CONTROL:
                    suggested[prediction["task"]] = item["value"]["choices"]
    truth_of = {photo.file: photo.labels for photo in photos}
    truth = torch.tensor([[label in truth_of[_file(task)] for label in LABELS] for task in rows])
    chosen = torch.tensor([[label in suggested[task["id"]] for label in LABELS] for task in rows])
    current = runtime.versions.get(parse_config(described["label_config"]), key)
    probabilities = torch.tensor(
        [
            [one.probabilities[CONTROL][label] for label in LABELS]
            for one in Predictor(current, runtime.embedder).predict(rows)
        ]
    )
    rates = metrics.micro(chosen, truth)
    return Measured(
        version,
        len(rows),
        float(chosen.sum(1).float().mean()),
        float(truth.sum(1).float().mean()),
        rates.precision,
        rates.recall,
        metrics.mean_average_precision(probabilities, truth),
        metrics.expected_clicks(chosen, truth)[0],
    )


def table_of(rows: Mapping[str, Measured]) -> Table:
    """What was measured, as a person reads it: one column a measurement."""
    table = Table("")
    for name in rows:
        table.add_column(name, justify="right")
    found = rows.values()
    table.add_row("tasks", *(str(one.tasks) for one in found))
    table.add_row("suggestions per task", *(f"{one.suggested:.2f}" for one in found))
    table.add_row("true labels per task", *(f"{one.labels:.2f}" for one in found))
    table.add_row("precision", *(f"{one.precision:.3f}" for one in found))
    table.add_row("recall", *(f"{one.recall:.3f}" for one in found))
    table.add_row("mAP", *(f"{one.mean_average_precision:.3f}" for one in found))
    table.add_row("clicks per task", *(f"{one.clicks:.2f}" for one in found))
    return table


def simulate(
    runtime: Runtime,
    studio: LabelStudioClient,
    project: int,
    photos: Sequence[DemoPhoto],
    count: int,
    *,
    progress: Waiting,
) -> tuple[Measured, Measured, str]:
    """Review tasks, train, refresh; measured before and after on tasks that nobody reviews.

    Args:
        runtime: of this process; its queue has workers.
        studio: the Label Studio.
        project: its number.
        photos: with the truth.
        count: tasks to review, with those that were reviewed before.
        progress: told how far it is.

    Returns:
        Before, after, and what the training says.

    Raises:
        StudioError: the head could not be put into use.
    """
    tasks = list(studio.tasks.iterate(project))
    reviewed = {task["id"] for task in tasks if task["total_annotations"]}
    free = sorted(task["id"] for task in tasks if task["id"] not in reviewed)
    random.Random(0).shuffle(free)
    chosen = set(free[: max(0, count - len(reviewed))])
    test = set(free) - chosen
    before = measure(runtime, studio, project, photos, test)
    truth_of = {photo.file: photo.labels for photo in photos}
    parents = {
        one["task"]: one["id"]
        for one in studio.predictions.of_project(project)
        if one["model_version"] == before.model_version
    }
    to_name = parse_config(studio.projects.get(project)["label_config"]).controls[0].to_name
    for done, task in enumerate(task for task in tasks if task["id"] in chosen):
        progress("reviewing tasks", done, len(chosen))
        studio.tasks.annotate(
            task["id"],
            [
                {
                    "from_name": CONTROL,
                    "to_name": to_name,
                    "type": "choices",
                    "value": {"choices": list(truth_of[_file(task)])},
                }
            ],
            parents.get(task["id"]),
            seconds=5.0,
        )
    progress("training", 0, 1)
    connection = queue.connect(runtime.settings)
    trainings, runs = TrainingStore(connection), RunStore(connection)
    number = enqueue.request_training(trainings, project)
    training = wait_for_training(trainings, project, number)
    said = f"{training.outcome}: {training.reason}"
    if training.candidate:
        run = wait(
            runs,
            wait_for_refresh(runs, training).id,
            lambda now: progress("refreshing suggestions", now.imported, max(1, now.listed)),
        )
        if run.state != RunState.DONE:
            raise StudioError(f"The refresh {run.id} is {run.state}.", "Read worker.log.")
    return before, measure(runtime, studio, project, photos, test), said


def _file(task: Mapping[str, object]) -> str:
    data = task["data"]
    assert isinstance(data, Mapping)
    return str(data["image"]).rpartition("/")[2]
