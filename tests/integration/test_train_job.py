"""The training job: what it makes once, what it does not undo, and what survives Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis import Redis

from backend.errors import StudioError
from backend.runtime import Runtime
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder
from backend.training.clicks_text import clicks_text
from backend.vlpl.decisions import Provenance
from jobs import queue, schedule
from jobs.schedule import Kind
from jobs.train_job import reconcile_all, train
from jobs.training_state import Outcome, TrainingReason, TrainingState, TrainingStore
from tests.support.approvals import approvals, mixed, pulled
from tests.support.builders import choices_config
from tests.support.fixtures import MakeRuntime
from tests.support.heads import head_set
from tests.support.queues import reconcile_now
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

Approve = Callable[[int], None]


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime,
    valkey: object,
    connection: Redis,
    studio: StubStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> Runtime:
    runtime = make_runtime(
        redis_url=valkey.url,  # type: ignore[attr-defined]
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        audit_share=0.0,
        blind_share=0.0,
    )
    monkeypatch.setattr("jobs.train_job.process_runtime", lambda: runtime)
    monkeypatch.setattr("backend.labelstudio.tasks.Tasks.last_change", lambda *_: "now")
    return runtime


@pytest.fixture
def heads(runtime: Runtime) -> HeadRegistry:
    return runtime.versions.heads


@pytest.fixture
def trainings(runtime: Runtime, connection: Redis) -> TrainingStore:
    return TrainingStore(connection)


@pytest.fixture
def approve(monkeypatch: pytest.MonkeyPatch) -> Approve:
    """Let the first so many tasks be reviewed."""

    def some(count: int) -> None:
        found = {"tags": approvals(mixed, Provenance.UNAIDED)[:count]}
        what = pulled(choices_config("cat", "dog"), found)
        monkeypatch.setattr("backend.training.head_trainer.HeadTrainer.pull", lambda *_: what)

    some(25)
    return some


def test_the_same_head_is_not_made_twice_and_comes_into_use_at_once(
    approve: Approve, heads: HeadRegistry, trainings: TrainingStore, connection: Redis
):
    trainings.note(PROJECT, refreshed=time.time())
    train(PROJECT, TrainingReason.ENOUGH)
    assert trainings.get(PROJECT).outcome == Outcome.ACCEPTED
    waits = schedule.moment(connection, Kind.REFRESH, PROJECT)
    assert waits is not None and waits > time.time() + 10
    train(PROJECT, TrainingReason.FORCED)
    now = trainings.get(PROJECT)
    assert (now.outcome, now.candidate) == (Outcome.NOTHING_NEW, "h1")
    assert heads.names(KEY) == ["h1"]
    waits = schedule.moment(connection, Kind.REFRESH, PROJECT)
    assert waits is not None and waits <= time.time()
    approve(26)
    train(PROJECT, TrainingReason.FORCED)
    assert heads.names(KEY) == ["h1", "h2"]


def test_what_suggestions_cost_is_told_until_the_next_head_is_made(
    runtime: Runtime,
    approve: Approve,
    heads: HeadRegistry,
    trainings: TrainingStore,
    monkeypatch: pytest.MonkeyPatch,
):
    assert trainings.get(PROJECT).as_dict()["clicks"] is None
    train(PROJECT, TrainingReason.FORCED)
    assert trainings.get(PROJECT).as_dict()["clicks"] is None
    given = runtime.settings.model_copy(update={"audit_share": 0.5})
    monkeypatch.setattr(runtime, "settings", given)
    approve(30)
    train(PROJECT, TrainingReason.FORCED)
    for _ in range(2):
        told = trainings.get(PROJECT).as_dict()
        kept = heads.get(KEY, "h2")
        assert kept.clicks is not None and kept.serving_clicks is not None
        assert told["head"] == "h2" and told["clicks"]["tasks"] == kept.clicks.tasks
        assert told["clicks"]["text"] == clicks_text(kept.clicks, told["enough"])
        assert told["serving_clicks"]["text"] == clicks_text(kept.serving_clicks, told["enough"])
        # A look that makes no head changes nothing of it.
        train(PROJECT, TrainingReason.FORCED)


def test_an_accepted_head_survives_an_empty_redis(
    approve: Approve, heads: HeadRegistry, trainings: TrainingStore, connection: Redis
):
    train(PROJECT, TrainingReason.ENOUGH)
    connection.flushall()
    assert not schedule.is_known(connection)
    reconcile_all()
    assert schedule.is_known(connection)
    assert schedule.moment(connection, Kind.RECONCILE, PROJECT) is not None
    train(PROJECT, TrainingReason.RECONCILE)
    assert trainings.get(PROJECT).candidate == "h1"
    assert schedule.moment(connection, Kind.REFRESH, PROJECT) is not None
    # The events of reviews may have been lost, too.
    assert schedule.moment(connection, Kind.ROUND, PROJECT) is not None
    heads.set_serving(KEY, "h1")
    assert heads.candidate(KEY) == ""


def test_a_project_that_only_an_archive_was_imported_into_is_not_reconciled(
    runtime: Runtime, connection: Redis
):
    """Else its first connection would find orders and labels noted, and take it for an old one."""
    ProjectState(runtime.store, "7.1795416973").set_known_field("known_label")
    ProjectState(runtime.store, "8.1795416973").note_order(ReviewOrder.RANDOM, 1.0)
    reconcile_all()
    assert schedule.moment(connection, Kind.RECONCILE, 7) is None
    assert schedule.moment(connection, Kind.RECONCILE, 8) is not None


def test_an_accepted_head_of_another_encoder_is_dropped(
    runtime: Runtime, approve: Approve, trainings: TrainingStore, connection: Redis
):
    heads = runtime.versions.heads
    heads.save(KEY, head_set("h1", "another encoder", 3))
    heads.set_candidate(KEY, "h1")
    trainings.note(PROJECT, candidate="h1", last_change="now")
    train(PROJECT, TrainingReason.RECONCILE)
    assert heads.candidate(KEY) == trainings.get(PROJECT).candidate == ""
    assert schedule.moment(connection, Kind.REFRESH, PROJECT) is None
    approve(26)
    train(PROJECT, TrainingReason.FORCED)
    assert heads.candidate(KEY) == trainings.get(PROJECT).candidate == "h2"


def test_what_was_approved_before_does_not_undo_a_rollback(
    approve: Approve, heads: HeadRegistry, trainings: TrainingStore
):
    train(PROJECT, TrainingReason.ENOUGH)
    heads.set_serving(KEY, "h1")
    approve(28)
    heads.set_serving(KEY, ZERO_SHOT, rollback=True)
    train(PROJECT, TrainingReason.RECONCILE)
    now = trainings.get(PROJECT)
    assert (now.outcome, now.candidate) == (Outcome.NOTHING_NEW, "")
    assert "Gone back to zero-shot" in now.reason
    train(PROJECT, TrainingReason.ENOUGH)
    assert trainings.get(PROJECT).outcome == Outcome.NOTHING_NEW
    assert heads.names(KEY) == ["h1"]


def test_a_look_that_finds_nothing_does_not_hide_the_last_training(
    approve: Approve, trainings: TrainingStore
):
    train(PROJECT, TrainingReason.ENOUGH)
    before = trainings.get(PROJECT)
    for reason in (TrainingReason.ENOUGH, TrainingReason.RECONCILE):
        train(PROJECT, reason)
        now = trainings.get(PROJECT)
        assert (now.outcome, now.reason, now.ended) == (
            Outcome.ACCEPTED,
            before.reason,
            before.ended,
        )


def test_asking_again_after_a_rollback_names_the_way_forward(
    approve: Approve, heads: HeadRegistry, trainings: TrainingStore
):
    train(PROJECT, TrainingReason.ENOUGH)
    heads.set_serving(KEY, "h1")
    heads.set_serving(KEY, ZERO_SHOT, rollback=True)
    train(PROJECT, TrainingReason.FORCED)
    now = trainings.get(PROJECT)
    assert now.outcome == Outcome.NOTHING_NEW
    assert "ls-clip rollback 1 h1" in now.reason
    assert heads.names(KEY) == ["h1"]


def test_a_project_that_is_gone_is_not_looked_at_any_more(
    runtime: Runtime, studio: StubStudio, trainings: TrainingStore, connection: Redis
):
    studio.before = lambda method, path: 404 if path.startswith("/api/projects/") else None
    schedule.add(connection, Kind.LATE, PROJECT, time.time() + 60)
    train(PROJECT, TrainingReason.RECONCILE)
    now = trainings.get(PROJECT)
    assert (now.state, now.outcome) == (TrainingState.IDLE, Outcome.FAILED)
    assert "404" in now.reason
    assert schedule.moment(connection, Kind.LATE, PROJECT) is None
    assert schedule.moment(connection, Kind.RECONCILE, PROJECT) is None


def test_what_a_failed_training_took_is_looked_at_again(
    approve: Approve,
    runtime: Runtime,
    heads: HeadRegistry,
    trainings: TrainingStore,
    connection: Redis,
    monkeypatch: pytest.MonkeyPatch,
):
    def refused(*_: object) -> None:
        raise StudioError("It refuses.", "Let it.")

    trainings.count_approvals(PROJECT, 25)
    with monkeypatch.context() as patch:
        patch.setattr("backend.training.head_trainer.HeadTrainer.train", refused)
        train(PROJECT, TrainingReason.ENOUGH)
    now = trainings.get(PROJECT)
    assert (now.outcome, now.pending) == (Outcome.FAILED, 25)
    assert schedule.moment(connection, Kind.RECONCILE, PROJECT) is not None
    train(PROJECT, TrainingReason.RECONCILE)
    assert heads.names(KEY) == ["h1"]
    assert trainings.get(PROJECT).pending == 0


def test_only_a_worker_that_trains_is_asked_to_look_again(
    runtime: Runtime, connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    reconcile_now(connection)
    assert queue.queue(connection, queue.TRAIN).get_job_ids() == []
    monkeypatch.setattr("jobs.queue.workers", lambda *_: 1)
    for _ in range(2):
        reconcile_now(connection)
    assert queue.queue(connection, queue.TRAIN).get_job_ids() == [
        queue.own_name(connection, "look-again")
    ]
    reconcile_all()
    assert schedule.is_known(connection)
