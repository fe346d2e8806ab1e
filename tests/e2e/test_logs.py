"""No log holds a secret; the shared servers' logs are read once more when the whole run ends."""

from __future__ import annotations

import logging

import pytest
import requests

from backend.labelstudio.events import SECRET_HEADER
from tests.support.live import Servers, leaks

BODY = {
    "tasks": [{"id": 1, "data": {"image": "http://b.example/x.jpg?X-Amz-Signature=sig-5ecret"}}],
    "project": "1.1",
    "label_config": '<View><Image name="i" value="$image"/></View>',
    "params": {"login": "l", "password": "param-5ecret"},
    "access_token": "token-5ecret",
}


def test_what_a_caller_sends_is_in_no_log(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    settings = servers.settings
    login = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())
    secret = {SECRET_HEADER: settings.webhook_secret.get_secret_value()}
    event = {"action": "TASKS_CREATED", "project": {"token": "invite-5ecret"}}

    def post(path: str, **arguments: object) -> int:
        url = f"{settings.backend_url}{path}"
        return requests.post(url, timeout=60, **arguments).status_code  # type: ignore[arg-type]

    caplog.set_level(logging.DEBUG)
    assert post("/predict", json=BODY, auth=login) == 200
    assert post("/predict", json=BODY, auth=("u", "wrong-5ecret")) == 401
    assert post("/webhook", json=event, headers=secret) == 200
    assert post("/webhook", json=event, headers={SECRET_HEADER: "bad-5ecret"}) == 401
    assert post("/webhook", data=b"bad-json-5ecret", headers=secret) == 415

    log = servers.backend.log.read_text()
    assert "POST /predict 401" in log
    assert leaks(log, settings, servers.password) == []
    assert "5ecret" not in log


@pytest.mark.parametrize("kind", ["token", "password", "header", "body", "personal"])
def test_a_leak_would_be_seen(servers: Servers, kind: str) -> None:
    line = {
        "token": servers.settings.label_studio_api_key.get_secret_value(),
        "password": servers.password,
        "header": "Authorization: Basic abc",
        "body": '{"tasks": []}',
        "personal": "eyJhbGciOiJIUzI1NiJ9.e30.x",
    }[kind]
    assert leaks(f"fine\nsent {line}\nfine", servers.settings, servers.password) == [f"sent {line}"]
