"""Runs over a whole project, watched from outside."""

from __future__ import annotations

import subprocess
import time
from collections import Counter

from backend.demo.servers import LocalWorker
from backend.labelstudio.client import LabelStudioClient
from jobs.polling import wait
from jobs.run import ENDED, Run, RunState
from jobs.run_store import RunStore
from tests.support.waiting import PATIENCE, until

MANY = 200
LOCAL = "/data/local-files/?d=many/"


def processes_of(worker: LocalWorker) -> list[int]:
    pid = str(worker.pid)
    done = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def ended(runs: RunStore, run: Run, seconds: float = PATIENCE) -> Run:
    deadline = time.monotonic() + seconds

    def told(now: Run) -> None:
        assert time.monotonic() < deadline, now

    return wait(runs, run.id, told)


def exactly_one_each(studio: LabelStudioClient, project: int, run: Run, bad: int = 0) -> None:
    """By Label Studio's own API: each good task has one prediction of the version, and shows it."""
    tasks = {int(task["id"]) for task in studio.tasks.iterate(project)}
    found = Counter(
        int(one["task"])
        for one in studio.predictions.of_project(project)
        if one["model_version"] == run.model_version
    )
    assert set(found.values()) == {1}
    assert len(found) == len(tasks) - bad
    assert studio.projects.get(project)["model_version"] == run.model_version


def begun(runs: RunStore, run: Run, images: int = 20) -> Run:
    """The run in the middle of its shards."""

    def far_enough() -> Run | None:
        now = runs.get(run.id)
        assert now is not None
        assert now.state not in ENDED
        return now if now.embedded >= images and now.state == RunState.EMBEDDING else None

    return until(far_enough)
