"""A run from its start to its end, and faults on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs import enqueue
from jobs.run import Run, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.builders import data_uri
from tests.support.stub_label_studio import PROJECT, StubStudio

SHARD = 16


def add_tasks(studio: StubStudio, *numbers: int) -> None:
    studio.tasks |= {number: {"image": data_uri(number)} for number in numbers}


def now(runs: RunStore, run: Run) -> Run:
    found = runs.get(run.id)
    assert found is not None
    return found


def begin(runs: RunStore) -> Run:
    return enqueue.start_run(runs, PROJECT, Scope.MISSING, Trigger.CLI)[0]


def calls_of(studio: StubStudio, method: str, ending: str) -> int:
    return sum(1 for one, path in studio.calls if one == method and path.endswith(ending))


def nth(number: int, method: str, ending: str, act: Callable[[], Any]) -> Callable[..., Any]:
    """A fault for one call only: the n-th of these, counted from 1."""
    count = 0

    def fault(asked: str, path: str) -> Any:
        nonlocal count
        if asked != method or not path.endswith(ending):
            return None
        count += 1
        return act() if count == number else None

    return fault


TASKS, PREDICTIONS, IMPORT = "/api/tasks/", "/api/predictions/", "/import/predictions"
THIS_PROJECT = f"/projects/{PROJECT}/"
