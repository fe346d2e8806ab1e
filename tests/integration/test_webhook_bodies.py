"""Whatever is sent to /webhook is answered in its one way, and never with a 500."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.server.app import create_app
from tests.support.builders import CONTRACT, contract
from tests.support.fixtures import MakeRuntime

RELAXED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EVENTS = sorted(path.stem for path in CONTRACT.glob("webhook_*.json"))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
ACTIONS = st.sampled_from([*sorted(EVENT_ACTIONS), "START_TRAINING", "PROJECT_CREATED", ""])


@pytest.fixture
def client(make_runtime: MakeRuntime) -> FlaskClient:
    return create_app(make_runtime(offline=True)).test_client()


def assert_answered(answer: Any, *expected: int) -> None:
    assert answer.status_code in expected, answer.text
    if answer.status_code == 200:
        assert answer.json["status"] in {"noted", "ignored"}
    else:
        assert set(answer.json["error"]) == {"code", "message", "fix"}


@RELAXED
@given(body=ANYTHING)
def test_any_json_is_noted_ignored_or_refused(client: FlaskClient, body: Any):
    answer = client.post("/webhook", data=json.dumps(body), content_type="application/json")
    assert_answered(answer, 200, 422)


@RELAXED
@given(action=ACTIONS | st.text(), fields=st.dictionaries(st.text(max_size=10), ANYTHING))
def test_any_fields_beside_an_action_break_nothing(
    client: FlaskClient, action: str, fields: dict[str, Any]
):
    body = json.dumps({**fields, "action": action})
    answer = client.post("/webhook", data=body, content_type="application/json")
    # There is no queue, so no training can be noted.
    assert_answered(answer, 200, *[503] * (action == "START_TRAINING"))


@RELAXED
@given(name=st.sampled_from(EVENTS), field=st.data(), value=ANYTHING)
def test_a_recorded_event_with_any_field_replaced_breaks_nothing(
    client: FlaskClient, name: str, field: st.DataObject, value: Any
):
    body = dict(contract(name)["body"])
    body[field.draw(st.sampled_from(sorted(body)))] = value
    answer = client.post("/webhook", data=json.dumps(body), content_type="application/json")
    assert_answered(answer, 200, 422)


@RELAXED
@given(data=st.binary(max_size=300))
def test_any_bytes_are_answered(client: FlaskClient, data: bytes):
    answer = client.post("/webhook", data=data, content_type="application/json")
    assert_answered(answer, 200, 400, 422)


@RELAXED
@given(secret=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30))
def test_no_other_secret_opens_the_webhook(make_runtime: MakeRuntime, secret: str):
    guarded = create_app(make_runtime(offline=True, webhook_secret="right")).test_client()
    answer = guarded.post(
        "/webhook", json={"action": "TASKS_CREATED"}, headers={SECRET_HEADER: secret}
    )
    assert answer.status_code == (200 if secret == "right" else 401)


@RELAXED
@given(project=st.text(max_size=40))
def test_no_project_name_in_the_address_reaches_the_log_unescaped(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, project: str
):
    caplog.clear()
    caplog.set_level(logging.INFO)
    client.post("/webhook", json={"action": "TASKS_CREATED"}, query_string={"project": project})
    assert all(record.getMessage().isprintable() for record in caplog.records)
