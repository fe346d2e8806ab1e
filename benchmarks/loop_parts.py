"""The experiments of benchmarks/loop.py; each returns the rows of a table and a note below it."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.projects.connect import connect
from backend.storage.head_registry import ZERO_SHOT
from backend.training.approvals import Approval
from backend.training.head_trainer import HeadTrainer
from backend.training.pulling import Pulled
from backend.vlpl.decisions import (
    NEGATIVE,
    POSITIVE,
    PROVENANCE_WEIGHTS,
    UNKNOWN,
    Provenance,
)
from benchmarks.loop_scene import CONTROL, MIN_POSITIVES, Annotator, Scene, train_and_refresh

BATCH = 25
"""Reviews at a time."""
ROUNDS = (25, 50, 100, 200, 300, 400, 500, 600)
"""Numbers of reviews after which a head is trained."""
ACCEPTING_ROUNDS = 10

Row = dict[str, Any]
Rows = list[Row]


def reviews(scene: Scene, rounds: Sequence[int] = ROUNDS) -> tuple[Rows, str]:
    """Review in batches and train now and then: the measures on the test tasks after each."""
    annotator = Annotator(scene)
    rows: Rows = [_row("zero-shot", scene.measured())]
    done = 0
    outcome = ""
    for goal in rounds:
        while done < goal:
            annotator.review(min(BATCH, goal - done))
            done += min(BATCH, goal - done)
        outcome = train_and_refresh(scene)
        rows.append(_row(f"{goal} reviews", scene.measured()))
        print(rows[-1], outcome, flush=True)
    gain = float(rows[-1]["mAP"]) - float(rows[0]["mAP"])
    note = f"mAP {gain:+.1f} points (goal at least 8). The last training: {outcome}."
    return rows, note


def _row(name: str, measured: Mapping[str, Any]) -> Row:
    return {
        "": name,
        "precision": measured["precision"],
        "recall": measured["recall"],
        "mAP": f"{measured['mAP']:.1f}",
        "clicks per task": f"{measured['clicks per task']:.2f}",
        "from nothing": f"{measured['without suggestions']:.2f}",
    }


def accepting(scene: Scene) -> tuple[Rows, str]:
    """Accept every suggestion unchanged, for ten rounds: does the head confirm its own errors?"""
    rows: Rows = []
    ones = dict.fromkeys(PROVENANCE_WEIGHTS, 1.0)
    for name, weights, share in (
        ("provenance weights and blind tasks", dict(PROVENANCE_WEIGHTS), 0.05),
        ("blind tasks, all reviews weigh 1", ones, 0.05),
        ("neither", ones, 0.0),
    ):
        before = dict(PROVENANCE_WEIGHTS)
        PROVENANCE_WEIGHTS.update(weights)
        try:
            rows.append({"": name, **_accept(scene, share)})
        finally:
            PROVENANCE_WEIGHTS.update(before)
    note = (
        f"Of {ACCEPTING_ROUNDS} rounds with {len(scene.train) // ACCEPTING_ROUNDS} tasks each. "
        "Frequencies are those of suggested labels on the tasks that nobody reviewed, of the "
        "labels that were suggested 10 times or more at the start. Blind tasks are answered from "
        "the truth, since they show nothing to accept. The trainer is called without Label Studio "
        "here."
    )
    return rows, note


def _accept(scene: Scene, blind_share: float) -> Row:
    """Ten rounds with this share of blind tasks: how far the suggested labels drift."""
    heads = scene.runtime.versions.heads
    start = scene.measured(ZERO_SHOT)
    serving = ZERO_SHOT
    size = len(scene.train) // ACCEPTING_ROUNDS
    approvals: list[Approval] = []
    runtime, key, config = scene.runtime, scene.key, scene.config
    order = random.Random(1).sample(scene.train, len(scene.train))
    data = {int(task["id"]): task["data"] for task in scene.tasks(scene.train)}
    trainer = HeadTrainer(scene.settings, scene.studio, runtime.versions, runtime.embedder)
    for turn in range(ACCEPTING_ROUNDS):
        part = order[turn * size : (turn + 1) * size]
        predictor = Predictor(runtime.versions.get(config, key, serving), runtime.embedder)
        tasks = [{"id": task, "data": data[task]} for task in part]
        for prediction in predictor.predict_stored(tasks):
            task = prediction.task
            assert task is not None
            blind = is_blind(key, task, blind_share)
            suggested = {label.key for label in prediction.scored[0].suggested}
            keys = set(scene.truth[task]) if blind else suggested
            states = tuple(POSITIVE if label in keys else NEGATIVE for label in scene.labels)
            provenance = Provenance.BLIND if blind else Provenance.ACCEPTED
            approvals.append(Approval(task, states, provenance, time.time()))
        reviewed = frozenset(order[: (turn + 1) * size])
        pulled = Pulled(key, config, {CONTROL: approvals}, data, random=reviewed)
        made = trainer.train(pulled).made
        if made is None:
            continue
        heads.save(key, replace(made, accepted=True))
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
    """One known label per photo beside a few reviews: what that adds to the reviews alone."""
    config, labels, runtime, key = scene.config, scene.labels, scene.runtime, scene.key
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
                    approvals.append(Approval(task, states, Provenance.EDITED, time.time()))
                elif with_known and task in known:
                    states = tuple(
                        POSITIVE if label == known[task] else UNKNOWN for label in labels
                    )
                    approvals.append(Approval(task, states, Provenance.KNOWN))
            by_chance = frozenset(order[:reviewed])
            pulled = Pulled(key, config, {CONTROL: approvals}, data, random=by_chance)
            made = trainer.train(pulled).made
            assert made is not None
            measured = scene.measured(made.name if made.controls else ZERO_SHOT)
            name = made.controls[CONTROL].head.card.objective if made.controls else "refused"
            row = {**_row(name, measured), "known": len(approvals) - reviewed, "reviewed": reviewed}
            rows.append(row)
            print(row, flush=True)
    note = "The trainer is called without Label Studio here; the objective is what it chose."
    first_columns: Row = {"reviewed": 0, "known": 0}
    return [first_columns | row for row in rows], note


def latency(scene: Scene) -> tuple[Rows, str]:
    """Time from the 20th approval to refreshed suggestions, and what Submit costs meanwhile."""
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
    busy.left = annotator.left
    stop = threading.Event()

    def keep_reviewing() -> None:
        while not stop.is_set():
            busy.review(5)

    thread = threading.Thread(target=keep_reviewing)
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
