"""The demo's simulated annotator: reviews tasks with the truth, and waits for the new head."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

from backend.demo.photos import LABELS, DemoPhoto
from backend.errors import StudioError
from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.logs import Progress
from backend.runtime import Runtime
from backend.vlpl import metrics
from backend.vlpl.clicks import Clicks, task_clicks
from jobs import enqueue, queue
from jobs.polling import wait, wait_for_refresh, wait_for_training
from jobs.run import RunState
from jobs.run_store import RunStore
from jobs.training_state import TrainingStore

CONTROL = "tags"
MEASURING = "measuring the suggestions"
TEST_TASKS = 60
"""The least number of tasks that the annotator does not review; only these are measured."""


@dataclass(frozen=True)
class Measured:
    """How good the suggestions of some tasks are.

    Attributes:
        model_version: of the suggestions.
        tasks: how many tasks were measured.
        suggested: suggested labels per task.
        labels: true labels per task.
        precision, recall: over all labels of all tasks, in [0, 1].
        mean_average_precision: of the probabilities, in [0, 1].
        clicks: to correct the suggestions, beside those from nothing.
    """

    model_version: str
    tasks: int
    suggested: float
    labels: float
    precision: float
    recall: float
    mean_average_precision: float
    clicks: Clicks


def measure(
    runtime: Runtime,
    studio: LabelStudioClient,
    project: int,
    photos: Sequence[DemoPhoto],
    tasks: set[int],
) -> Measured:
    """Compare what Label Studio shows with what is on the collages, without the blind tasks.

    Args:
        runtime: of this process.
        studio: the Label Studio.
        project: its number.
        photos: with the truth.
        tasks: ids of the tasks to measure.
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
            [prediction.probabilities[CONTROL][label] for label in LABELS]
            for prediction in Predictor(current, runtime.embedder).predict(rows)
        ]
    )
    rates = metrics.micro(chosen, truth)
    present = truth.numpy()
    clicks = Clicks.of(
        task_clicks(chosen.numpy(), present), task_clicks(np.zeros_like(present), present)
    )
    assert clicks is not None, "the demo has tasks that are not blind"
    return Measured(
        version,
        len(rows),
        float(chosen.sum(1).float().mean()),
        float(truth.sum(1).float().mean()),
        rates.precision,
        rates.recall,
        metrics.mean_average_precision(probabilities, truth),
        clicks,
    )


def measurement_table(rows: Mapping[str, Measured]) -> Table:
    """Measurements by name as a table for people, one column each."""
    table = Table("")
    for name in rows:
        table.add_column(name, justify="right")
    results = rows.values()
    table.add_row("tasks", *(str(result.tasks) for result in results))
    table.add_row("suggestions per task", *(f"{result.suggested:.2f}" for result in results))
    table.add_row("true labels per task", *(f"{result.labels:.2f}" for result in results))
    table.add_row("precision", *(_precision(result) for result in results))
    table.add_row("recall", *(_percent(result.recall) for result in results))
    table.add_row("mAP", *(_percent(result.mean_average_precision) for result in results))
    table.add_row("clicks per task", *(_with_interval(result.clicks) for result in results))
    nothing = (f"{result.clicks.from_nothing:.2f}" for result in results)
    table.add_row("clicks from nothing", *nothing)
    return table


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _precision(result: Measured) -> str:
    """How many ticks are right, where there are any."""
    return _percent(result.precision) if result.suggested else "nothing ticked"


def _with_interval(clicks: Clicks) -> str:
    low, high = clicks.interval
    return f"{clicks.per_task:.2f} ({low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Simulation:
    """What reviews and a training changed.

    Attributes:
        before, after: measurements of the tasks that nobody reviewed.
        outcome: of the training, with its reason.
    """

    before: Measured
    after: Measured
    outcome: str

    @property
    def got_worse(self) -> bool:
        """Whether the mean average precision fell."""
        return self.after.mean_average_precision < self.before.mean_average_precision


def simulate(
    runtime: Runtime,
    studio: LabelStudioClient,
    project: int,
    photos: Sequence[DemoPhoto],
    count: int,
    *,
    progress: Progress,
) -> Simulation | None:
    """Review tasks, train a head and refresh the suggestions.

    Args:
        runtime: of this process; its queue has workers.
        studio: the Label Studio.
        project: its number.
        photos: with the truth.
        count: tasks to review, including those that were reviewed before.
        progress: shows progress.

    Returns:
        None if as many tasks are reviewed already.

    Raises:
        StudioError: the head could not be put into use.
    """
    tasks = list(studio.tasks.iterate(project))
    reviewed = {task["id"] for task in tasks if task["total_annotations"]}
    if len(reviewed) >= count:
        return None
    free = sorted(task["id"] for task in tasks if task["id"] not in reviewed)
    random.Random(0).shuffle(free)
    chosen = set(free[: count - len(reviewed)])
    test = set(free) - chosen
    progress(MEASURING, 0, 1)
    before = measure(runtime, studio, project, photos, test)
    truth_of = {photo.file: photo.labels for photo in photos}
    parents = {
        prediction["task"]: prediction["id"]
        for prediction in studio.predictions.of_project(project)
        if prediction["model_version"] == before.model_version
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
    if training.candidate:
        run = wait(
            runs,
            wait_for_refresh(runs, training).id,
            lambda now: progress("refreshing suggestions", now.imported, max(1, now.listed)),
        )
        if run.state != RunState.DONE:
            raise StudioError(f"The refresh {run.id} is {run.state}.", "Read worker.log.")
    progress(MEASURING + " again", 0, 1)
    after = measure(runtime, studio, project, photos, test)
    return Simulation(before, after, f"{training.outcome}: {training.reason}")


def _file(task: Mapping[str, object]) -> str:
    data = task["data"]
    assert isinstance(data, Mapping)
    return str(data["image"]).rpartition("/")[2]
