"""The training job: what it makes once, what it does not undo, and what survives Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis import Redis

from backend.errors import StudioError
from backend.heads import ZERO_SHOT, Heads
from backend.runtime import Runtime
from jobs import due, queues
from jobs.train import look_again, train
from jobs.trainings import ACCEPTED, FAILED, IDLE, NOTHING_NEW, Trainings
from tests.conftest import MakeRuntime, choices_config
from tests.stub_studio import KEY, PROJECT, StubStudio
from tests.test_trainer import approvals, mixed, pulled

Approve = Callable[[int], None]


@pytest.fixture
def house(
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
    monkeypatch.setattr("jobs.train.runtime", lambda: runtime)
    monkeypatch.setattr("backend.studio.Studio.last_change", lambda *_: "now")
    return runtime


@pytest.fixture
def heads(house: Runtime) -> Heads:
    return house.predictor.heads


@pytest.fixture
def trainings(house: Runtime, connection: Redis) -> Trainings:
    return Trainings(connection)


@pytest.fixture
def approve(monkeypatch: pytest.MonkeyPatch) -> Approve:
    """Let the first so many tasks be reviewed."""

    def some(count: int) -> None:
        found = {"tags": approvals(mixed, "unaided")[:count]}
        what = pulled(choices_config("cat", "dog"), found)
        monkeypatch.setattr("backend.trainer.Trainer.pull", lambda *_: what)

    some(25)
    return some


def test_the_same_head_is_not_made_twice_and_comes_into_use_at_once(
    approve: Approve, heads: Heads, trainings: Trainings, connection: Redis
):
    trainings.note(PROJECT, refreshed=time.time())
    train(PROJECT, "enough")
    assert trainings.get(PROJECT).outcome == ACCEPTED
    waits = due.moment(connection, due.REFRESH, PROJECT)
    assert waits is not None and waits > time.time() + 10
    train(PROJECT, "forced")
    now = trainings.get(PROJECT)
    assert (now.outcome, now.candidate) == (NOTHING_NEW, "h1")
    assert heads.names(KEY) == ["h1"]
    waits = due.moment(connection, due.REFRESH, PROJECT)
    assert waits is not None and waits <= time.time()
    approve(26)
    train(PROJECT, "forced")
    assert heads.names(KEY) == ["h1", "h2"]


def test_an_accepted_head_survives_an_empty_redis(
    approve: Approve, heads: Heads, trainings: Trainings, connection: Redis
):
    train(PROJECT, "enough")
    connection.flushall()
    assert not due.is_known(connection)
    look_again()
    assert due.is_known(connection)
    assert due.moment(connection, due.RECONCILE, PROJECT) is not None
    train(PROJECT, "reconcile")
    assert trainings.get(PROJECT).candidate == "h1"
    assert due.moment(connection, due.REFRESH, PROJECT) is not None
    heads.serve(KEY, "h1")
    assert heads.accepted(KEY) == ""


def test_what_was_approved_before_does_not_undo_a_rollback(
    approve: Approve, heads: Heads, trainings: Trainings
):
    train(PROJECT, "enough")
    heads.serve(KEY, "h1")
    approve(28)
    heads.serve(KEY, ZERO_SHOT, back=True)
    train(PROJECT, "reconcile")
    now = trainings.get(PROJECT)
    assert (now.outcome, now.candidate) == (NOTHING_NEW, "")
    assert "Gone back to zero-shot" in now.reason
    train(PROJECT, "enough")
    assert trainings.get(PROJECT).outcome == NOTHING_NEW
    assert heads.names(KEY) == ["h1"]


def test_a_look_that_finds_nothing_does_not_hide_the_last_training(
    approve: Approve, trainings: Trainings
):
    train(PROJECT, "enough")
    before = trainings.get(PROJECT)
    for why in ("enough", "reconcile"):
        train(PROJECT, why)
        now = trainings.get(PROJECT)
        assert (now.outcome, now.reason, now.ended) == (ACCEPTED, before.reason, before.ended)


def test_asking_again_after_a_rollback_names_the_way_forward(
    approve: Approve, heads: Heads, trainings: Trainings
):
    train(PROJECT, "enough")
    heads.serve(KEY, "h1")
    heads.serve(KEY, ZERO_SHOT, back=True)
    train(PROJECT, "forced")
    now = trainings.get(PROJECT)
    assert now.outcome == NOTHING_NEW
    assert "ls-clip rollback 1 h1" in now.reason
    assert heads.names(KEY) == ["h1"]


def test_a_project_that_is_gone_is_not_looked_at_any_more(
    house: Runtime, studio: StubStudio, trainings: Trainings, connection: Redis
):
    studio.before = lambda method, path: 404 if path.startswith("/api/projects/") else None
    due.add(connection, due.LATE, PROJECT, time.time() + 60)
    train(PROJECT, "reconcile")
    now = trainings.get(PROJECT)
    assert (now.state, now.outcome) == (IDLE, FAILED)
    assert "404" in now.reason
    assert due.moment(connection, due.LATE, PROJECT) is None
    assert due.moment(connection, due.RECONCILE, PROJECT) is None


def test_what_a_failed_training_took_is_looked_at_again(
    approve: Approve,
    house: Runtime,
    heads: Heads,
    trainings: Trainings,
    connection: Redis,
    monkeypatch: pytest.MonkeyPatch,
):
    def refused(*_: object) -> None:
        raise StudioError("It refuses.", "Let it.")

    trainings.heard(PROJECT, 25)
    with monkeypatch.context() as patch:
        patch.setattr("backend.trainer.Trainer.train", refused)
        train(PROJECT, "enough")
    now = trainings.get(PROJECT)
    assert (now.outcome, now.pending) == (FAILED, 25)
    assert due.moment(connection, due.RECONCILE, PROJECT) is not None
    train(PROJECT, "reconcile")
    assert heads.names(KEY) == ["h1"]
    assert trainings.get(PROJECT).pending == 0


def test_only_a_worker_that_trains_is_asked_to_look_again(
    house: Runtime, connection: Redis, monkeypatch: pytest.MonkeyPatch
):
    from jobs.tend import tend

    tend(connection)
    assert queues.queue(connection, queues.TRAIN).get_job_ids() == []
    monkeypatch.setattr("jobs.queues.workers", lambda *_: 1)
    for _ in range(2):
        connection.delete("ls-clip:tending")
        tend(connection)
    assert queues.queue(connection, queues.TRAIN).get_job_ids() == ["look-again"]
    look_again()
    assert due.is_known(connection)
