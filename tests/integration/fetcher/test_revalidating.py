"""Asking whether a file is still the same: what is sent, what is read, and what is believed."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from backend.errors import ImageError
from backend.images.fetcher import ImageFetcher
from backend.images.validators import UNKNOWN, FetchedFile, Validators
from tests.support.hosted import Hosted
from tests.support.http_server import BODY, TOKEN, Fetchers, Route, Server, answer, redirect

DATE = "Mon, 23 Nov 2026 06:56:13 GMT"
STRONG, WEAK = '"1"', 'W/"1"'


def taken(fetcher: ImageFetcher, value: str = "/x") -> FetchedFile:
    file = fetcher.fetch_file(value, UNKNOWN)
    assert file is not None
    return file


def headers_only(**headers: str) -> Route:
    """Declares a body that never comes: whoever reads it waits until the time is over."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        answer(b"", 200, Content_Length=str(len(BODY)), **headers)(handler)
        assert isinstance(handler.server, Server)
        handler.server.closing.wait()

    return route


def test_what_came_with_a_file_is_told(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = Hosted(BODY, STRONG, DATE)
    assert taken(fetcher_of(studio.url)) == FetchedFile(BODY, Validators(STRONG, DATE, len(BODY)))


@pytest.mark.parametrize("etag", [STRONG, WEAK])
def test_an_equal_etag_is_answered_without_a_body(
    studio: Server, fetcher_of: Fetchers, etag: str
) -> None:
    studio.routes["/x"] = file = Hosted(BODY, etag)
    fetcher = fetcher_of(studio.url)
    known = taken(fetcher).validators
    assert [fetcher.fetch_file("/x", known) for _ in range(3)] == [None] * 3
    assert file.answers == [(200, len(BODY)), *[(304, 0)] * 3]
    # One connection for all: an unchanged image costs one answer.
    assert len(studio.peers) == 1


def test_another_etag_brings_the_new_file(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = file = Hosted(BODY, STRONG)
    fetcher = fetcher_of(studio.url)
    known = taken(fetcher).validators
    file.body, file.etag = b"another", '"2"'
    found = fetcher.fetch_file("/x", known)
    assert found == FetchedFile(b"another", Validators('"2"', "", 7))


@pytest.mark.parametrize(
    "headers", [{"ETag": STRONG}, {"Last_Modified": DATE}, {"ETag": WEAK, "Last_Modified": DATE}]
)
def test_where_a_host_ignores_conditions_its_headers_decide_and_the_body_is_not_read(
    studio: Server, fetcher_of: Fetchers, headers: dict[str, str]
) -> None:
    studio.routes["/x"] = headers_only(**headers)
    known = Validators(headers.get("ETag", ""), headers.get("Last_Modified", ""), len(BODY))
    assert fetcher_of(studio.url).fetch_file("/x", known) is None


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        (Validators("", DATE, len(BODY)), {"last_modified": "Mon, 23 Nov 2026 06:56:14 GMT"}),
        (Validators("", DATE, len(BODY) + 1), {"last_modified": DATE}),
        (Validators("", DATE, len(BODY)), {"last_modified": DATE, "sized": False}),
        (Validators("", "", len(BODY)), {}),
        (Validators(WEAK, "", len(BODY)), {"etag": WEAK, "honours": False}),
        (Validators(STRONG, DATE, len(BODY)), {"last_modified": DATE}),
        (Validators("", DATE, len(BODY)), {"etag": STRONG, "last_modified": DATE}),
        (UNKNOWN, {}),
    ],
)
def test_what_proves_nothing_is_read(
    studio: Server, fetcher_of: Fetchers, known: Validators, sent: dict[str, Any]
) -> None:
    studio.routes["/x"] = file = Hosted(BODY, **sent)
    found = fetcher_of(studio.url).fetch_file("/x", known)
    assert found is not None and found.data == BODY
    assert file.answers == [(200, len(BODY))]


def test_an_older_file_put_in_place_is_noticed(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = file = Hosted(BODY, last_modified=DATE)
    fetcher = fetcher_of(studio.url)
    known = taken(fetcher).validators
    file.body, file.last_modified = BODY[::-1], "Mon, 02 Jan 2006 06:56:13 GMT"
    found = fetcher.fetch_file("/x", known)
    assert found is not None and found.data == BODY[::-1]


@pytest.mark.parametrize(
    "etag", ['"a\x01"', "no quotes", '"' + "x" * 2000 + '"', '"\xe9"', 'W/"', '"a"b"']
)
def test_what_is_no_etag_is_not_sent_back(studio: Server, fetcher_of: Fetchers, etag: str) -> None:
    studio.routes["/x"] = Hosted(BODY, etag)
    fetcher = fetcher_of(studio.url)
    known = taken(fetcher).validators
    found = fetcher.fetch_file("/x", known)
    assert known.etag == "" and found is not None and found.data == BODY
    assert all("If-None-Match" not in headers for _, headers in studio.requests)


def test_a_304_that_nobody_asked_for_is_an_error(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = answer(b"", 304)
    with pytest.raises(ImageError) as caught:
        fetcher_of(studio.url).fetch_file("/x", UNKNOWN)
    assert caught.value.reason == "http_status"


def test_the_token_stays_with_label_studio_when_a_file_is_asked_for_again(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    studio.routes["/resolve"] = redirect(f"{other.url}/x")
    other.routes["/x"] = file = Hosted(BODY, STRONG)
    fetcher = fetcher_of(studio.url, allowed_hosts="127.0.0.1")
    known = taken(fetcher, "/resolve").validators
    assert fetcher.fetch_file("/resolve", known) is None
    assert [status for status, _ in file.answers] == [200, 304]
    assert studio.tokens() == [TOKEN["Authorization"]] * 2
    assert other.tokens() == [None, None]


def test_a_private_host_is_refused_for_revalidation_as_for_a_fetch(
    studio: Server, other: Server, fetcher_of: Fetchers
) -> None:
    with pytest.raises(ImageError) as caught:
        fetcher_of(studio.url).fetch_file(f"{other.url}/x", Validators(STRONG))
    assert caught.value.reason == "private_address"
    assert other.requests == []


def test_the_limits_of_a_fetch_hold_for_revalidation(studio: Server, fetcher_of: Fetchers) -> None:
    studio.routes["/x"] = Hosted(BODY * 100, '"2"')
    studio.routes["/slow"] = headers_only(ETag='"2"')
    with pytest.raises(ImageError) as large:
        fetcher_of(studio.url, max_image_bytes=1024).fetch_file("/x", Validators(STRONG))
    with pytest.raises(ImageError) as late:
        fetcher_of(studio.url, fetch_timeout=0.5).fetch_file("/slow", Validators(STRONG))
    assert (large.value.reason, late.value.reason) == ("too_large", "timeout")
