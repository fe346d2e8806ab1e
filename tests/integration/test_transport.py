"""Calls to a busy Label Studio, and to one that closes each connection, as uWSGI does alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import jwt
import pytest

from backend.labelstudio.authorization import TokenAuthorization
from backend.labelstudio.transport import Transport


class ClosingHandler(BaseHTTPRequestHandler):
    """Answers one request; what comes next over the connection finds it closed."""

    protocol_version = "HTTP/1.1"
    answered: list[str]
    lives: ClassVar[float] = 300.0

    def handle(self) -> None:
        self.handle_one_request()
        self.connection.recv(1)

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answered.append(self.command)
        access = jwt.encode({"exp": time.time() + self.lives, "token_type": "access"}, "k" * 32)
        body = json.dumps({"id": 1, "access": access}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def closing() -> Iterator[tuple[Transport, list[str]]]:
    answered: list[str] = []
    handler = type("Handler", (ClosingHandler,), {"answered": answered})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield (
            Transport(url, TokenAuthorization(url, "f" * 40)),
            answered,
        )
        server.shutdown()


@pytest.mark.parametrize(("lives", "exchanges"), [(300.0, 1), (30.0, 3)])
def test_an_access_token_is_renewed_before_a_busy_label_studio_gets_to_read_it(
    closing: tuple[Transport, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    lives: float,
    exchanges: int,
):
    monkeypatch.setattr(ClosingHandler, "lives", lives)
    url, answered = closing[0].url, closing[1]
    token = jwt.encode({"exp": time.time() + 9e8, "token_type": "refresh"}, "k" * 32)
    authorization = TokenAuthorization(url, token)
    for _ in range(3):
        assert authorization.headers()["Authorization"].startswith("Bearer ")
    assert answered == ["POST"] * exchanges


def test_what_must_not_be_repeated_is_not_sent_over_a_connection_that_was_closed(
    closing: tuple[Transport, list[str]],
):
    transport, answered = closing
    for _ in range(3):
        assert transport.call("GET", "/api/projects/1/")["id"] == 1
        assert transport.call("POST", "/api/projects/", json={}, attempts=1)["id"] == 1
    assert answered == ["GET", "POST"] * 3


def test_no_thread_is_without_a_token_while_another_one_renews_it(
    closing: tuple[Transport, list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ClosingHandler, "lives", 30.0)
    token = jwt.encode({"exp": time.time() + 9e8, "token_type": "refresh"}, "k" * 32)
    authorization = TokenAuthorization(closing[0].url, token)
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda _: authorization.headers()["Authorization"], range(200)))
    assert not any(one.endswith("None") for one in sent)
