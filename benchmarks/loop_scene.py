"""The servers, the project and the annotator of benchmarks/loop.py."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.demo.servers import LocalBackend, LocalWorker
from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.labels.config import LabelConfig, parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.processes import free_port
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.vlpl import metrics
from benchmarks.bulk import chosen_photos
from benchmarks.bulk_servers import FOLDER, Servers, address
from jobs import enqueue, queue
from jobs.polling import wait, wait_for_refresh, wait_for_training
from jobs.run import RunState
from jobs.run_store import RunStore
from jobs.training_state import Outcome, TrainingStore

MIN_POSITIVES = 10
"""Fewest test positives of a label that counts in mAP."""
CONTROL = "tags"
"""Name of the control in the project's labeling config."""


@dataclass
class Scene:
    """The running servers, one project, and the true labels of its tasks.

    Attributes:
        settings: of backend and worker.
        runtime: of this process, on the same store.
        studio: client of the Label Studio.
        project: id of the project.
        truth: task id -> its true labels.
        train: ids of the tasks that may be annotated, ascending; a random half.
        test: ids of the tasks that never are, ascending.
        images: the folder of the photos.
    """

    settings: Settings
    runtime: Runtime
    studio: LabelStudioClient
    project: int
    truth: dict[int, list[str]]
    train: list[int]
    test: list[int]
    images: Path

    @property
    def key(self) -> str:
        """The project's key, as Label Studio sends it to ML backends."""
        return project_key(self.studio.projects.get(self.project))

    @property
    def config(self) -> LabelConfig:
        """The project's labeling config."""
        return parse_config(self.studio.projects.get(self.project)["label_config"])

    @property
    def labels(self) -> list[str]:
        """Labels of the control, in order."""
        return [label.key for label in self.config.controls[0].labels]

    def tasks(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The tasks with these ids, as Label Studio lists them."""
        chosen = set(numbers)
        return [
            task for task in self.studio.tasks.iterate(self.project) if int(task["id"]) in chosen
        ]

    def measured(self, head_name: str | None = None) -> dict[str, Any]:
        """Measures of the suggestions on the test tasks that are not blind, against the truth.

        Args:
            head_name: of the head to measure; None: the one that serves.
        """
        labels = self.labels
        share, key = self.settings.blind_share, self.key
        version = self.runtime.versions.get(self.config, key, head_name)
        tasks = [task for task in self.tasks(self.test) if not is_blind(key, task["id"], share)]
        predictions = Predictor(version, self.runtime.embedder).predict_stored(tasks)
        probabilities = torch.tensor(
            [
                [of_label[label] for label in labels]
                for of_label in (one.probabilities[CONTROL] for one in predictions)
            ]
        )
        chosen = torch.zeros_like(probabilities, dtype=torch.bool)
        for row, prediction in enumerate(predictions):
            keys = {label.key for label in prediction.scored[0].suggested}
            chosen[row] = torch.tensor([label in keys for label in labels])
        present = [self.truth[int(task["id"])] for task in tasks]
        truth = torch.tensor([[label in names for label in labels] for names in present])
        rates = metrics.micro(chosen, truth)
        clicks, empty = metrics.expected_clicks(chosen, truth)
        return {
            "precision": rates.precision,
            "recall": rates.recall,
            "mAP": 100 * metrics.mean_average_precision(probabilities, truth, MIN_POSITIVES),
            "clicks per task": clicks,
            "without suggestions": empty,
            "suggested": chosen.sum(0).double(),
        }


def build(stack: ExitStack, folder: Path, data: Path, photos: int) -> Scene:
    """Start all servers, and connect a project with so many photos.

    Args:
        stack: stops the servers when it closes.
        folder: empty; all files go there.
        data: folder with ``coco-dev/``.
        photos: number of photos.
    """
    files, labels = chosen_photos(data, photos)
    servers = stack.enter_context(Servers(folder, files, labels))
    port = free_port(19900)
    settings = servers.settings.model_copy(
        update={"port": port, "public_url": f"http://127.0.0.1:{port}", "refresh_every": 0.0}
    )
    backend = stack.enter_context(LocalBackend(settings, folder / "backend.log"))
    worker = stack.enter_context(LocalWorker(settings, folder / "worker.log"))
    backend.wait()
    worker.wait()
    number, ids = servers.project([address(name) for name in servers.names])
    truth_of = _truth(data)
    truth = {task: truth_of[name] for task, name in zip(ids, servers.names, strict=True)}
    order = list(ids)
    random.Random(0).shuffle(order)
    runtime = Runtime(settings)
    connect(settings, servers.studio, runtime, number)
    half = len(order) // 2
    return Scene(
        settings,
        runtime,
        servers.studio,
        number,
        truth,
        sorted(order[:half]),
        sorted(order[half:]),
        folder / "files" / FOLDER,
    )


def _truth(data: Path) -> dict[str, list[str]]:
    """File name -> its labels."""
    content = json.loads((data / "coco-dev" / "labels.json").read_text())
    return {name: list(labels) for name, labels in content["images"].items()}


def train_and_refresh(scene: Scene) -> str:
    """Train as the button does, and wait for refreshed suggestions; returns outcome and reason."""
    connection = queue.connect(scene.settings)
    trainings, runs = TrainingStore(connection), RunStore(connection)
    number = enqueue.request_training(trainings, scene.project)
    training = wait_for_training(trainings, scene.project, number)
    if training.outcome == Outcome.ACCEPTED:
        run = wait(runs, wait_for_refresh(runs, training).id, lambda _: None)
        assert run.state == RunState.DONE, run
    return f"{training.outcome}: {training.reason}"


class Annotator:
    """Reviews tasks that may be annotated in random order, as connect sets it: submits the truth.

    Attributes:
        seconds: how long each Submit took.
        left: ids of the tasks that are not reviewed yet.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.left = set(scene.train)
        self.seconds: list[float] = []
        self._chance = random.Random(4)

    def review(self, count: int) -> None:
        """Review so many tasks."""
        scene = self._scene
        version = scene.studio.projects.get(scene.project)["model_version"]
        shown = {
            prediction["task"]: prediction
            for prediction in scene.studio.predictions.of_project(scene.project)
            if prediction["model_version"] == version and prediction["task"] in self.left
        }
        order = self._chance.sample(sorted(shown), count)
        for task in order:
            item = {"from_name": CONTROL, "to_name": "image", "type": "choices"}
            result = [{**item, "value": {"choices": scene.truth[task]}}]
            started = time.monotonic()
            scene.studio.tasks.annotate(task, result, shown[task]["id"], seconds=8.0)
            self.seconds.append(time.monotonic() - started)
        self.left -= set(order)
