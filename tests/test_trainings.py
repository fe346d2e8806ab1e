"""When a head is trained: events, debouncing, jobs that are lost, and who acts on what is due."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from redis import Redis

from backend.app import create_app
from backend.errors import ClipError
from backend.events import hear, project_number
from backend.housekeeping import Housekeeping
from backend.labels import parse_config
from backend.prediction import Prediction
from backend.settings import Settings
from jobs import due, orders, projects, queues
from jobs.runs import Runs
from jobs.tend import TRAINING_ATTEMPTS, tend
from jobs.trainings import ACCEPTED, FAILED, IDLE, QUEUED, TRAINING, Trainings, enough
from tests.conftest import Clock, MakeRuntime, choices_config, contract
from tests.stub_studio import stub_studio
from tests.test_tend import lose_the_queue


@pytest.fixture
def trainings(connection: Redis) -> Trainings:
    return Trainings(connection)


def event(name: str, **fields: Any) -> dict[str, Any]:
    body = dict(contract(f"webhook_{name}")["body"])
    return {**body, "project": {"id": 5, "label_config": choices_config()}, **fields}


def told(connection: Redis, name: str, **fields: Any) -> None:
    hear(connection, Settings(_env_file=None), event(name, **fields), 5)


def round_of(connection: Redis) -> None:
    connection.delete("ls-clip:tending")
    tend(connection)


def jobs_of(connection: Redis, name: str) -> list[str]:
    return list(queues.queue(connection, name).get_job_ids())


# Events


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("full_annotation_created", {due.LATE}),
        ("full_annotations_created", {due.LATE}),
        ("full_annotation_updated", {due.LATE}),
        ("full_annotations_deleted", {due.LATE}),
        ("thin_annotation_created", {due.LATE}),
        ("start_training", {due.FORCED}),
        ("full_tasks_created", {due.PREDICT}),
        ("thin_tasks_created", {due.PREDICT}),
        ("full_project_updated", {due.PREDICT}),
    ],
)
def test_each_event_shape_leads_to_its_work(connection: Redis, name: str, kinds: set[str]):
    told(connection, name)
    everything = (due.TRAIN, due.LATE, due.FORCED, due.PREDICT, due.REFRESH)
    assert {kind for kind in everything if due.moment(connection, kind, 5) is not None} == kinds
    assert due.moment(connection, due.RECONCILE, 5) is not None


def test_the_project_is_known_without_a_payload():
    assert project_number({"action": "x"}, "7") == 7
    assert project_number({"project": {"id": 5}}, "7") == 5
    for named in (None, "", "²", "-1", "7.1", "9" * 40):
        assert project_number({"project": {"id": True}}, named) is None


def test_lists_of_annotations_count_one_by_one(connection: Redis, trainings: Trainings):
    told(connection, "full_annotations_created", annotation=[{"id": n} for n in range(19)])
    assert due.moment(connection, due.TRAIN, 5) is None
    told(connection, "full_annotation_created")
    assert due.moment(connection, due.TRAIN, 5) is not None
    assert trainings.get(5).pending == 20


def test_a_hundred_events_at_once_give_one_training_and_at_most_one_follow_up(
    connection: Redis, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(60):
        told(connection, "full_annotation_created")
    monkeypatch.setattr("backend.events.GATHER_SECONDS", 0.0)
    due.add(connection, due.TRAIN, 5, time.time() - 1)
    round_of(connection)
    assert jobs_of(connection, queues.TRAIN) == ["5-train"]
    for _ in range(40):
        told(connection, "full_annotation_created")
    for _ in range(3):
        round_of(connection)
    assert jobs_of(connection, queues.TRAIN) == ["5-train"]
    trainings.begin(5)
    trainings.end(5, ACCEPTED, "better")
    assert due.moment(connection, due.TRAIN, 5) is not None


def test_each_approval_puts_off_the_training_for_a_few(connection: Redis):
    told(connection, "full_annotation_created")
    first = due.moment(connection, due.LATE, 5)
    time.sleep(0.02)
    told(connection, "full_annotation_updated")
    second = due.moment(connection, due.LATE, 5)
    assert first is not None and second is not None
    assert second > first


def test_new_tasks_are_gathered_for_a_minute(connection: Redis):
    told(connection, "full_tasks_created")
    first = due.moment(connection, due.PREDICT, 5)
    time.sleep(0.02)
    told(connection, "full_tasks_created")
    assert due.moment(connection, due.PREDICT, 5) == first


def test_our_own_change_of_a_project_leads_to_nothing_and_new_labels_to_a_run(connection: Redis):
    digest = parse_config(choices_config()).digest
    projects.set_config(connection, 5, digest)
    told(connection, "full_project_updated")
    assert due.moment(connection, due.PREDICT, 5) is None
    other = {"id": 5, "label_config": choices_config("cat", "wolf")}
    told(connection, "full_project_updated", project=other)
    assert due.moment(connection, due.PREDICT, 5) is not None


def test_a_config_that_cannot_be_read_breaks_nothing(connection: Redis):
    projects.set_config(connection, 5, "abc")
    told(connection, "full_project_updated", project={"id": 5, "label_config": "<View"})
    assert due.moment(connection, due.PREDICT, 5) is None


def test_an_event_is_answered_before_it_is_acted_upon(
    make_runtime: MakeRuntime, connection: Redis, valkey: Any, monkeypatch: pytest.MonkeyPatch
):
    def slow(*_: Any) -> None:
        time.sleep(3)

    monkeypatch.setattr("backend.housekeeping.hear", slow)
    client = create_app(make_runtime(redis_url=valkey.url)).test_client()
    started = time.monotonic()
    assert client.post("/webhook", json=event("full_annotation_created")).status_code == 200
    assert time.monotonic() - started < 2


def test_an_event_that_cannot_be_noted_is_said(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    house = make_runtime(redis_url="redis://127.0.0.1:1/0")
    client = create_app(house).test_client()
    assert client.post("/webhook", json=event("full_annotation_created")).status_code == 200
    deadline = time.monotonic() + 20
    while "is not noted" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_redis_that_hangs_keeps_the_store_from_nothing(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        house = make_runtime(redis_url=f"redis://127.0.0.1:{hanging.getsockname()[1]}/0")
        work = Housekeeping(house)
        for _ in range(50):
            work.hear(event("full_annotation_created"), 5)
        work.remember("5.1", [Prediction(1, "v1", [], 0.5, ())])
        deadline = time.monotonic() + 60
        while not house.snapshots.of_tasks("5.1", [1]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "is not noted" not in caplog.text
    # What has come meanwhile costs one more wait, and not one each.
    while "and 48 more" not in caplog.text and "and 49 more" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Trainings


def test_enough_is_twenty_or_a_quarter_of_what_the_head_saw():
    assert [enough(seen) for seen in (0, 79, 80, 400)] == [20, 20, 20, 100]


def test_who_asks_during_a_training_waits_for_the_next(trainings: Trainings):
    first = trainings.ask(5)
    trainings.begin(5)
    second = trainings.ask(5)
    trainings.end(5, ACCEPTED, "better", notes=("one", "two"))
    now = trainings.get(5)
    assert (now.served, now.notes) == (first, ("one", "two"))
    assert now.served < second
    trainings.begin(5)
    trainings.end(5, ACCEPTED, "better")
    assert trainings.get(5).served == second


def test_asked_twice_one_job_is_queued(trainings: Trainings, connection: Redis):
    orders.ask_for_training(trainings, 5)
    orders.ask_for_training(trainings, 5)
    assert jobs_of(connection, queues.TRAIN) == ["5-train"]
    assert due.moment(connection, due.FORCED, 5) is not None


def test_a_lost_training_comes_again_and_is_given_up_in_the_end(
    trainings: Trainings, connection: Redis, clock: Clock
):
    orders.ask_for_training(trainings, 5)
    assert trainings.get(5).state == QUEUED
    for attempt in range(TRAINING_ATTEMPTS):
        lose_the_queue(Runs(connection))
        round_of(connection)
        assert jobs_of(connection, queues.TRAIN) == [], "it comes after a pause"
        clock.now += 61
        round_of(connection)
        assert jobs_of(connection, queues.TRAIN) == ["5-train"], attempt
        assert trainings.get(5).attempts == attempt + 1
    lose_the_queue(Runs(connection))
    round_of(connection)
    now = trainings.get(5)
    assert (now.state, now.outcome) == (IDLE, FAILED)
    assert "still serves" in now.reason
    assert trainings.active() == []


def test_a_training_outlasts_an_outage_of_half_an_hour(
    trainings: Trainings, connection: Redis, clock: Clock
):
    orders.ask_for_training(trainings, 5)
    until = clock.now + 1800
    while clock.now < until:
        # The worker has begun it and found nobody.
        trainings.note(5, state=TRAINING, waits_for="Label Studio does not answer.")
        lose_the_queue(Runs(connection))
        round_of(connection)
        clock.now += 5
    assert trainings.get(5).state != IDLE
    for _ in range(1800 // 5 * 2):
        trainings.note(5, waits_for="Label Studio does not answer.")
        lose_the_queue(Runs(connection))
        round_of(connection)
        clock.now += 5
    now = trainings.get(5)
    assert (now.state, now.outcome) == (IDLE, FAILED)
    assert "Label Studio does not answer." in now.reason


def test_a_failed_training_says_why(trainings: Trainings):
    trainings.begin(5)
    trainings.fail(5, ClipError("There are no labels.", "Add some."))
    assert trainings.get(5).reason == "There are no labels. Fix: Add some."


# What is due


@pytest.fixture
def runs(connection: Redis) -> Runs:
    return Runs(connection)


def test_a_refresh_waits_for_the_run_that_is_going_on(
    runs: Runs, trainings: Trainings, connection: Redis
):
    run, _ = orders.start(runs, 5, "missing", "cli")
    trainings.note(5, candidate="h1")
    due.add(connection, due.REFRESH, 5, time.time())
    round_of(connection)
    again = due.moment(connection, due.REFRESH, 5)
    assert again is not None and again > time.time()
    runs.end(run.id, "done")
    due.add(connection, due.REFRESH, 5, time.time() - 1)
    round_of(connection)
    (refresh,) = runs.active()
    assert (refresh.head, refresh.only, refresh.asked_by) == ("h1", "unlabelled", "training")
    assert trainings.get(5).run == refresh.id


def test_a_refresh_that_nobody_wants_any_more_is_not_made(runs: Runs, connection: Redis):
    due.add(connection, due.REFRESH, 5, time.time())
    round_of(connection)
    assert runs.active() == []
    assert due.moment(connection, due.REFRESH, 5) is None


def test_tasks_that_came_during_a_run_are_looked_at_after_it(runs: Runs, connection: Redis):
    orders.start(runs, 5, "missing", "cli")
    due.add(connection, due.PREDICT, 5, time.time())
    round_of(connection)
    again = due.moment(connection, due.PREDICT, 5)
    assert again is not None and again > time.time() + 30


def test_of_two_supervisors_one_acts(connection: Redis):
    for project in range(20):
        due.add(connection, due.LATE, project, time.time() - 1)
    taken = due.take(connection) + due.take(connection)
    assert len(taken) == len(set(taken)) == 20


# HTTP


@pytest.fixture
def client(make_runtime: MakeRuntime, valkey: Any, connection: Redis) -> Any:
    return create_app(
        make_runtime(redis_url=valkey.url, basic_auth_user="u", basic_auth_pass="p")
    ).test_client()


def test_a_training_is_asked_for_by_http(client: Any, connection: Redis):
    assert client.post("/projects/5/train").status_code == 401
    answer = client.post("/projects/5/train", auth=("u", "p"))
    assert (answer.status_code, answer.json["state"]) == (202, QUEUED)
    assert jobs_of(connection, queues.TRAIN) == ["5-train"]
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
    assert jobs_of(connection, queues.TRAIN) == ["1-train"]


def test_the_button_is_heard(client: Any, connection: Redis):
    body = event("start_training")
    assert client.post("/webhook", json=body, auth=("u", "p")).status_code == 200
    deadline = time.monotonic() + 10
    while due.moment(connection, due.FORCED, 5) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
