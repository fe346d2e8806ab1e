"""The loop on a real Label Studio: approvals train a head, and the suggestions are refreshed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.inference.predictor import Predictor
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from jobs import schedule
from jobs.run import ENDED, RunState
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import Outcome, Training, TrainingState, TrainingStore
from tests.support.commands import run_command
from tests.support.live import (
    PHOTOS,
    Review,
    choices_of,
    environment_of,
    shown_predictions,
    shows_nothing,
)
from tests.support.waiting import until


def refreshed(trainings: TrainingStore, project: int) -> Training:
    """The training after an accepted head has come into use."""

    def served() -> Training | None:
        now = trainings.get(project)
        done = (
            now.outcome == Outcome.ACCEPTED
            and not now.candidate
            and now.state == TrainingState.IDLE
        )
        return now if done and now.refreshed else None

    return until(served, 120)


def test_twelve_approvals_train_a_head_and_refresh_the_rest(
    loop: Settings,
    loop_runtime: Runtime,
    studio: LabelStudioClient,
    connected: int,
    review: Review,
    trainings: TrainingStore,
):
    key = project_key(studio.projects.get(connected))
    before = shown_predictions(studio, connected)
    assert len(before) == PHOTOS
    blind = {task for task, one in before.items() if shows_nothing(one)}
    assert 0 < len(blind) < PHOTOS / 2
    reviewed = review(connected, 12)
    now = refreshed(trainings, connected)
    heads = HeadRegistry(loop_runtime.store)
    assert heads.serving(key) == now.head == "h1"
    after = shown_predictions(studio, connected)
    # Annotated tasks keep the prediction that people saw; the others have one of the new version.
    assert set(after) == {task for task in before if task not in reviewed}
    assert {one["model_version"] for one in after.values()} == {
        loop_runtime.versions.get(_config(studio, connected), key).name
    }
    # Blind tasks stay blind.
    assert {task for task, one in after.items() if shows_nothing(one)} == blind - set(reviewed)
    assert heads.get(key, "h1").approvals == 12
    # The truth was submitted, so that some suggestions were changed.
    assert set(heads.get(key, "h1").provenance) <= {"blind", "edited", "accepted"}
    assert heads.get(key, "h1").provenance.get("blind", 0) == len(blind & set(reviewed))

    # The commands show it, and go back to the same scores.
    folder, environment = Path(loop.store).parent, environment_of(loop)
    listed = run_command("heads", str(connected), cwd=folder, **environment)
    assert listed.returncode == 0, listed.stderr
    assert "h1" in listed.stdout and "accepted" in listed.stdout
    back = run_command("rollback", str(connected), "--wait", cwd=folder, **environment)
    assert back.returncode == 0, back.stderr
    shown = studio.projects.get(connected)["model_version"]
    told = f"Zero-shot suggestions are in use now; the project shows {shown}."
    assert told in " ".join(back.stderr.split())
    assert heads.serving(key) == ZERO_SHOT
    again = shown_predictions(studio, connected)
    assert {task: one["result"] for task, one in again.items()} == {
        task: one["result"] for task, one in before.items()
    }
    assert {one["score"] for one in again.values()} == {one["score"] for one in before.values()}

    # That lasts: what was approved before starts nothing, and asking again makes no second head.
    until(lambda: "Gone back to zero-shot" in trainings.get(connected).reason)
    asked = run_command("train", str(connected), "--wait", cwd=folder, **environment)
    assert asked.returncode == 0, asked.stderr
    assert f"ls-clip rollback {connected} h1" in " ".join(asked.stderr.split())
    assert heads.serving(key) == ZERO_SHOT
    assert heads.names(key) == ["h1"]


def test_the_button_trains_now_and_says_what_is_missing(
    api: Callable[..., Any],
    studio: LabelStudioClient,
    connected: int,
    review: Review,
    trainings: TrainingStore,
):
    review(connected, 5)
    backend = studio.backends.of_project(connected)[0]["id"]
    api("POST", f"/api/ml/{backend}/train", json={})
    now = until(lambda: _ended(trainings.get(connected)))
    assert now.outcome == Outcome.TOO_FEW
    assert "7 more" in now.reason
    assert set(studio.predictions.versions(connected)) == {
        studio.projects.get(connected)["model_version"]
    }


def test_new_tasks_and_new_labels_lead_to_runs(
    loop: Settings,
    studio: LabelStudioClient,
    connected: int,
    label_config: str,
    trainings: TrainingStore,
):
    connection = trainings.connection
    runs = RunStore(connection)
    shown = studio.projects.get(connected)["model_version"]
    task = next(iter(studio.tasks.iterate(connected)))
    (new,) = studio.tasks.create(connected, [{"data": task["data"]}])
    until(lambda: schedule.moment(connection, Kind.PREDICT, connected))
    schedule.add(connection, Kind.PREDICT, connected, time.time())
    until(lambda: new in shown_predictions(studio, connected))
    until(lambda: all(run.state in ENDED for run in runs.of_project(connected)))
    count = len(runs.of_project(connected))
    # Our own change of the project is none of its labels.
    studio.projects.update(connected, title="another title")
    time.sleep(8)
    assert len(runs.of_project(connected)) == count
    more = label_config.replace("</Choices>", '<Choice value="harbour"/></Choices>')
    studio.projects.update(connected, label_config=more)
    until(lambda: studio.projects.get(connected)["model_version"] != shown)
    run = until(lambda: _done(runs.of_project(connected)[0]))
    assert (run.state, run.trigger) == (RunState.DONE, "webhook")
    assert len(shown_predictions(studio, connected)) == PHOTOS + 1


def test_a_lost_event_is_found_by_reconciling(
    loop: Settings,
    studio: LabelStudioClient,
    connected: int,
    review: Review,
    trainings: TrainingStore,
):
    for hook in studio.webhooks.of_project(connected):
        studio.webhooks.delete(hook["id"])
    review(connected, 25)
    assert trainings.get(connected).pending == 0
    schedule.add(trainings.connection, Kind.RECONCILE, connected, time.time())
    refreshed(trainings, connected)


def test_live_predictions_are_blind_where_imported_ones_are(
    loop_runtime: Runtime, studio: LabelStudioClient, connected: int
):
    imported = shown_predictions(studio, connected)
    project = studio.projects.get(connected)
    version = loop_runtime.versions.get(_config(studio, connected), project_key(project))
    predictor = Predictor(version, loop_runtime.embedder)
    live = predictor.predict(list(studio.tasks.iterate(connected)))
    for one in live:
        assert one.task is not None
        kept = imported[one.task]
        assert one.score == kept["score"]
        assert one.blind == shows_nothing(kept)
        assert one.result is not None
        if one.blind:
            kept_items = [{name: item[name] for name in one.result[0]} for item in kept["result"]]
            assert kept_items == one.result
        if not one.blind:
            ticked = [i["value"]["choices"] for i in one.result or [] if i["from_name"] == "tags"]
            assert [choices_of(kept)] == ticked or (not ticked and not choices_of(kept))


def _ended(training: Training) -> Training | None:
    return training if training.ended and training.state == TrainingState.IDLE else None


def _done(run: Any) -> Any:
    return run if run.state in ENDED else None


def _config(studio: LabelStudioClient, project: int) -> Any:
    from backend.labels.config import parse_config

    return parse_config(studio.projects.get(project)["label_config"])
