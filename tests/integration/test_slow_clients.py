"""`ls-clip serve` among clients that begin requests and do not end them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.builders import predict_body, task
from tests.support.processes import served
from tests.support.slow_clients import connect, read_all, request_head, status
from tests.support.waiting import PATIENCE, until

LOGIN = ("user", "pass")
CREDENTIALS = {
    "BASIC_AUTH_USER": "user",
    "BASIC_AUTH_PASS": "pass",
    "LS_CLIP_WEBHOOK_SECRET": "secret",
}
JSON = "Content-Type: application/json"
HALF_BODY = request_head("POST", "/predict", JSON, "Content-Length: 1000") + b'{"tasks"'
HALF_CHUNKED = request_head("POST", "/predict", JSON, "Transfer-Encoding: chunked") + b"ff\r\n{"
HALF_HEAD = b"GET /health HTTP/1.1\r\nHost: backend\r\nX-Slow: "
BODIES, HEADS = 100, 1200


class Backend(NamedTuple):
    url: str
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with ready(tmp_path_factory.mktemp("server"), LS_CLIP_RECEIVE_SECONDS="10") as backend:
        yield backend


def closed_by_server(url: str) -> Counter[str]:
    """Reason -> connections, from /metrics."""
    name = "ls_clip_connections_closed_total"
    lines = requests.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    counts = [line.split('"') for line in lines if line.startswith(name + "{")]
    return Counter({parts[1]: int(float(parts[2].strip("} "))) for parts in counts})


@contextmanager
def ready(folder: Path, **variables: str) -> Iterator[Backend]:
    """A backend that has loaded its model: here only clients are slow."""
    with served(folder, LS_CLIP_PREDICT_SECONDS="90", **variables) as (url, log):
        until(lambda: "the encoder is loaded" in log.read_text())
        yield Backend(url, log)


def assert_serves(url: str, auth: tuple[str, str] | None = None) -> None:
    assert requests.get(f"{url}/health", timeout=PATIENCE).json()["status"] == "UP"
    answer = requests.post(
        f"{url}/predict", json=predict_body(task(1)), auth=auth, timeout=PATIENCE
    )
    assert "result" in answer.json()["results"][0]


def test_half_sent_requests_of_strangers_silence_nobody(tmp_path: Path):
    with ready(tmp_path, LS_CLIP_RECEIVE_SECONDS="10", **CREDENTIALS) as (url, log):
        bodies = [connect(url, HALF_BODY) for _ in range(BODIES)]
        heads = [connect(url, HALF_HEAD) for _ in range(HEADS)]
        assert_serves(url, LOGIN)
        # A stranger's body is not waited for.
        assert Counter(status(read_all(client)) for client in bodies) == {401: BODIES}
        answers = Counter(status(read_all(client)) for client in heads)
        closed = closed_by_server(url)
        assert_serves(url, LOGIN)
    # Those that had to make room hear nothing.
    assert answers[408] + answers[0] == HEADS
    assert closed["slow_headers"] + closed["crowded"] == HEADS
    assert "connections closed on their clients" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_half_sent_bodies_silence_nobody_where_no_credentials_are_asked_for(server: Backend):
    before = closed_by_server(server.url)
    halves = (HALF_BODY, HALF_CHUNKED)
    begun = [connect(server.url, half) for half in halves for _ in range(BODIES)]
    assert_serves(server.url)
    assert Counter(status(read_all(client)) for client in begun) == {408: 2 * BODIES}
    assert closed_by_server(server.url) - before == {"slow_body": 2 * BODIES}


@pytest.mark.parametrize("begin", [b"", HALF_BODY], ids=["headers", "body"])
def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(server: Backend, begin: bytes):
    rest = b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 10_000 if not begin else b" " * 900
    client = connect(server.url, begin)
    ended = threading.Event()
    sent = 0

    def trickle() -> None:
        nonlocal sent
        try:
            while sent < len(rest) and not ended.wait(0.1):
                client.sendall(rest[sent : sent + 1])
                sent += 1
        except OSError:
            """The server has closed."""

    sender = threading.Thread(target=trickle)
    sender.start()
    answer = read_all(client)
    ended.set()
    sender.join()
    assert_serves(server.url)
    assert status(answer) in {408, 0}
    assert sent < len(rest)


def test_large_uploads_that_take_their_time_work(server: Backend):
    body = json.dumps(predict_body(task(1))).encode()
    pieces = [body[:-1], *[b" " * 1_000_000] * 30, b"}"]

    def slowly() -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(0.02)
            yield piece

    headers = {"Content-Type": "application/json"}
    chunked = requests.post(
        f"{server.url}/predict", data=slowly(), headers=headers, timeout=PATIENCE
    )
    assert "result" in chunked.json()["results"][0]
    sized = {**headers, "Content-Length": str(sum(map(len, pieces)))}
    client = HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    # Three on one connection, the large one first.
    for content in (slowly(), body, body):
        client.request("POST", "/predict", content, sized if content is not body else headers)
        answer = client.getresponse()
        assert "result" in json.loads(answer.read())["results"][0]
    client.close()


def test_whatever_is_no_request_gets_an_answer_in_the_one_shape(server: Backend):
    """And the next request on the connection is never read out of a body that was refused."""
    inner = request_head("GET", "/versions")
    predict = ("POST", "/predict", JSON)
    plain = request_head("GET", "/health")
    requests_sent = {
        "no HTTP": (b"\x16\x03\x01\x02\r\n\r\n", [400]),
        "no version": (b"GET /\r\n\r\n", [400]),
        "length of letters": (request_head(*predict, "Content-Length: abc"), [400]),
        "negative length": (request_head(*predict, "Content-Length: -1"), [400]),
        "two lengths": (request_head(*predict, "Content-Length: 1", "Content-Length: 2"), [400]),
        "length of 400 digits": (request_head(*predict, "Content-Length: " + "9" * 400), [413]),
        "length and chunks": (
            request_head(*predict, "Content-Length: 4", "Transfer-Encoding: chunked"),
            [400],
        ),
        "unknown coding": (request_head(*predict, "Transfer-Encoding: br"), [400]),
        "no chunk": (request_head(*predict, "Transfer-Encoding: chunked") + b"xyz\r\n\r\n", [400]),
        "chunk without end": (
            request_head(*predict, "Transfer-Encoding: chunked") + b"1\r\n{XX0\r\n\r\n",
            [400],
        ),
        "too long a body": (
            request_head(*predict, "Content-Length: 99999999") + inner,
            [413],
        ),
        "too many chunks": (
            request_head(*predict, "Transfer-Encoding: chunked") + b"5f5e0ff\r\n" + inner,
            [413],
        ),
        "long headers": (
            request_head("GET", "/", *[f"X-{n}: {'a' * 7000}" for n in range(20)]),
            [431],
        ),
        "many headers": (request_head("GET", "/", *[f"X-{n}: a" for n in range(200)]), [400]),
        "unknown expectation": (request_head(*predict, "Expect: nonsense"), [400]),
        "two at once": (plain + plain, [200, 200]),
        "a body for nothing": (
            request_head("POST", "/nowhere", "Content-Length: 5") + b"12345" + plain,
            [404, 200],
        ),
    }
    for name, (sent, expected) in requests_sent.items():
        client = connect(server.url, sent)
        client.shutdown(1)
        answer = read_all(client)
        codes = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert codes == expected, (name, answer)
        if codes[0] >= 400:
            body = answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1")[0]
            assert set(json.loads(body)["error"]) == {"code", "message", "fix"}, name
    assert_serves(server.url)
    assert "Traceback" not in server.log.read_text()


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(server: Backend):
    body = json.dumps(predict_body(task(1))).encode()
    head = request_head(
        "POST", "/predict", JSON, f"Content-Length: {len(body)}", "Expect: 100-continue"
    )
    client = connect(server.url, head)
    asked = client.recv(1024)
    client.sendall(body)
    client.shutdown(1)
    answer = read_all(client)
    assert asked.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 OK" in answer
