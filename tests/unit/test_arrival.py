"""A request while it arrives: however it is cut into pieces, it ends where HTTP says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import RequestError
from backend.server.arrival import IN_MEMORY, MAX_HEAD, Arrival, Stage
from backend.server.chunks import MAX_LINE, ChunkFraming
from tests.support.slow_clients import request_head

CLIENT = ("127.0.0.1", 1)
NEXT = b"GET /next HTTP/1.1\r\n"


def arrival(max_body: int = 1000, admits: bool = True) -> Arrival:
    return Arrival(Config(), CLIENT, lambda headers: max_body if admits else 0, 0.0)


def feed(request: Arrival, data: bytes, cuts: list[int]) -> bytes:
    """Feed data in pieces until the request is ready; what was not taken."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        if request.stage is Stage.READY:
            return request.rest + data[start:]
        request.feed(data[start:end])
    return request.rest


def parsed(request: Arrival) -> Any:
    return next(get_parser(Config(), request, CLIENT))


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    parts = [b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join([*parts, b"0\r\n", trailers, b"\r\n"])


PLAIN = request_head("GET", "/health")
SIZED = request_head("POST", "/predict", "Content-Length: 12") + b"{\r\n\r\n  0\r\n}x"
CHUNKED = request_head("POST", "/predict", "Transfer-Encoding: chunked") + chunked(
    b"{\r\n0", b"\r\n\r\n", b"}" * 300, trailers=b"X-A: b\r\nX-C: d\r\n"
)
BODIES = {PLAIN: b"", SIZED: b"{\r\n\r\n  0\r\n}x", CHUNKED: b"{\r\n0\r\n\r\n" + b"}" * 300}


@settings(deadline=None)
@given(st.sampled_from([*BODIES]), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_request_ends_where_it_ends_however_it_is_cut(sent: bytes, cuts: list[int]):
    request = arrival()
    assert feed(request, sent + NEXT, cuts) == NEXT
    assert request.stage is Stage.READY and request.is_whole
    assert parsed(request).body.read() == BODIES[sent]
    request.close()


@pytest.mark.parametrize("sent", [*BODIES])
def test_a_request_of_which_the_last_byte_lacks_is_not_handed_over(sent: bytes):
    request = arrival()
    for place in range(len(sent) - 1):
        request.feed(sent[place : place + 1])
        assert request.stage is not Stage.READY
    request.feed(sent[-1:])
    assert request.stage is Stage.READY
    request.close()


@pytest.mark.parametrize("sent", [SIZED, CHUNKED])
def test_the_body_of_a_caller_who_may_send_none_is_not_waited_for(sent: bytes):
    request = arrival(admits=False)
    request.feed(sent[: sent.index(b"\r\n\r\n") + 4])
    assert request.stage is Stage.READY and not request.is_whole
    with pytest.raises(RequestError):
        parsed(request).body.read()
    request.close()


@pytest.mark.parametrize(
    "sent",
    [
        request_head("POST", "/", "Content-Length: 1001"),
        request_head("POST", "/", "Transfer-Encoding: chunked") + b"3e9\r\n",
        request_head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\n{\r\n" * 400,
        request_head("POST", "/", "Transfer-Encoding: chunked") + b"0\r\n" + b"X: y\r\n" * 400,
    ],
    ids=["announced", "large chunk", "tiny chunks", "trailers"],
)
def test_a_body_that_is_too_long_is_not_collected(sent: bytes):
    request = arrival()
    request.feed(sent)
    assert request.stage is Stage.READY and not request.is_whole
    with pytest.raises(RequestError) as caught:
        parsed(request).body.read()
    assert caught.value.http_status == 413
    request.close()


def test_headers_without_end_are_refused():
    request = arrival()
    request.feed(b"GET / HTTP/1.1\r\nX: ")
    with pytest.raises(RequestError) as caught:
        for _ in range(MAX_HEAD):
            request.feed(b"a" * 1000)
    assert caught.value.http_status == 431
    request.close()


def test_a_long_body_is_kept_on_disk():
    body = b"x" * (3 * IN_MEMORY)
    request = arrival(max_body=len(body))
    request.feed(request_head("POST", "/", f"Content-Length: {len(body)}") + body)
    assert request._content._rolled
    assert parsed(request).body.read() == body
    request.close()


@pytest.mark.parametrize(
    "framing",
    [b"xyz\r\n", b"\r\n", b"-1\r\n", b"+1\r\n", b"1_0\r\n", b"0x1\r\n", b"f" * 17 + b"\r\n"],
)
def test_what_is_no_size_of_a_chunk_is_not_followed(framing: bytes):
    chunks = ChunkFraming()
    assert chunks.find_end(framing) is None
    assert chunks.is_broken


def test_a_line_without_end_is_not_followed():
    chunks = ChunkFraming()
    for _ in range(MAX_LINE // 1000 + 1):
        assert chunks.find_end(b"1;" + b"a" * 998) is None
    assert chunks.is_broken
