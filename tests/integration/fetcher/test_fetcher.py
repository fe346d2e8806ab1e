"""Fetching from real servers on this machine: tokens, redirects, rebinding."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from backend.errors import StudioError
from backend.images.fetcher import ImageFetcher
from backend.settings import Settings
from tests.support.http_server import (
    BODY,
    TOKEN,
    Fetchers,
    Server,
    answer,
    redirect,
    refusal,
)

# Label Studio


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("/data/upload/1/ab12-x.jpg", "/data/upload/1/ab12-x.jpg"),
        ("/data/local-files/?d=images/x.jpg", "/data/local-files/?d=images/x.jpg"),
        ("/data/local-files/?d=images/a..b%20c.jpg", "/data/local-files/?d=images/a..b%20c.jpg"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9iL3g=", "/tasks/7/resolve/?fileuri=czM6Ly9iL3g="),
        ("/storage-data/uploaded/?filepath=upload/1/x.jpg", None),
        ("/data/upload/1/a b ü.jpg", "/data/upload/1/a%20b%20%C3%BC.jpg"),
        ("  /data/upload/1/x.jpg\n", "/data/upload/1/x.jpg"),
    ],
)
def test_paths_of_label_studio_come_with_its_token(
    value: str, asked: str | None, studio: Server, fetcher_of: Fetchers
) -> None:
    assert fetcher_of(studio.url).fetch(value) == BODY
    assert studio.requests[0][0] == (asked or value)
    assert studio.tokens() == [TOKEN["Authorization"]]


@pytest.mark.parametrize("value", ["/data/upload/1/x.jpg", "/label-studio/data/upload/1/x.jpg"])
def test_label_studio_under_a_sub_path(value: str, studio: Server, fetcher_of: Fetchers) -> None:
    fetcher_of(f"{studio.url}/label-studio/").fetch(value)
    assert studio.requests[0][0] == "/label-studio/data/upload/1/x.jpg"


def test_an_absolute_url_of_label_studio(studio: Server, fetcher_of: Fetchers) -> None:
    assert fetcher_of(studio.url).fetch(f"{studio.url}/data/upload/1/x.jpg") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]]


@pytest.mark.parametrize(
    ("status", "reason", "word"),
    [(401, "unauthorized", "token"), (403, "forbidden", "access"), (404, "not_found", "storage")],
)
def test_refusals_of_label_studio_say_what_to_mend_there(
    status: int, reason: str, word: str, studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/data/local-files/"] = answer(b"{}", status)
    error = refusal(fetcher_of(studio.url), "/data/local-files/?d=images/x.jpg")
    assert error.reason == reason
    assert word in error.fix
    assert "d=images/x.jpg" in error.message


def test_errors_of_the_token_reach_the_caller(studio: Server) -> None:
    def headers() -> dict[str, str]:
        raise StudioError("The token has expired.")

    with pytest.raises(StudioError, match="expired"):
        ImageFetcher(Settings(label_studio_url=studio.url), headers).fetch("/data/upload/1/x.jpg")
    assert studio.requests == []


# The token stays at home


def test_another_host_gets_no_token(studio: Server, other: Server, fetcher_of: Fetchers) -> None:
    fetcher = fetcher_of(studio.url, allowed_hosts="127.0.0.1")
    assert fetcher.fetch(f"{other.url}/x.jpg") == BODY
    assert other.tokens() == [None]


def test_another_name_of_the_same_machine_gets_no_token(
    studio: Server, fetcher_of: Fetchers
) -> None:
    fetcher = fetcher_of(studio.url, allowed_hosts="localhost")
    assert fetcher.fetch(f"http://localhost:{studio.server_port}/x.jpg") == BODY
    assert studio.tokens() == [None]


def test_label_studios_public_name_is_fetched_from_its_address_with_the_token(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    fetcher = fetcher_of(
        f"{studio.url}/inner", label_studio_public_url="https://labels.example.com/outer"
    )
    for value in (
        "https://labels.example.com/outer/data/upload/1/x.jpg",
        "HTTPS://Labels.Example.com:443/outer/data/upload/1/x.jpg",
        "https://labels.example.com/data/upload/1/x.jpg",
        "/outer/data/upload/1/x.jpg",
        "/inner/data/upload/1/x.jpg",
    ):
        assert fetcher.fetch(value) == BODY
    assert {path for path, *_ in studio.requests} == {"/inner/data/upload/1/x.jpg"}
    assert set(studio.tokens()) == {TOKEN["Authorization"]}


def test_another_application_at_the_public_name_is_not_taken_for_label_studio(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    public = f"{other.url}/labels"
    fetcher = fetcher_of(studio.url, label_studio_public_url=public, allowed_hosts="127.0.0.1")
    assert fetcher.fetch(f"{other.url}/wiki/x.jpg") == BODY
    assert fetcher.fetch(f"{public}/data/upload/1/x.jpg") == BODY
    assert [path for path, _ in other.requests] == ["/wiki/x.jpg"] and other.tokens() == [None]
    assert [path for path, _ in studio.requests] == ["/data/upload/1/x.jpg"]


def test_a_redirect_to_label_studios_public_name_stays_at_its_address(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/tasks/7/resolve/"] = redirect("https://labels.example.com/data/upload/1/x.jpg")
    other.routes["/x.jpg"] = redirect("https://labels.example.com/data/upload/1/x.jpg")
    fetcher = fetcher_of(
        studio.url,
        label_studio_public_url="https://labels.example.com",
        allowed_hosts="127.0.0.1",
    )
    assert fetcher.fetch("/tasks/7/resolve/?fileuri=abc=") == BODY
    # Another host has decided where to go: without the token.
    assert fetcher.fetch(f"{other.url}/x.jpg") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]] * 2 + [None]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("/data/local-files/?d=images%5C0001.jpg", "?d=images%5C0001.jpg"),
        ("/data/local-files/?d=images\\0001.jpg", "?d=images%5C0001.jpg"),
        ("/data/local-files/?d=/images/1.jpg", "?d=/images/1.jpg"),
    ],
    ids=["backslash, encoded", "backslash", "leading slash"],
)
def test_paths_that_label_studio_writes_on_windows_or_did_write_are_passed_on(
    value: str, sent: str, studio: Server, fetcher_of: Fetchers
) -> None:
    assert fetcher_of(studio.url).fetch(value) == BODY
    assert studio.requests[0][0] == f"/data/local-files/{sent}"


def test_a_redirect_to_a_signed_address_gets_no_token(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/tasks/7/resolve/"] = redirect(f"{other.url}/bucket/x.jpg?X-Signature=a%2Fb")
    fetcher = fetcher_of(studio.url, allowed_hosts="127.0.0.1")
    assert fetcher.fetch("/tasks/7/resolve/?fileuri=abc=") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]]
    assert other.tokens() == [None]
    assert other.requests[0][0] == "/bucket/x.jpg?X-Signature=a%2Fb"


def test_a_redirect_within_label_studio_keeps_the_token(
    studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/tasks/7/resolve/"] = redirect("/data/upload/1/x.jpg")
    assert fetcher_of(studio.url).fetch("/tasks/7/resolve/?fileuri=abc=") == BODY
    assert studio.tokens() == [TOKEN["Authorization"]] * 2


def test_another_host_cannot_send_the_token_anywhere_in_label_studio(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    other.routes["/x.jpg"] = redirect(f"{studio.url}/api/projects/1/export")
    fetcher_of(studio.url, allowed_hosts="127.0.0.1").fetch(f"{other.url}/x.jpg")
    assert studio.tokens() == [None]


def test_signatures_and_tokens_are_not_in_messages(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    other.routes["/x.jpg"] = answer(b"", 403)
    error = refusal(
        fetcher_of(studio.url, allowed_hosts="127.0.0.1"), f"{other.url}/x.jpg?X-Signature=secret"
    )
    assert error.reason == "forbidden"
    assert "secret" not in str(error)


# Redirects


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.1:1/x.jpg", "private_address"),
        ("http://169.254.169.254/latest/meta-data/", "private_address"),
        ("http://[::ffff:10.0.0.1]/x.jpg", "private_address"),
        ("//2130706433/x.jpg", "private_address"),
        ("file:///etc/passwd", "unsupported_scheme"),
        ("data:image/png;base64,aGk=", "unsupported_scheme"),
        ("http://user:pass@host/x.jpg", "credentials_in_url"),
        ("/data/local-files/?d=../x.jpg", "path_traversal"),
        ("http://[broken/x.jpg", "bad_url"),
    ],
)
def test_redirects_are_checked_like_the_first_address(
    target: str, reason: str, studio: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/data/upload/1/x.jpg"] = redirect(target)
    assert refusal(fetcher_of(studio.url), "/data/upload/1/x.jpg").reason == reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_redirects_are_followed_and_no_more(
    status: int, studio: Server, fetcher_of: Fetchers
) -> None:
    for number in range(6):
        studio.routes[f"/{number}"] = redirect(f"/{number + 1}", status)
    fetcher = fetcher_of(studio.url)
    assert fetcher.fetch("/1") == BODY
    assert refusal(fetcher, "/0").reason == "too_many_redirects"


def test_a_redirect_to_nowhere_is_a_wrong_status(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"", 302)
    assert refusal(fetcher_of(studio.url), "/x").reason == "http_status"


# A name that changes its address


def test_a_rebinding_resolver_gains_nothing(
    serve: Callable[..., Server], fetcher_of: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = serve("127.0.0.1")
    outside = serve("127.0.0.2", inside.server_port)
    inside.routes["/x.jpg"] = answer(b"a secret of this network")
    addresses = iter(["127.0.0.2", "127.0.0.1", "127.0.0.1"])

    def rebind(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "rebind.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    fetcher = fetcher_of("http://studio.example", allowed_hosts="127.0.0.2")
    url = f"http://rebind.example:{inside.server_port}/x.jpg"
    assert fetcher.fetch(url) == BODY
    assert fetcher.fetch(url) == BODY
    assert outside.requests[0][1]["Host"] == f"rebind.example:{inside.server_port}"
    fetcher.close()
    assert refusal(fetcher, url).reason == "private_address"
    assert inside.requests == []


def test_proxies_of_the_environment_are_not_used(
    studio: Server, other: Server, fetcher_of: Fetchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    assert fetcher_of(studio.url).fetch("/data/upload/1/x.jpg") == BODY
    assert other.requests == []
