"""Who is let in, whatever bytes a request brings: never a traceback, always the one shape."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.labelstudio.events import SECRET_HEADER
from backend.server.app import create_app
from backend.server.credentials import (
    PAGE_BODY_BYTES,
    body_limit,
    login_matches,
    webhook_secret_matches,
)
from backend.settings import Settings
from tests.support.builders import make_settings, predict_body, task
from tests.support.fixtures import MakeRuntime

USER, PASSWORD, SECRET = "user", "pass:word", "s3cret"


def basic(credentials: bytes) -> str:
    return "Basic " + b64encode(credentials).decode()


RIGHT = basic(b"user:pass:word")
WRONG = [
    "",
    "Basic",
    "Basic ",
    "Basic \x80",
    "Basic \xff\xfe\x00",
    "Basic \x00",
    "Basic \r",
    "Basic not base64!",
    "Basic dXNlcjpwYXNzOndvcmQ",
    "Basic " + "=" * 10,
    "Basic " + "A" * 60_000,
    basic(b""),
    basic(b":"),
    basic(b"user"),
    basic(b"userpass:word"),
    basic(b"user:"),
    basic(b"user:pass"),
    basic(b":pass:word"),
    basic(b"user:pass:word\x00"),
    basic(b"\x00user:pass:word"),
    basic(b"\xff\xfe:\x80"),
    basic("user:\ud800".encode(errors="surrogatepass")),
    RIGHT.replace("Basic ", "Bearer "),
    RIGHT.replace("Basic ", ""),
    RIGHT.replace("Basic ", "Basic"),
    RIGHT + "," + RIGHT,
    "Basic x," + RIGHT,
    'Digest username="user", realm="x", nonce="\x80", uri="/", response="\xff"',
    "Digest username*=utf-8''%80",
    "Digest =",
    "Bearer \x80",
    "Negotiate " + "A" * 100,
    "\x80",
    "\x00",
]


@pytest.fixture
def client(make_runtime: MakeRuntime) -> FlaskClient:
    runtime = make_runtime(basic_auth_user=USER, basic_auth_pass=PASSWORD, webhook_secret=SECRET)
    return create_app(runtime).test_client()


def assert_refused(answer: Any) -> None:
    assert answer.status_code == 401
    assert set(answer.json["error"]) == {"code", "message", "fix"}
    assert answer.json["error"]["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("header", WRONG)
def test_a_login_that_is_not_the_right_one_is_refused(client: FlaskClient, header: str):
    # Past the test client, which checks headers as no network does.
    environ = {"HTTP_AUTHORIZATION": header}
    for path in ("/predict", "/setup", "/projects/1/train"):
        assert_refused(client.post(path, json=predict_body(), environ_overrides=environ))
    assert_refused(client.get("/versions", environ_overrides=environ))
    event = {"action": "START_TRAINING", "project": 1}
    assert_refused(client.post("/webhook", json=event, environ_overrides=environ))


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "Basic  "])
def test_the_right_login_is_let_in(client: FlaskClient, scheme: str):
    header = RIGHT.replace("Basic", scheme)
    answer = client.get("/versions", environ_overrides={"HTTP_AUTHORIZATION": header})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header", ["", "\x80", "\xff" * 9000, "\x00", SECRET + ",", SECRET + "\x00", SECRET.upper()]
)
def test_a_wrong_secret_is_refused(client: FlaskClient, header: str):
    environ = {"HTTP_X_LABEL_STUDIO_CLIP_SECRET": header}
    event = {"action": "PROJECT_UPDATED", "project": 1}
    assert_refused(client.post("/webhook", json=event, environ_overrides=environ))


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["", "Basic ", "Bearer ", "Digest ", "basic "]))
def test_no_bytes_are_an_error(sent: bytes, scheme: str):
    configured = Settings(basic_auth_user="u", basic_auth_pass="p", webhook_secret="s")
    text = sent.decode("latin-1")
    right = sent.strip() == b64encode(b"u:p")
    assert login_matches(configured, scheme + text) == (right and scheme.lower() == "basic ")
    assert not login_matches(configured, basic(sent)) or sent == b"u:p"
    assert webhook_secret_matches(configured, text) == (sent == b"s")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_letters_beyond_ascii_match_as_utf_8_and_as_latin_1(tmp_path: Any, encoding: str):
    """Browsers send UTF-8, Python's requests, and so Label Studio, Latin-1."""
    configured = make_settings(
        tmp_path, basic_auth_user="jürgen", basic_auth_pass="müll", webhook_secret="größe"
    )
    assert login_matches(configured, basic("jürgen:müll".encode(encoding)))
    assert webhook_secret_matches(configured, "größe".encode(encoding).decode("latin-1"))
    assert not login_matches(configured, basic("jurgen:mull".encode(encoding)))
    assert not webhook_secret_matches(configured, "gr??e")


@pytest.mark.parametrize("value", ["\udcff", "日本", "a\udc80b"])
def test_settings_that_latin_1_or_utf_8_cannot_hold_let_nobody_else_in(tmp_path: Any, value: str):
    configured = make_settings(
        tmp_path, basic_auth_user=value, basic_auth_pass=value, webhook_secret=value
    )
    for sent in (b"?:?", b"??:??", b"a?b:a?b", b":"):
        assert not login_matches(configured, basic(sent))
    for text in ("?", "??", "a?b", ""):
        assert not webhook_secret_matches(configured, text)
    raw = value.encode(errors="surrogateescape")
    assert login_matches(configured, basic(raw + b":" + raw))


def test_only_a_known_caller_may_send_a_body(tmp_path: Any):
    configured = make_settings(
        tmp_path, basic_auth_user=USER, basic_auth_pass=PASSWORD, webhook_secret=SECRET
    )
    assert body_limit(configured, {}) == 0
    assert body_limit(configured, {"AUTHORIZATION": RIGHT}) == configured.max_body_bytes
    assert body_limit(configured, {SECRET_HEADER.upper(): SECRET}) == configured.max_body_bytes
    assert body_limit(configured, {"ORIGIN": "http://127.0.0.1:9090"}) == PAGE_BODY_BYTES
    assert body_limit(make_settings(tmp_path), {}) == configured.max_body_bytes


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=\x80",
        "application/json; charset=nonsense",
        "application/json; charset=" + "x" * 9000,
        "application/json;",
        "application/json; =; ;;",
        "application/json; charset*=utf-8''%ff",
    ],
)
def test_parameters_of_the_content_type_are_not_read(client: FlaskClient, content_type: str):
    """JSON is UTF-8, UTF-16 or UTF-32, and says so itself (RFC 8259)."""
    environ = {"HTTP_AUTHORIZATION": RIGHT, "CONTENT_TYPE": content_type}
    answer = client.post("/predict", json=predict_body(task(1)), environ_overrides=environ)
    assert answer.status_code == 200


@pytest.mark.parametrize("content_type", ["", "\x80", "text/plain", "application/json\x00", "/"])
def test_other_content_types_are_refused(client: FlaskClient, content_type: str):
    environ = {"HTTP_AUTHORIZATION": RIGHT, "CONTENT_TYPE": content_type}
    answer = client.post("/predict", json=predict_body(task(1)), environ_overrides=environ)
    assert answer.status_code == 415
    assert answer.json["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "query", ["project=%80", "project=" + "9" * 5000, "project=%00", "project", "project=-1", "&=&"]
)
def test_queries_are_read_or_ignored(client: FlaskClient, query: str):
    environ = {"HTTP_X_LABEL_STUDIO_CLIP_SECRET": SECRET, "QUERY_STRING": query}
    event = {"action": "PROJECT_UPDATED"}
    answer = client.post("/webhook", json=event, environ_overrides=environ)
    assert answer.status_code == 200
