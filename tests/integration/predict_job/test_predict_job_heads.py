"""Runs that put a head into use, in this process, while Label Studio and Redis misbehave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import RedisError

from backend.labels.config import parse_config
from backend.runtime import Runtime
from backend.storage.head_registry import ZERO_SHOT
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.decisions import Provenance
from jobs import enqueue, schedule
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.train_job import train
from jobs.training_state import TrainingReason, TrainingState, TrainingStore
from tests.support.builders import data_uri
from tests.support.heads import head_set
from tests.support.predict_job import (
    add_tasks,
    begin,
    now,
)
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio


@pytest.fixture
def head(runtime: Runtime) -> str:
    """An accepted set of heads that does not serve yet."""
    runtime.versions.heads.save(KEY, head_set("h1", runtime.encoder.id, runtime.encoder.dim))
    runtime.versions.heads.set_candidate(KEY, "h1")
    return "h1"


def refresh(runs: RunStore, head: str) -> Run:
    return enqueue.start_run(runs, PROJECT, Scope.UNLABELLED, Trigger.TRAINING, head)[0]


def test_a_head_serves_only_once_its_predictions_are_shown(
    runtime: Runtime,
    runs: RunStore,
    studio: StubStudio,
    work: Callable[[], None],
    again: Callable[[str], None],
    head: str,
):
    add_tasks(studio, *range(1, 21))
    begin(runs)
    work()
    before = studio.shown
    run = refresh(runs, head)
    studio.before = lambda method, path: 503 if method == "PATCH" else None
    work()
    # Imported, and Label Studio is gone before anyone is shown anything.
    assert now(runs, run).state == RunState.IMPORTING
    assert runtime.versions.heads.serving(KEY) == ZERO_SHOT
    assert studio.shown == before
    assert len(studio.shown_tasks()) == 20
    studio.before = lambda method, path: None
    again(enqueue.finish_id(run.id))
    assert now(runs, run).state == RunState.DONE
    assert runtime.versions.heads.serving(KEY) == head
    assert studio.shown != before
    counts = Counter(
        one["task"] for one in studio.predictions if one["model_version"] == studio.shown
    )
    assert set(counts.values()) == {1} and len(counts) == 20


def test_a_head_that_was_withdrawn_during_its_refresh_is_not_put_into_use(
    runtime: Runtime, runs: RunStore, studio: StubStudio, work: Callable[[], None], head: str
):
    add_tasks(studio, *range(1, 21))
    begin(runs)
    work()
    before = studio.shown
    run = refresh(runs, head)
    assert runtime.versions.heads.withdraw_candidate(KEY) == head
    work()
    ended = now(runs, run)
    assert ended.state == RunState.DONE
    assert any("withdrawn" in note for note in ended.notes)
    assert runtime.versions.heads.serving(KEY) == ZERO_SHOT
    assert studio.shown == before


def test_a_head_that_was_accepted_during_a_refresh_still_waits_for_its_own(
    runtime: Runtime, runs: RunStore, studio: StubStudio, work: Callable[[], None], head: str
):
    add_tasks(studio, *range(1, 21))
    run = refresh(runs, head)
    trainings = TrainingStore(runs.connection)
    runtime.versions.heads.set_candidate(KEY, "h9")
    trainings.note(PROJECT, candidate="h9")
    work()
    assert now(runs, run).state == RunState.DONE
    assert runtime.versions.heads.serving(KEY) == head
    assert runtime.versions.heads.candidate(KEY) == "h9"
    assert trainings.get(PROJECT).candidate == "h9"
    assert schedule.moment(runs.connection, Kind.REFRESH, PROJECT) is not None


def test_redis_dying_at_the_last_step_changes_nothing_that_is_shown(
    runtime: Runtime,
    runs: RunStore,
    studio: StubStudio,
    work: Callable[[], None],
    again: Callable[[str], None],
    head: str,
    monkeypatch: pytest.MonkeyPatch,
):
    add_tasks(studio, *range(1, 21))
    run = refresh(runs, head)

    def gone(*_: Any) -> None:
        raise RedisError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("jobs.run_store.RunStore.end", gone)
        work()
    shown = studio.shown
    assert runtime.versions.get(parse_config(studio.config), KEY).name == shown
    assert now(runs, run).state == RunState.IMPORTING
    again(enqueue.finish_id(run.id))
    assert now(runs, run).state == RunState.DONE
    assert studio.shown == shown
    assert len(studio.predictions) == 20


def test_a_head_is_rolled_back_to_the_predictions_that_are_there(
    runtime: Runtime, runs: RunStore, studio: StubStudio, work: Callable[[], None], head: str
):
    add_tasks(studio, *range(1, 21))
    begin(runs)
    work()
    before = studio.shown
    refresh(runs, head)
    work()
    made = len(studio.predictions)
    run, _ = enqueue.start_run(runs, PROJECT, Scope.UNLABELLED, Trigger.CLI, ZERO_SHOT)
    work()
    assert now(runs, run).state == RunState.DONE
    assert runtime.versions.heads.history(KEY) == [ZERO_SHOT, head, ZERO_SHOT]
    assert studio.shown == before
    assert len(studio.predictions) == made


def test_a_training_that_dies_in_the_middle_leaves_the_old_head_serving(
    runtime: Runtime, runs: RunStore, studio: StubStudio, monkeypatch: pytest.MonkeyPatch, head: str
):
    runtime.versions.heads.set_serving(KEY, head)
    config = parse_config(studio.config)
    states = (1, -1, -1)
    approvals = [Approval(number, states, Provenance.EDITED, 1.0) for number in range(1, 31)]
    data = {number: {"image": data_uri(number)} for number in range(1, 31)}
    pulled = Pulled(KEY, config, {"tags": approvals}, data)
    monkeypatch.setattr("jobs.train_job.process_runtime", lambda: runtime)
    monkeypatch.setattr("backend.training.head_trainer.HeadTrainer.pull", lambda *_: pulled)
    monkeypatch.setattr("backend.labelstudio.tasks.Tasks.last_change", lambda *_: "now")
    trainings = TrainingStore(runs.connection)

    def dies(*_: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr("backend.training.head_trainer.fit", dies)
        with pytest.raises(SystemExit):
            train(PROJECT, TrainingReason.FORCED)
    assert runtime.versions.heads.serving(KEY) == head
    assert runtime.versions.heads.names(KEY) == [head]
    assert trainings.get(PROJECT).state == TrainingState.TRAINING
    train(PROJECT, TrainingReason.FORCED)
    assert trainings.get(PROJECT).state == TrainingState.IDLE
    assert runtime.versions.heads.names(KEY) == [head, "h2"]
    assert runtime.versions.heads.serving(KEY) == head
