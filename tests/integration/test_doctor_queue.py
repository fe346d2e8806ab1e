"""The doctor on suggestions and on the queue, with a real Valkey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from backend.doctor import queue as doctor_queue
from backend.doctor import suggestions as doctor_suggestions
from backend.doctor.context import Context
from backend.doctor.finding import Finding, examine
from backend.errors import StudioError
from backend.settings import Settings
from jobs import enqueue
from jobs.run import RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.training_state import Outcome, TrainingState, TrainingStore
from tests.support.builders import choices_config, make_settings
from tests.support.processes import free_port

# Suggestions


def suggestions(tmp_path: Path, **content: Any) -> Context:
    context = Context(make_settings(tmp_path / "store"), 4)
    defaults: dict[str, Any] = {
        "project": {"model_version": "v1"},
        "backends": [],
        "open_tasks": {1, 2, 3},
        "predictions": [{"task": 1, "model_version": "v1"}],
        "failures": {},
    }
    vars(context).update({**defaults, **content})
    return context


def test_a_task_that_the_last_run_could_not_predict_is_told_with_its_reason(tmp_path: Path):
    why = {"message": "a.jpg is not there.", "fix": "Upload it again."}
    first, second = doctor_suggestions.missing(suggestions(tmp_path, failures={2: why, 9: why}))
    assert "1 task without an annotation could not be predicted" in first.what
    assert "(task 2): a.jpg is not there." in first.what
    assert first.fix.startswith("Upload it again. Then")
    assert "1 of 3 tasks without an annotation has no prediction of v1: task 3." in second.what


def test_findings_about_tasks_name_them(tmp_path: Path):
    unknown = {"from_name": "tags", "type": "choices", "value": {"choices": ["GONE"]}}
    twice = [{"task": task, "model_version": "v1", "result": [unknown]} for task in (1, 2, 2, 1)]
    context = suggestions(
        tmp_path,
        project={"model_version": "v1", "label_config": choices_config()},
        open_tasks=set(range(1, 10)),
        predictions=twice,
    )
    (lacking,) = doctor_suggestions.missing(context)
    assert "have no prediction of v1: tasks 3, 4, 5, 6, 7 and 2 more." in lacking.what
    (duplicated,) = doctor_suggestions.duplicated(context)
    assert duplicated.what.endswith("one version: tasks 1, 2.")
    (gone,) = doctor_suggestions.gone_labels(context)
    assert "GONE (4), in tasks 1, 2." in gone.what


def test_a_project_that_shows_the_backends_answers_lacks_no_predictions(tmp_path: Path):
    live = suggestions(tmp_path, backends=[{"title": "v1"}])
    (found,) = doctor_suggestions.missing(live)
    assert found.severity == "ok"


def test_no_version_is_left_out_without_a_word(tmp_path: Path):
    many = [{"task": 1, "model_version": f"v{number}"} for number in range(7)]
    (found,) = doctor_suggestions.versions(suggestions(tmp_path, predictions=many))
    assert "and 2 more" in found.what


# The queue, on a real Valkey


def queue_findings(settings: Settings, project: int | None = None) -> dict[str, Finding]:
    found = examine(Context(settings, project), doctor_queue.CHECKS)
    return {one.check: one for one in found if one.severity != "ok"}


def test_without_a_queue_nothing_is_said_about_it(tmp_path: Path):
    assert queue_findings(make_settings(tmp_path / "store"), 1) == {}


def test_a_queue_that_is_down_is_one_error_that_names_the_setting(tmp_path: Path):
    settings = make_settings(tmp_path / "store", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    found = queue_findings(settings, 1)
    assert set(found) == {"queue", "skipped"}
    assert found["queue"].severity == "error"
    assert "LS_CLIP_REDIS_URL" in found["queue"].fix


def test_a_queue_without_workers_and_one_that_forgets_are_named(
    queue_settings: Settings, connection: Redis
):
    found = queue_findings(queue_settings)
    assert set(found) == {"workers"}
    assert found["workers"].what == "No worker listens on the queue."
    assert "ls-clip worker" in found["workers"].fix
    for number, said in ((1, "in which 1 job waits."), (2, "in which 2 jobs wait.")):
        enqueue.start_run(RunStore(connection), number, Scope.MISSING, Trigger.CLI)
        assert said in queue_findings(queue_settings)["workers"].what
    connection.config_set("appendonly", "no")
    try:
        assert set(queue_findings(queue_settings)) == {"workers", "queue"}
    finally:
        connection.config_set("appendonly", "yes")


@pytest.mark.parametrize(
    ("fields", "end", "severity", "said"),
    [
        ({}, "failed", "warning", "It says no."),
        ({"blocked_on": "Label Studio does not answer."}, "", "warning", "does not answer"),
        ({"updated": 1.0}, "", "warning", "no progress"),
        ({}, "left out", "note", "1 task out: task 7."),
    ],
)
def test_a_run_that_failed_waits_stands_still_or_left_tasks_out_is_told(
    queue_settings: Settings,
    connection: Redis,
    fields: dict[str, Any],
    end: str,
    severity: str,
    said: str,
):
    runs = RunStore(connection)
    run, _ = runs.start(4, Scope.MISSING, Trigger.CLI)
    if end == "failed":
        runs.end(run.id, RunState.FAILED, StudioError("It says no.", "Ask nicely."))
    elif end == "left out":
        runs.record_failures(run.id, {7: {"code": "truncated"}})
        runs.end(run.id, RunState.DONE)
    else:
        runs.note(run.id, **fields)
    found = queue_findings(queue_settings, 4)["run"]
    assert found.severity == severity
    assert said in found.what
    assert found.why and found.fix


@pytest.mark.parametrize(
    ("outcome", "fields", "severity", "said"),
    [
        (Outcome.FAILED, {"pending": 0}, "warning", "failed"),
        (Outcome.REJECTED, {"pending": 0}, "note", "was rejected"),
        (Outcome.ACCEPTED, {"pending": 7}, "warning", "7 new approvals wait."),
        (Outcome.ACCEPTED, {"pending": 1}, "warning", "1 new approval waits."),
        (Outcome.ACCEPTED, {"state": TrainingState.QUEUED}, "warning", "a training waits."),
    ],
)
def test_a_training_that_failed_was_refused_or_has_no_worker_is_told(
    queue_settings: Settings,
    connection: Redis,
    outcome: Outcome,
    fields: dict[str, Any],
    severity: str,
    said: str,
):
    trainings = TrainingStore(connection)
    trainings.end(4, outcome, "The reason.")
    trainings.note(4, **fields)
    found = queue_findings(queue_settings, 4)["training"]
    assert found.severity == severity
    assert said in found.what
    assert found.why and found.fix


@pytest.mark.parametrize("outcome", [Outcome.NONE, Outcome.TOO_FEW])
def test_before_the_first_training_it_is_not_said_that_it_went_well(
    queue_settings: Settings, connection: Redis, outcome: Outcome
):
    TrainingStore(connection).end(4, outcome, "New approvals: 0.")
    findings = examine(Context(queue_settings, 4), doctor_queue.CHECKS)
    (found,) = [one for one in findings if one.check == "training"]
    assert (found.severity, found.what) == ("ok", "The project has had no training yet.")


def test_a_training_that_went_well_is_not_spoken_of(queue_settings: Settings, connection: Redis):
    TrainingStore(connection).end(4, Outcome.ACCEPTED, "Better.")
    assert "training" not in queue_findings(queue_settings, 4)
