"""Who may enter our pages: Label Studio's own users, by its session or by a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from backend.server.pages.token_cookie import COOKIE
from tests.e2e.conftest import EMAIL
from tests.support.live import MakeProject, Servers


@pytest.fixture
def project(make_project: MakeProject) -> int:
    return make_project(3)


@pytest.fixture
def stranger(chromium: Any) -> Iterator[Any]:
    """A page of somebody who is signed in nowhere."""
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    yield context.new_page()
    context.close()


def address(servers: Servers, project: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{servers.settings.port}/projects/{project}/"


def test_whoever_is_signed_in_to_label_studio_sees_the_project(
    page: Any, servers: Servers, project: int
):
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: wrong.append(said.text))
    page.goto(address(servers, project))
    assert page.inner_text("h1") == "test"
    assert page.inner_text(".person") == EMAIL
    assert {urlsplit(url).port for url in asked} == {servers.settings.port}
    assert wrong == []


def test_a_token_opens_the_page_on_another_host_name(
    stranger: Any, servers: Servers, project: int, personal_token: str
):
    url = address(servers, project, "localhost")
    answer = stranger.goto(url)
    assert answer.status == 401
    stranger.click("summary")
    stranger.fill("input[name=token]", "no token")
    stranger.click("form button")
    assert "does not know this token" in stranger.inner_text("[role=alert]")
    stranger.fill("input[name=token]", personal_token)
    stranger.click("form button")
    assert stranger.url == url
    assert stranger.inner_text("h1") == "test"
    (cookie,) = [one for one in stranger.context.cookies() if one["name"] == COOKIE]
    assert personal_token not in cookie["value"]
    assert cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Strict"
    stranger.click("text=Sign out")
    assert stranger.goto(url).status == 401


@pytest.fixture
def session(page: Any) -> str:
    """Label Studio's cookie of the page's person."""
    return str(next(one["value"] for one in page.context.cookies() if one["name"] == "sessionid"))


@pytest.mark.parametrize(
    ("path", "cookies", "status"),
    [
        ("/projects/{project}/", True, 200),
        ("/projects/{project}/", False, 401),
        ("/projects/999999/", True, 404),
        ("/projects/999999/", False, 401),
    ],
)
def test_only_members_see_anything_of_a_project(
    servers: Servers, project: int, session: str, path: str, cookies: bool, status: int
):
    url = f"http://127.0.0.1:{servers.settings.port}" + path.format(project=project)
    sent = {"sessionid": session} if cookies else {}
    answer = requests.get(url, cookies=sent, timeout=30)
    assert answer.status_code == status
    assert ("<h1>test</h1>" in answer.text) == (status == 200)


@pytest.mark.parametrize("host", ["localhost", "clip.example.com"])
def test_a_session_of_another_host_is_not_shown_to_label_studio(
    servers: Servers, project: int, session: str, host: str
):
    """The cookie may be another program's."""
    url = address(servers, project)
    sent = {"Host": f"{host}:{servers.settings.port}", "Cookie": f"sessionid={session}"}
    status = requests.get(url, headers=sent, timeout=30).status_code
    assert status == (200 if host == "localhost" else 401)


def test_a_second_member_is_shown_as_themselves(
    stranger: Any, servers: Servers, project: int, api: Callable[..., Any]
):
    invite = api("GET", "/api/invite")["invite_url"]
    stranger.goto(servers.studio_url + invite)
    stranger.fill("input[name=email]", "second@example.com")
    stranger.fill("input[name=password]", "another password")
    stranger.click("button[type=submit]")
    stranger.wait_for_url(lambda url: "signup" not in url)
    stranger.goto(address(servers, project))
    assert stranger.inner_text(".person") == "second@example.com"
