"""Does the loop help? An annotator that answers from the truth drives a real Label Studio.

``python benchmarks/loop.py --data DIR`` (a quarter of an hour on two cores) starts a Label Studio,
a Valkey, the backend and a worker in a temporary folder and writes the tables of docs/training.md.
``DIR`` holds ``coco-dev/images`` and ``coco-dev/labels.json``. Half of the photos, chosen at
random, are never annotated, and nothing but the final measures looks at their labels.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from backend.demo.servers import LocalBackend, LocalWorker
from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.processes import free_port
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.head_registry import ZERO_SHOT
from backend.training.approvals import Approval
from backend.training.head_trainer import HeadTrainer, Pulled
from backend.vlpl import head, metrics
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN
from benchmarks import report
from benchmarks.bulk import ROOT, chosen_photos, quiet_and_unsteered
from benchmarks.bulk_servers import FOLDER, Servers, machine
from jobs import enqueue, queue
from jobs.polling import wait, wait_for_refresh, wait_for_training
from jobs.run import DONE
from jobs.run_store import RunStore
from jobs.training_state import ACCEPTED, TrainingStore

PARTS = ("reviews", "accepting", "single-positive", "latency")
BATCH = 25
ROUNDS = (25, 50, 100, 200, 300, 400, 500, 600)
"""Reviews after which a head is trained."""
ACCEPTING_ROUNDS = 10
MIN_POSITIVES = 10
CONTROL = "tags"

Rows = list[dict[str, Any]]


@dataclass
class Scene:
    """The running servers, one project, and the truth.

    Attributes:
        settings: of backend and worker.
        runtime: of this process; shares their store.
        project: its number.
        truth: task id -> its labels.
        train: tasks that may be annotated, in a random order.
        test: tasks that never are.
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
        """As Label Studio names the project to backends."""
        return project_key(self.studio.projects.get(self.project))

    @property
    def labels(self) -> list[str]:
        """Of the control, in order."""
        config = parse_config(self.studio.projects.get(self.project)["label_config"])
        return [label.key for label in config.controls[0].labels]

    def tasks(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These tasks as Label Studio lists them; of the test set without the blind slice."""
        chosen = set(numbers)
        return [
            task for task in self.studio.tasks.iterate(self.project) if int(task["id"]) in chosen
        ]

    def measured(self, head_name: str | None = None) -> dict[str, Any]:
        """The suggestions of the test tasks against the truth."""
        labels = self.labels
        config = parse_config(self.studio.projects.get(self.project)["label_config"])
        version = self.runtime.versions.get(config, self.key, head_name)
        share = self.settings.blind_share
        tasks = [one for one in self.tasks(self.test) if not is_blind(self.key, one["id"], share)]
        found = Predictor(version, self.runtime.embedder).predict_stored(tasks)
        probabilities = torch.tensor(
            [[one.probabilities[CONTROL][label] for label in labels] for one in found]
        )
        chosen = torch.zeros_like(probabilities, dtype=torch.bool)
        for row, one in enumerate(found):
            keys = {label.key for label in one.scored[0].suggested}
            chosen[row] = torch.tensor([label in keys for label in labels])
        true = [self.truth[int(one["id"])] for one in tasks]
        truth = torch.tensor([[label in some for label in labels] for some in true])
        rates = metrics.micro(chosen, truth)
        clicks, empty = metrics.expected_clicks(chosen, truth)
        return {
            "precision": rates.precision,
            "recall": rates.recall,
            "mAP": 100 * metrics.mean_average_precision(probabilities, truth, MIN_POSITIVES),
            "clicks a task": clicks,
            "without suggestions": empty,
            "suggested": chosen.sum(0).double(),
        }


def build(stack: ExitStack, folder: Path, data: Path, photos: int) -> Scene:
    """Start everything, and predict the project zero-shot."""
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
    addresses = [f"/data/local-files/?d=images/{name}" for name in servers.names]
    number, ids = servers.project(addresses)
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
    content = json.loads((data / "coco-dev" / "labels.json").read_text())
    return {name: list(labels) for name, labels in content["images"].items()}


def train_and_refresh(scene: Scene) -> str:
    """Ask for a training, as the button does; returns its outcome."""
    connection = queue.connect(scene.settings)
    trainings, runs = TrainingStore(connection), RunStore(connection)
    number = enqueue.ask_for_training(trainings, scene.project)
    training = wait_for_training(trainings, scene.project, number)
    if training.outcome == ACCEPTED:
        run = wait(runs, wait_for_refresh(runs, training).id, lambda _: None)
        assert run.state == DONE, run
    return f"{training.outcome}: {training.reason}"


class Annotator:
    """Reviews the least certain of the tasks that may be annotated, and submits the truth."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._left = set(scene.train)
        self.seconds: list[float] = []

    def review(self, count: int) -> None:
        """Review so many, lowest score first, as Label Studio would serve them."""
        scene = self._scene
        version = scene.studio.projects.get(scene.project)["model_version"]
        shown = {
            one["task"]: one
            for one in scene.studio.predictions.of_project(scene.project)
            if one["model_version"] == version and one["task"] in self._left
        }
        order = sorted(shown, key=lambda task: (shown[task]["score"], task))[:count]
        for task in order:
            item = {"from_name": CONTROL, "to_name": "image", "type": "choices"}
            result = [{**item, "value": {"choices": scene.truth[task]}}]
            started = time.monotonic()
            scene.studio.tasks.annotate(task, result, shown[task]["id"], seconds=8.0)
            self.seconds.append(time.monotonic() - started)
        self._left -= set(order)


def reviews(scene: Scene, rounds: Sequence[int] = ROUNDS) -> tuple[Rows, str]:
    """Reviews in batches, a training now and then: what the test tasks show after each."""
    annotator = Annotator(scene)
    rows: Rows = [_row("zero-shot", scene.measured())]
    done = 0
    said = ""
    for goal in rounds:
        while done < goal:
            annotator.review(min(BATCH, goal - done))
            done += min(BATCH, goal - done)
        said = train_and_refresh(scene)
        rows.append(_row(f"{goal} reviews", scene.measured()))
        print(rows[-1], said, flush=True)
    gain = float(rows[-1]["mAP"]) - float(rows[0]["mAP"])
    note = f"mAP {gain:+.1f} points (goal at least 8). The last training: {said}."
    return rows, note


def _row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "": name,
        "precision": found["precision"],
        "recall": found["recall"],
        "mAP": f"{found['mAP']:.1f}",
        "clicks a task": f"{found['clicks a task']:.2f}",
        "from nothing": f"{found['without suggestions']:.2f}",
    }


def accepting(scene: Scene) -> tuple[Rows, str]:
    """Everything is accepted unchanged, ten rounds: does the head feed on itself?"""
    rows: Rows = []
    ones = dict.fromkeys(head.PROVENANCE_WEIGHTS, 1.0)
    for name, weights, share in (
        ("provenance weights and blind slice", dict(head.PROVENANCE_WEIGHTS), 0.05),
        ("blind slice, all reviews weigh 1", ones, 0.05),
        ("neither", ones, 0.0),
    ):
        before = dict(head.PROVENANCE_WEIGHTS)
        head.PROVENANCE_WEIGHTS.update(weights)
        try:
            rows.append({"": name, **_accept(scene, share)})
        finally:
            head.PROVENANCE_WEIGHTS.update(before)
    note = (
        f"Of {ACCEPTING_ROUNDS} rounds with {len(scene.train) // ACCEPTING_ROUNDS} tasks each. "
        "Frequencies are those of suggested labels on the tasks that nobody reviewed, of the "
        "labels that were suggested 10 times or more at the start. Blind tasks are answered from "
        "the truth, since they show nothing to accept. The trainer is called without Label Studio "
        "here."
    )
    return rows, note


def _accept(scene: Scene, blind_share: float) -> dict[str, Any]:
    heads = scene.runtime.versions.heads
    start = scene.measured(ZERO_SHOT)
    serving = ZERO_SHOT
    size = len(scene.train) // ACCEPTING_ROUNDS
    approvals: list[Approval] = []
    config = parse_config(scene.studio.projects.get(scene.project)["label_config"])
    runtime, key = scene.runtime, scene.key
    order = random.Random(1).sample(scene.train, len(scene.train))
    data = {int(task["id"]): task["data"] for task in scene.tasks(scene.train)}
    trainer = HeadTrainer(scene.settings, scene.studio, runtime.versions, runtime.embedder)
    for turn in range(ACCEPTING_ROUNDS):
        part = order[turn * size : (turn + 1) * size]
        predictor = Predictor(runtime.versions.get(config, key, serving), runtime.embedder)
        tasks = [{"id": task, "data": data[task]} for task in part]
        for one in predictor.predict_stored(tasks):
            assert one.task is not None
            blind = is_blind(key, one.task, blind_share)
            suggested = {label.key for label in one.scored[0].suggested}
            keys = set(scene.truth[one.task]) if blind else suggested
            states = tuple(POSITIVE if label in keys else NEGATIVE for label in scene.labels)
            provenance = "blind" if blind else "accepted"
            approvals.append(Approval(one.task, states, provenance, time.time()))
        pulled = Pulled(key, config, {CONTROL: approvals}, data)
        made = trainer.train(pulled).made
        if made is None:
            continue
        heads.keep(key, replace(made, accepted=True))
        if CONTROL in made.controls:
            serving = made.name
    end = scene.measured(serving)
    old, new = start["suggested"], end["suggested"]
    often = old >= MIN_POSITIVES
    drift = ((new - old).abs() / old.clamp_min(1))[often]
    overall = float(new.sum() / old.sum() - 1)
    return {
        "all labels together": f"{100 * overall:+.1f} %",
        "a label, median": f"{100 * float(drift.median()):.1f} %",
        "a label, worst": f"{100 * float(drift.max()):.1f} %",
        "labels": int(often.sum()),
        "mAP before": f"{start['mAP']:.1f}",
        "mAP after": f"{end['mAP']:.1f}",
    }


def single_positive(scene: Scene) -> tuple[Rows, str]:
    """One known label a photo, and a few reviews: what that gives over the reviews alone."""
    config = parse_config(scene.studio.projects.get(scene.project)["label_config"])
    labels, runtime, key = scene.labels, scene.runtime, scene.key
    data = {int(task["id"]): task["data"] for task in scene.tasks(scene.train)}
    chance = random.Random(2)
    known = {task: chance.choice(scene.truth[task]) for task in scene.train if scene.truth[task]}
    order = random.Random(3).sample(scene.train, len(scene.train))
    trainer = HeadTrainer(scene.settings, scene.studio, runtime.versions, runtime.embedder)
    rows: Rows = [{**_row("zero-shot", scene.measured(ZERO_SHOT)), "known": 0, "reviewed": 0}]
    for reviewed in (25, 100, 400):
        for with_known in (False, True):
            approvals = []
            for place, task in enumerate(order):
                if place < reviewed:
                    states = tuple(
                        POSITIVE if label in scene.truth[task] else NEGATIVE for label in labels
                    )
                    approvals.append(Approval(task, states, "edited", time.time()))
                elif with_known and task in known:
                    states = tuple(
                        POSITIVE if label == known[task] else UNKNOWN for label in labels
                    )
                    approvals.append(Approval(task, states, "known"))
            pulled = Pulled(key, config, {CONTROL: approvals}, data)
            made = trainer.train(pulled).made
            assert made is not None
            found = scene.measured(made.name if made.controls else ZERO_SHOT)
            name = made.controls[CONTROL].head.card.objective if made.controls else "refused"
            row = {**_row(name, found), "known": len(approvals) - reviewed, "reviewed": reviewed}
            rows.append(row)
            print(row, flush=True)
    note = "The trainer is called without Label Studio here; the objective is what it chose."
    return [{"reviewed": r.pop("reviewed"), "known": r.pop("known"), **r} for r in rows], note


def latency(scene: Scene) -> tuple[Rows, str]:
    """From the 20th approval to refreshed suggestions, and what Submit costs meanwhile."""
    number = int(
        scene.studio.projects.create(
            "latency", scene.studio.projects.get(scene.project)["label_config"]
        )["id"]
    )
    scene.studio.projects.add_local_files(number, str(scene.images))
    tasks = list(scene.studio.tasks.iterate(scene.project))
    ids = scene.studio.tasks.create(number, [{"data": task["data"]} for task in tasks])
    truth = {new: scene.truth[int(old["id"])] for new, old in zip(ids, tasks, strict=True)}
    connect(scene.settings, scene.studio, scene.runtime, number)
    other = replace(scene, project=number, truth=truth, train=ids, test=[])
    annotator = Annotator(other)
    before = scene.studio.projects.get(number)["model_version"]
    annotator.review(20)
    calm = annotator.seconds
    started = time.monotonic()
    busy = Annotator(other)
    busy._left = annotator._left
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            busy.review(5)

    thread = threading.Thread(target=go_on)
    thread.start()
    while scene.studio.projects.get(number)["model_version"] == before:
        assert time.monotonic() - started < 300
        time.sleep(0.1)
    took = time.monotonic() - started
    stop.set()
    thread.join()
    rows = [
        {
            "": name,
            "submits": len(seconds),
            "median s": f"{statistics.median(seconds):.2f}",
            "worst s": f"{max(seconds):.2f}",
        }
        for name, seconds in (("nothing happens", calm), ("training and refresh", busy.seconds))
    ]
    note = (
        f"{took:.1f} s from the 20th approval to refreshed suggestions of {len(ids)} tasks. No "
        "Submit failed."
    )
    return rows, note


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable; default: all")
    parser.add_argument("--photos", type=int, default=1605)
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    options = parser.parse_args(arguments)
    options.data = options.data.resolve()
    options.part = options.part or [*PARTS]
    return options


def main() -> None:
    """Command line."""
    options = parsed()
    quiet_and_unsteered()
    parts: dict[str, Callable[[Scene], tuple[Rows, str]]] = {
        "accepting": accepting,
        "single-positive": single_positive,
        "latency": latency,
        "reviews": reviews,
    }
    with tempfile.TemporaryDirectory(prefix="ls-clip-loop-") as folder:
        os.chdir(folder)
        try:
            with ExitStack() as stack:
                scene = build(stack, Path(folder), options.data, options.photos)
                for part, run in parts.items():
                    if part not in options.part:
                        continue
                    started = time.monotonic()
                    rows, note = run(scene)
                    text = f"{report.table(rows)}\n\n{note}\n\n{machine()}."
                    print(f"\n## {part} ({time.monotonic() - started:.0f} s)\n\n{text}", flush=True)
                    if not options.no_write:
                        page = ROOT / "docs" / "training.md"
                        marks = (
                            f"<!-- {part}: written by benchmarks/loop.py -->",
                            f"<!-- end of {part} -->",
                        )
                        report.put(page, *marks, text)
        finally:
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
