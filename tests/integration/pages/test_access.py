"""Who may enter our pages, what may use them, and what they cost the rest of the server."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.errors import SettingsError
from backend.labelstudio.person import Credential, CredentialKind
from backend.server.app import create_app
from backend.server.pages.access import access, is_admin
from backend.server.pages.protection import csrf_token
from backend.server.pages.token_cookie import COOKIE, SECONDS, TokenCookie
from backend.server.pages.visitors import KEPT_SECONDS, Visitors
from backend.settings import load_settings
from tests.support.builders import ROOT
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import PROJECT, StubStudio

SESSION = "eyJhIjoiYiJ9:1tXyZ0:AbC-d_e"
OURS = "http://127.0.0.1"
PAGE = f"/projects/{PROJECT}/"
NAVIGATION = {"Sec-Fetch-Mode": "navigate"}
WHOAMI = ("GET", "/api/current-user/whoami")
PAGES = ROOT / "backend" / "server" / "pages"


class Clock:
    """Shows what it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(make_runtime: MakeRuntime, studio: StubStudio) -> FlaskClient:
    return create_app(make_runtime(label_studio_url=studio.url)).test_client(use_cookies=False)


def show(client: FlaskClient, path: str = PAGE, **headers: str) -> TestResponse:
    sent = {"Cookie": f"sessionid={SESSION}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return client.get(path, base_url=OURS, headers=sent, buffered=True)


def test_a_member_sees_the_project(client: FlaskClient):
    answer = show(client)
    assert answer.status_code == 200
    assert "<h1>Photos</h1>" in answer.text
    assert "person@example.com" in answer.text


@pytest.mark.parametrize("status", [401, 403])
def test_whom_label_studio_refuses_sees_nothing(
    client: FlaskClient, studio: StubStudio, status: int
):
    """An expired session, a removed member, and a Label Studio that forbids."""
    studio.before = lambda *call: status if call == WHOAMI else None
    answer = show(client)
    assert answer.status_code == 401
    assert "Sign in" in answer.text and "Photos" not in answer.text


@pytest.mark.parametrize(("status", "shown"), [(404, 404), (401, 401), (403, 401)])
def test_who_may_not_see_a_project_is_told_nothing_of_it(
    client: FlaskClient, studio: StubStudio, status: int, shown: int
):
    studio.before = lambda method, path: status if "projects" in path else None
    answer = show(client)
    assert answer.status_code == shown
    assert "Photos" not in answer.text


def test_while_label_studio_is_away_nobody_is_signed_out(client: FlaskClient, studio: StubStudio):
    studio.before = lambda *_: 500
    assert show(client).status_code == 502
    studio.before = lambda *_: None
    assert show(client).status_code == 200


def test_label_studio_is_asked_once_a_minute(client: FlaskClient, studio: StubStudio):
    clock = Clock()
    with client.application.app_context():
        access().visitors = Visitors(studio.url, clock)
    for _ in range(3):
        assert show(client).status_code == 200
        clock.now += KEPT_SECONDS / 3 - 1
    assert studio.calls.count(WHOAMI) == 1
    # What the page counts is asked for each time.
    assert studio.calls.count(("GET", f"/api/projects/{PROJECT}/")) == 3
    studio.before = lambda *call: 401 if call == WHOAMI else None
    clock.now += KEPT_SECONDS
    assert show(client).status_code == 401


@pytest.mark.parametrize("session", ['"a\\073 other=b"', "a b", "x" * 5000, "", "ü"])
def test_what_is_no_session_is_not_sent_to_label_studio(
    client: FlaskClient, studio: StubStudio, session: str
):
    headers = {"Cookie": f"sessionid={session}".encode().decode("latin-1")}
    assert client.get(PAGE, base_url=OURS, headers=headers).status_code == 401
    assert studio.calls == []


def csrf(client: FlaskClient) -> str:
    with client.application.app_context():
        return csrf_token(access().secret, Credential(CredentialKind.SESSION, SESSION))


@pytest.mark.parametrize(
    ("origin", "token", "status"),
    [
        (OURS, "right", 303),
        (None, "right", 403),
        ("null", "right", 403),
        (f"{OURS}:8080", "right", 403),
        ("https://127.0.0.1", "right", 403),
        ("https://evil.example.com", "right", 403),
        (OURS, "", 403),
        (OURS, "f" * 64, 403),
        (OURS, "ü", 403),
    ],
)
def test_only_the_page_itself_may_write(
    client: FlaskClient, origin: str | None, token: str, status: int
):
    sent = {"Cookie": f"sessionid={SESSION}"} | ({} if origin is None else {"Origin": origin})
    form = {"csrf": csrf(client) if token == "right" else token}
    answer = client.post("/sign-out", base_url=OURS, headers=sent, data=form)
    assert answer.status_code == status


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin"])
def test_another_origin_can_embed_nothing(client: FlaskClient, site: str, mode: str):
    for path in (PAGE, "/pages/static/page.css"):
        answer = show(client, path, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)
        assert answer.status_code == 403
    assert show(client, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status_code == 200


@pytest.mark.parametrize("path", [PAGE, "/sign-in", "/projects/9/", "/pages/static/page.css"])
def test_every_answer_is_bound_to_its_origin(client: FlaskClient, path: str):
    headers = show(client, path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"


def test_pages_are_as_safe_as_label_studio(make_runtime: MakeRuntime, studio: StubStudio):
    public = "https://127.0.0.1:8443"
    runtime = make_runtime(label_studio_url=studio.url, label_studio_public_url=public)
    client = create_app(runtime).test_client(use_cookies=False)
    assert show(client).status_code == 403
    assert show(client, X_Forwarded_Proto="https").status_code == 200


def test_half_of_the_threads_are_never_for_pages(client: FlaskClient):
    with client.application.app_context():
        places = access().places
    taken = 0
    while places.acquire(blocking=False):
        taken += 1
    assert taken == 32
    answer = show(client)
    assert answer.status_code == 503 and "Too many pages" in answer.text
    assert client.get("/health").status_code == 200
    places.release()
    for _ in range(3):
        assert show(client).status_code == 200


@pytest.mark.parametrize(
    "after", ["https://evil.example.com/", "//evil.example.com", "/\\evil.example.com", "x", ""]
)
def test_signing_in_leads_to_no_other_site(client: FlaskClient, after: str):
    form = {"token": "f" * 40, "next": after}
    answer = client.post("/sign-in", base_url=OURS, headers={"Origin": OURS}, data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")


def test_a_pasted_token_is_kept_encrypted_for_twelve_hours(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
):
    form = {"token": "f" * 40, "next": PAGE}
    answer = client.post("/sign-in", base_url=OURS, headers={"Origin": OURS}, data=form)
    assert answer.headers["Location"] == PAGE
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=") and "f" * 40 not in cookie
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= {*cookie.split("; ")}
    kept = cookie.partition(";")[0]
    assert client.get(PAGE, base_url=OURS, headers={"Cookie": kept}).status_code == 200
    other = TokenCookie(b"another secret").read({COOKIE: kept.partition("=")[2]})
    assert other is None
    later = time.time() + SECONDS + 60
    monkeypatch.setattr("time.time", lambda: later)
    assert client.get(PAGE, base_url=OURS, headers={"Cookie": kept}).status_code == 401


def test_a_script_reads_errors_as_json(client: FlaskClient):
    answer = client.get(PAGE, base_url=OURS, headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert answer.get_json()["error"]["code"] == "sign_in"


@pytest.mark.parametrize(
    ("admins", "creator", "may"),
    [
        ("", {"id": 1}, True),
        ("", {"id": 2}, False),
        ("", None, False),
        ("Person@Example.com, other@example.com", {"id": 2}, True),
        ("other@example.com", {"id": 1}, False),
    ],
)
def test_admins_are_those_that_are_named_or_whoever_made_the_project(
    make_runtime: MakeRuntime, studio: StubStudio, admins: str, creator: Any, may: bool
):
    app = create_app(make_runtime(label_studio_url=studio.url, admins=admins))
    with app.test_request_context(headers={"Cookie": f"sessionid={SESSION}"}, base_url=OURS):
        assert is_admin({"created_by": creator}) is may


FILES = sorted(path for room in ("templates", "static") for path in (PAGES / room).iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pages_load_nothing_from_another_host(path: Path):
    content = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//\w|@import|style=|<script>|\son\w+=", content)


def test_a_secret_that_could_be_guessed_is_refused():
    with pytest.raises(SettingsError, match="LS_CLIP_PAGE_SECRET"):
        load_settings(page_secret="short")
