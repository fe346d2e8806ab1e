"""When a head is trained: events, debouncing, jobs that are lost, and who acts on what is due."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from redis import Redis

from backend.errors import ClipError
from backend.inference.prediction import Prediction
from backend.labels.config import parse_config
from backend.server.app import create_app
from backend.server.background import Background
from backend.settings import Settings
from jobs import enqueue, queue, schedule
from jobs.events import project_number, record_event
from jobs.reconciler import TRAINING_ATTEMPTS
from jobs.run import RunState, Scope, Trigger
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import Outcome, TrainingState, TrainingStore, approvals_needed
from tests.support.builders import choices_config, contract
from tests.support.clock import Clock
from tests.support.fixtures import MakeRuntime
from tests.support.queues import lose_the_queue, reconcile_now
from tests.support.stub_label_studio import stub_studio
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def trainings(connection: Redis) -> TrainingStore:
    return TrainingStore(connection)


def event(name: str, **fields: Any) -> dict[str, Any]:
    body = dict(contract(f"webhook_{name}")["body"])
    return {**body, "project": {"id": 5, "label_config": choices_config()}, **fields}


def told(connection: Redis, name: str, **fields: Any) -> None:
    record_event(connection, Settings(_env_file=None), event(name, **fields), 5)


def jobs_of(connection: Redis, name: str) -> list[str]:
    return list(queue.queue(connection, name).get_job_ids())


# Events


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("full_annotation_created", {Kind.LATE, Kind.ROUND}),
        ("full_annotations_created", {Kind.LATE, Kind.ROUND}),
        ("full_annotation_updated", {Kind.LATE, Kind.ROUND}),
        ("full_annotations_deleted", {Kind.LATE, Kind.ROUND}),
        ("thin_annotation_created", {Kind.LATE, Kind.ROUND}),
        ("start_training", {Kind.FORCED}),
        ("full_tasks_created", {Kind.PREDICT}),
        ("thin_tasks_created", {Kind.PREDICT}),
        ("full_project_updated", {Kind.PREDICT, Kind.ROUND}),
    ],
)
def test_each_event_shape_leads_to_its_work(connection: Redis, name: str, kinds: set[str]):
    told(connection, name)
    everything = {*Kind} - {Kind.RECONCILE}
    assert {
        kind for kind in everything if schedule.moment(connection, kind, 5) is not None
    } == kinds
    assert schedule.moment(connection, Kind.RECONCILE, 5) is not None


def test_the_project_is_known_without_a_payload():
    assert project_number({"action": "x"}, "7") == 7
    assert project_number({"project": {"id": 5}}, "7") == 5
    for named in (None, "", "²", "-1", "7.1", "9" * 40):
        assert project_number({"project": {"id": True}}, named) is None


def test_lists_of_annotations_count_one_by_one(connection: Redis, trainings: TrainingStore):
    told(connection, "full_annotations_created", annotation=[{"id": n} for n in range(11)])
    assert schedule.moment(connection, Kind.TRAIN, 5) is None
    told(connection, "full_annotation_created")
    assert schedule.moment(connection, Kind.TRAIN, 5) is not None
    assert trainings.get(5).pending == 12


def test_a_hundred_events_at_once_give_one_training_and_at_most_one_follow_up(
    connection: Redis, trainings: TrainingStore, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(60):
        told(connection, "full_annotation_created")
    monkeypatch.setattr("jobs.events.GATHER_SECONDS", 0.0)
    schedule.add(connection, Kind.TRAIN, 5, time.time() - 1)
    reconcile_now(connection)
    assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 5)]
    for _ in range(40):
        told(connection, "full_annotation_created")
    for _ in range(3):
        reconcile_now(connection)
    assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 5)]
    trainings.begin(5)
    trainings.end(5, Outcome.ACCEPTED, "better")
    assert schedule.moment(connection, Kind.TRAIN, 5) is not None


def test_each_approval_puts_off_the_training_for_a_few(connection: Redis):
    told(connection, "full_annotation_created")
    first = schedule.moment(connection, Kind.LATE, 5)
    time.sleep(0.02)
    told(connection, "full_annotation_updated")
    second = schedule.moment(connection, Kind.LATE, 5)
    assert first is not None and second is not None
    assert second > first


def test_new_tasks_are_gathered_for_a_minute(connection: Redis):
    told(connection, "full_tasks_created")
    first = schedule.moment(connection, Kind.PREDICT, 5)
    time.sleep(0.02)
    told(connection, "full_tasks_created")
    assert schedule.moment(connection, Kind.PREDICT, 5) == first


def test_our_own_change_of_a_project_leads_to_nothing_and_new_labels_to_a_run(connection: Redis):
    digest = parse_config(choices_config()).digest
    RunStore(connection).set_config(5, digest)
    told(connection, "full_project_updated")
    assert schedule.moment(connection, Kind.PREDICT, 5) is None
    other = {"id": 5, "label_config": choices_config("cat", "wolf")}
    told(connection, "full_project_updated", project=other)
    assert schedule.moment(connection, Kind.PREDICT, 5) is not None


def test_a_config_that_cannot_be_read_breaks_nothing(connection: Redis):
    RunStore(connection).set_config(5, "abc")
    told(connection, "full_project_updated", project={"id": 5, "label_config": "<View"})
    assert schedule.moment(connection, Kind.PREDICT, 5) is None


def test_an_event_is_answered_before_it_is_acted_upon(
    make_runtime: MakeRuntime, connection: Redis, valkey: Any, monkeypatch: pytest.MonkeyPatch
):
    release, recorded = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        release.wait(PATIENCE)
        recorded.set()

    monkeypatch.setattr("backend.server.background.record_event", slow)
    client = create_app(make_runtime(redis_url=valkey.url)).test_client()
    assert client.post("/webhook", json=event("full_annotation_created")).status_code == 200
    assert not recorded.is_set()
    release.set()
    assert recorded.wait(PATIENCE)


def test_an_event_that_cannot_be_noted_is_said(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    runtime = make_runtime(redis_url="redis://127.0.0.1:1/0")
    client = create_app(runtime).test_client()
    assert client.post("/webhook", json=event("full_annotation_created")).status_code == 200
    until(lambda: "was not recorded" in caplog.text)


def test_a_redis_that_hangs_keeps_the_store_from_nothing(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        runtime = make_runtime(redis_url=f"redis://127.0.0.1:{hanging.getsockname()[1]}/0")
        work = Background(runtime)
        for _ in range(50):
            work.record_event(event("full_annotation_created"), 5)
        work.log_predictions("5.1", [Prediction(1, "v1", [], 0.5, ())])
        until(lambda: runtime.prediction_log.of_tasks("5.1", [1]))
        assert "was not recorded" not in caplog.text
    # What has come meanwhile costs one more wait, and not one each.
    until(lambda: "and 48 more" in caplog.text or "and 49 more" in caplog.text)


# Trainings


def test_enough_is_twelve_or_a_quarter_of_what_the_head_saw():
    assert [approvals_needed(seen) for seen in (0, 47, 52, 400)] == [12, 12, 13, 100]


def test_the_first_head_that_learns_comes_with_the_twelfth_review_after_a_correction_too():
    assert [approvals_needed(seen) for seen in (5, 11, 12)] == [7, 1, 12]


def test_who_asks_during_a_training_waits_for_the_next(trainings: TrainingStore):
    first = trainings.request(5)
    trainings.begin(5)
    second = trainings.request(5)
    trainings.end(5, Outcome.ACCEPTED, "better", notes=("one", "two"))
    now = trainings.get(5)
    assert (now.served, now.notes) == (first, ("one", "two"))
    assert now.served < second
    trainings.begin(5)
    trainings.end(5, Outcome.ACCEPTED, "better")
    assert trainings.get(5).served == second


def test_asked_twice_one_job_is_queued(trainings: TrainingStore, connection: Redis):
    enqueue.request_training(trainings, 5)
    enqueue.request_training(trainings, 5)
    assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 5)]
    assert schedule.moment(connection, Kind.FORCED, 5) is not None


def test_a_lost_training_comes_again_and_is_given_up_in_the_end(
    trainings: TrainingStore, connection: Redis, clock: Clock
):
    enqueue.request_training(trainings, 5)
    assert trainings.get(5).state == TrainingState.QUEUED
    for attempt in range(TRAINING_ATTEMPTS):
        lose_the_queue(RunStore(connection))
        reconcile_now(connection)
        assert jobs_of(connection, queue.TRAIN) == [], "it comes after a pause"
        clock.now += 61
        reconcile_now(connection)
        assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 5)], attempt
        assert trainings.get(5).attempts == attempt + 1
    lose_the_queue(RunStore(connection))
    reconcile_now(connection)
    now = trainings.get(5)
    assert (now.state, now.outcome) == (TrainingState.IDLE, Outcome.FAILED)
    assert "still serves" in now.reason
    assert trainings.active() == []


def test_a_training_outlasts_an_outage_of_half_an_hour(
    trainings: TrainingStore, connection: Redis, clock: Clock
):
    enqueue.request_training(trainings, 5)
    until = clock.now + 1800
    while clock.now < until:
        # The worker has begun it and found nobody.
        trainings.note(5, state=TrainingState.TRAINING, blocked_on="Label Studio does not answer.")
        lose_the_queue(RunStore(connection))
        reconcile_now(connection)
        clock.now += 5
    assert trainings.get(5).state != TrainingState.IDLE
    for _ in range(1800 // 5 * 2):
        trainings.note(5, blocked_on="Label Studio does not answer.")
        lose_the_queue(RunStore(connection))
        reconcile_now(connection)
        clock.now += 5
    now = trainings.get(5)
    assert (now.state, now.outcome) == (TrainingState.IDLE, Outcome.FAILED)
    assert "Label Studio does not answer." in now.reason


def test_a_failed_training_says_why(trainings: TrainingStore):
    trainings.begin(5)
    trainings.fail(5, ClipError("There are no labels.", "Add some."))
    assert trainings.get(5).reason == "There are no labels. Fix: Add some."


# What is due


@pytest.fixture
def runs(connection: Redis) -> RunStore:
    return RunStore(connection)


def test_a_refresh_waits_for_the_run_that_is_going_on(
    runs: RunStore, trainings: TrainingStore, connection: Redis
):
    run, _ = enqueue.start_run(runs, 5, Scope.MISSING, Trigger.CLI)
    trainings.note(5, candidate="h1")
    schedule.add(connection, Kind.REFRESH, 5, time.time())
    reconcile_now(connection)
    again = schedule.moment(connection, Kind.REFRESH, 5)
    assert again is not None and again > time.time()
    runs.end(run.id, RunState.DONE)
    schedule.add(connection, Kind.REFRESH, 5, time.time() - 1)
    reconcile_now(connection)
    (refresh,) = runs.active()
    assert (refresh.head, refresh.scope, refresh.trigger) == (
        "h1",
        Scope.UNLABELLED,
        Trigger.TRAINING,
    )
    assert trainings.get(5).run == refresh.id


def test_a_refresh_that_nobody_wants_any_more_is_not_made(runs: RunStore, connection: Redis):
    schedule.add(connection, Kind.REFRESH, 5, time.time())
    reconcile_now(connection)
    assert runs.active() == []
    assert schedule.moment(connection, Kind.REFRESH, 5) is None


def test_tasks_that_came_during_a_run_are_looked_at_after_it(runs: RunStore, connection: Redis):
    enqueue.start_run(runs, 5, Scope.MISSING, Trigger.CLI)
    schedule.add(connection, Kind.PREDICT, 5, time.time())
    reconcile_now(connection)
    again = schedule.moment(connection, Kind.PREDICT, 5)
    assert again is not None and again > time.time() + 30


def test_a_training_whose_record_is_damaged_is_set_aside_and_named(
    connection: Redis, caplog: pytest.LogCaptureFixture
):
    trainings = TrainingStore(connection)
    trainings.queued(5)
    connection.hset(queue.key(connection, "training:5"), "pending", "many")
    reconcile_now(connection)
    assert "training of project 5" in caplog.text
    assert trainings.get(5).state == TrainingState.IDLE
    assert trainings.active() == []
    assert connection.hget(queue.key(connection, "training:5:damaged"), "pending") == b"many"


# HTTP


@pytest.fixture
def client(make_runtime: MakeRuntime, valkey: Any, connection: Redis) -> Any:
    return create_app(
        make_runtime(redis_url=valkey.url, basic_auth_user="u", basic_auth_pass="p")
    ).test_client()


def test_a_training_is_asked_for_by_http(client: Any, connection: Redis):
    assert client.post("/projects/5/train").status_code == 401
    answer = client.post("/projects/5/train", auth=("u", "p"))
    assert (answer.status_code, answer.json["state"]) == (202, TrainingState.QUEUED)
    assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 5)]
    shown = client.get("/projects/5/training", auth=("u", "p")).json
    assert {"state", "outcome", "reason", "head", "pending", "enough"} <= set(shown)


def test_a_project_that_there_is_not_is_refused(
    make_runtime: MakeRuntime, valkey: Any, connection: Redis
):
    with stub_studio() as studio:
        given = {"label_studio_url": studio.url, "label_studio_api_key": "f" * 40}
        client = create_app(make_runtime(redis_url=valkey.url, **given)).test_client()
        for route in ("train", "predict"):
            answer = client.post(f"/projects/99/{route}")
            assert answer.status_code == 404
            assert "project's number" in answer.json["error"]["fix"]
            assert client.post(f"/projects/1/{route}").status_code == 202
    assert jobs_of(connection, queue.TRAIN) == [enqueue.train_id(connection, 1)]


def test_the_button_is_heard(client: Any, connection: Redis):
    body = event("start_training")
    assert client.post("/webhook", json=body, auth=("u", "p")).status_code == 200
    until(lambda: schedule.moment(connection, Kind.FORCED, 5) is not None)
