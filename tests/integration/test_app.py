"""HTTP: what Label Studio was seen to send gets the answers that it needs."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend import telemetry
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.server.app import create_app
from tests.support.builders import CONTRACT, LABELS, choices_config, contract, predict_body, task
from tests.support.fixtures import MakeRuntime
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import until

AUTH = {"basic_auth_user": "u", "basic_auth_pass": "p", "webhook_secret": "s3cret"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
SAMPLES = sorted(path.stem for path in CONTRACT.glob("*.json"))


@pytest.fixture
def client(make_runtime: MakeRuntime) -> FlaskClient:
    return create_app(make_runtime(offline=True)).test_client()


@pytest.fixture
def guarded(make_runtime: MakeRuntime) -> FlaskClient:
    return create_app(make_runtime(offline=True, **AUTH)).test_client()


def send(client: FlaskClient, name: str, **headers: str) -> Any:
    """A request of the contract, as it was recorded."""
    sample = contract(name)
    body = json.dumps(sample["body"]) if sample["body"] else None
    return client.open(
        sample["path"], method=sample["method"], data=body, headers={**sample["headers"], **headers}
    )


def assert_explained(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"code", "message", "fix"}
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
    assert "Traceback" not in answer.text


# The contract


def accepted(name: str) -> int:
    """The status of an accepted request; there is no queue, so no training can be noted."""
    return 503 if name == "webhook_start_training" else 200


@pytest.mark.parametrize("name", SAMPLES)
def test_every_recorded_request_is_accepted(client: FlaskClient, name: str):
    answer = send(client, name)
    assert answer.status_code == accepted(name)
    assert answer.is_json


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("predict")])
def test_every_recorded_prediction_has_one_result_per_task(client: FlaskClient, name: str):
    tasks = contract(name)["body"]["tasks"]
    results = send(client, name).json["results"]
    assert len(results) == len(tasks)
    # None of these images can be had here.
    assert all("result" not in item and item["error"]["message"] for item in results)


def test_setup_and_predict_name_the_same_version(client: FlaskClient):
    version = send(client, "setup").json["model_version"]
    recorded = send(client, "predict_one_task").json
    assert version
    assert recorded["model_version"] == version
    assert recorded["results"][0]["model_version"] == version
    body = contract("predict_one_task")["body"] | {"tasks": [task(1)]}
    (item,) = client.post("/predict", json=body).json["results"]
    assert item["model_version"] == version


def test_a_prediction_is_what_label_studio_stores(client: FlaskClient):
    config = choices_config(attributes='choice="multiple" model_score_threshold="0"')
    answer = client.post("/predict", json=predict_body(task(1), label_config=config))
    (item,) = answer.json["results"]
    assert set(item) == {"model_version", "score", "result"}
    assert isinstance(item["score"], float)
    assert item["result"][0]["value"] == {"choices": list(LABELS)}


def test_good_and_bad_tasks_are_answered_in_their_order(client: FlaskClient):
    tasks = [task(1), None, "x", 3, [], {"data": None}, task(2), {"data": {"image": "/\ud800"}}]
    results = client.post("/predict", json=predict_body(*tasks)).json["results"]
    assert ["result" in item for item in results] == [
        *(True, False, False, False, False, False, True, False)
    ]


def test_a_task_whose_id_is_true_has_none_and_the_others_are_logged(make_runtime: MakeRuntime):
    runtime = make_runtime()
    client = create_app(runtime).test_client()
    body = predict_body(task(1), task(2) | {"id": True})
    results = client.post("/predict", json=body).json["results"]
    assert all("result" in item for item in results)
    logged = until(lambda: runtime.prediction_log.of_tasks(body["project"], [1]))
    assert [key[0] for key in logged] == [1]


def test_no_tasks_are_no_results(client: FlaskClient):
    answer = client.post("/predict", json=predict_body())
    assert answer.json["results"] == []
    assert answer.json["model_version"]


@pytest.mark.parametrize(
    "config", [None, "", "<View>", "<View/>", '<!DOCTYPE a [<!ENTITY b "c">]><View/>']
)
def test_a_config_without_anything_for_us_breaks_nothing(client: FlaskClient, config: str | None):
    setup = client.post("/setup", json={"project": "1.1", "schema": config})
    assert setup.status_code == 200
    assert setup.json["model_version"]
    answer = client.post("/predict", json=predict_body(task(1), task(2), label_config=config))
    assert [set(item) for item in answer.json["results"]] == [{"model_version", "error"}] * 2


@pytest.mark.parametrize("project", [None, "", 7, "../../x", {"id": 1}, "日本", "\ud800"])
def test_any_project_name_gets_a_version(client: FlaskClient, project: Any):
    body = {"project": project, "schema": choices_config()}
    assert client.post("/setup", json=body).json["model_version"]


def test_old_predictions_and_context_change_nothing(client: FlaskClient):
    plain = client.post("/predict", json=predict_body(task(1))).json
    dressed = task(1) | {"predictions": [{"result": [], "model_version": "v"}], "drafts": []}
    params = {"context": {"result": [{"from_name": "tags", "value": {"choices": ["cat"]}}]}}
    assert client.post("/predict", json=predict_body(dressed, params=params)).json == plain


def test_versions_lists_what_was_served(client: FlaskClient):
    version = send(client, "setup").json["model_version"]
    assert send(client, "versions").json == {"versions": [version]}


def test_health_needs_no_login(guarded: FlaskClient):
    for path in ("/", "/health"):
        assert guarded.get(path).json["status"] == "UP"


# Who may ask


@pytest.mark.parametrize(
    "name", ["setup", "predict_one_task", "webhook_start_training", "versions"]
)
def test_calls_without_the_right_login_are_refused_in_one_shape(guarded: FlaskClient, name: str):
    # The recorded login is "u:p", the right one.
    assert send(guarded, name).status_code == accepted(name)
    wrong = ["", "Basic", "Basic !!!", "Bearer u:p", "Basic " + base64.b64encode(b"u:x").decode()]
    wrong += ["Basic " + base64.b64encode(text).decode() for text in (b"x:p", b"u", b"\xff:\xfe")]
    answers = [send(guarded, name, Authorization=header) for header in wrong]
    for answer in answers:
        assert_explained(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert len({answer.text for answer in answers}) == 1


def test_event_webhooks_need_the_secret_and_no_login(guarded: FlaskClient):
    for header in ({}, BASIC, {SECRET_HEADER: ""}, {SECRET_HEADER: "S3CRET"}):
        answer = guarded.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=header)
        assert_explained(answer, 401, "unauthorized")
    answer = send(guarded, "webhook_full_annotation_created", **{SECRET_HEADER: "s3cret"})
    assert answer.status_code == 200


def test_the_secret_does_not_start_a_training(guarded: FlaskClient):
    body = {"action": "START_TRAINING", "project": {"id": 1}}
    answer = guarded.post("/webhook", json=body, headers={SECRET_HEADER: "s3cret"})
    assert_explained(answer, 401, "unauthorized")


def test_without_a_secret_but_with_a_login_no_event_is_believed(make_runtime: MakeRuntime):
    half = create_app(make_runtime(basic_auth_user="u", basic_auth_pass="p")).test_client()
    for header in ({}, {SECRET_HEADER: ""}):
        answer = half.post("/webhook", json={"action": "TASKS_CREATED"}, headers=header)
        assert_explained(answer, 401, "unauthorized")


# Webhooks


@pytest.mark.parametrize("action", sorted(EVENT_ACTIONS))
def test_known_actions_are_noted(client: FlaskClient, action: str):
    answer = client.post("/webhook?project=1", json={"action": action})
    assert (answer.status_code, answer.json) == (200, {"status": "noted"})


def test_a_training_that_no_worker_can_do_is_not_noted(client: FlaskClient):
    answer = client.post("/webhook?project=1", json={"action": "START_TRAINING"})
    assert_explained(answer, 503, "queue")
    assert "LS_CLIP_REDIS_URL" in answer.get_json()["error"]["fix"]


@pytest.mark.parametrize("action", ["", "NO_SUCH_ACTION", "annotation_created", "日本"])
def test_unknown_actions_are_ignored(client: FlaskClient, action: str):
    before = telemetry.WEBHOOKS.labels("unknown")._value.get()
    answer = client.post("/webhook", json={"action": action})
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})
    assert telemetry.WEBHOOKS.labels("unknown")._value.get() == before + 1


@pytest.mark.parametrize("body", [{}, {"action": None}, {"action": 3}, {"action": ["x"]}])
def test_a_webhook_without_an_action_is_refused(client: FlaskClient, body: dict[str, Any]):
    assert_explained(client.post("/webhook", json=body), 422, "missing_field")


def test_nobody_can_write_lines_into_the_log(client: FlaskClient, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    client.post("/webhook?project=1%0AERROR%20forged", json={"action": "TASKS_CREATED"})
    image = {"id": 1, "data": {"image": "ftp://a/\nERROR forged\x1b[0m"}}
    client.post("/predict", json=predict_body(image))
    assert all(record.getMessage().isprintable() for record in caplog.records)


# What cannot be read

POSTS = ["/setup", "/predict", "/webhook"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"", b"{", b"no", b"\xff\xfe", b"[" * 100_000, b'{"a": 1} x'])
def test_bad_json_is_400(client: FlaskClient, path: str, body: bytes):
    answer = client.post(path, data=body, content_type="application/json")
    assert_explained(answer, 400, "bad_json")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"3", b"NaN"])
def test_json_that_is_no_object_is_422(client: FlaskClient, path: str, body: bytes):
    answer = client.post(path, data=body, content_type="application/json")
    assert_explained(answer, 422, "bad_body")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "", "application/xml"])
def test_another_content_type_is_415(client: FlaskClient, path: str, kind: str):
    answer = client.post(path, data=b"{}", content_type=kind)
    assert_explained(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("path", POSTS)
def test_a_body_over_the_limit_is_413(make_runtime: MakeRuntime, path: str):
    small = create_app(make_runtime(max_body_bytes=2000)).test_client()
    body = json.dumps({"action": "X", "tasks": [], "x": "y" * 3000})
    answer = small.post(path, data=body, content_type="application/json")
    assert_explained(answer, 413, "too_large")


@pytest.mark.parametrize("tasks", [None, {}, "x", 3])
def test_tasks_that_are_no_list_are_422(client: FlaskClient, tasks: Any):
    answer = client.post("/predict", json=predict_body() | {"tasks": tasks})
    assert_explained(answer, 422, "missing_field")


@pytest.mark.parametrize("config", [3, [], {"a": 1}])
def test_a_config_that_is_no_text_is_422(client: FlaskClient, config: Any):
    answer = client.post("/predict", json=predict_body(label_config=config))
    assert_explained(answer, 422, "bad_field")
    assert_explained(client.post("/setup", json={"schema": config}), 422, "bad_field")


def test_wrong_routes_and_methods_have_the_same_shape(client: FlaskClient):
    assert_explained(client.get("/nothing"), 404, "not_found")
    assert_explained(client.get("/predict"), 405, "method_not_allowed")


def test_an_error_nobody_thought_of_shows_no_traceback(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    encoder = StubEncoder()

    def broken() -> None:
        raise RuntimeError("CUDA out of memory: internal detail")

    encoder.before = broken
    client = create_app(make_runtime(encoder)).test_client()
    answer = client.post("/predict", json=predict_body(task(1)))
    if answer.status_code != 200:
        assert_explained(answer, 500, "internal")
    assert "internal detail" not in answer.text
    assert "internal detail" in caplog.text


def test_a_store_that_fails_still_lets_predictions_through(
    make_runtime: MakeRuntime, tmp_path: Path
):
    runtime = make_runtime()
    client = create_app(runtime).test_client()
    place = Path(runtime.settings.store)
    shutil.rmtree(place)
    place.write_text("a file where the store was")
    answer = client.post("/predict", json=predict_body(task(1)))
    assert "Traceback" not in answer.text
    assert answer.status_code == 200
    assert "result" in answer.json["results"][0]


# Secrets


def test_no_secret_reaches_the_log(make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    secrets = {
        "basic_auth_user": "u",
        "basic_auth_pass": "pass-5ecret",
        "webhook_secret": "hook-5ecret",
        "label_studio_api_key": "key-5ecret",
        "offline": True,
    }
    client = create_app(make_runtime(**secrets)).test_client()
    login = {"Authorization": "Basic " + base64.b64encode(b"u:pass-5ecret").decode()}
    body = contract("setup")["body"] | {"access_token": "token-5ecret"}
    assert client.post("/setup", json=body, headers=login).status_code == 200
    signed = {"id": 1, "data": {"image": "http://b.example/x.jpg?X-Amz-Signature=sig-5ecret"}}
    inside = {"id": 2, "data": {"image": "http://user:url-5ecret@b.example/x.jpg"}}
    params = {"login": "l", "password": "ls-5ecret"}
    sent = predict_body(signed, inside, params=params)
    assert client.post("/predict", json=sent, headers=login).status_code == 200
    wrong = {"Authorization": "Basic " + base64.b64encode(b"u:wrong-5ecret").decode()}
    assert client.post("/predict", json=sent, headers=wrong).status_code == 401
    event = {"action": "TASKS_CREATED", "project": {"token": "project-5ecret"}}
    assert client.post("/webhook", json=event, headers={SECRET_HEADER: "hook-5ecret"}).is_json
    assert client.post("/webhook", json=event, headers={SECRET_HEADER: "bad-5ecret"}).is_json
    assert "5ecret" not in caplog.text


# Metrics


def test_metrics_count_requests_images_and_failures(client: FlaskClient):
    client.post("/predict", json=predict_body(task(1), {"id": 2, "data": {}}))
    text = client.get("/metrics").text
    assert 'ls_clip_requests_total{route="/predict",status="200"}' in text
    assert 'ls_clip_predictions_total{outcome="predicted"}' in text
    assert 'ls_clip_predictions_total{outcome="no_image"}' in text
    assert "ls_clip_images_encoded_total" in text
    assert 'ls_clip_request_seconds_bucket{le="1.0",route="/predict"}' in text


def test_unknown_paths_do_not_make_metrics_of_their_own(client: FlaskClient):
    client.get("/some/path/of/a/scanner")
    assert "scanner" not in client.get("/metrics").text
