"""A web server that answers as a test says, and what it was asked."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from backend.errors import ImageError
from backend.images.fetcher import ImageFetcher
from tests.support.waiting import PATIENCE

TOKEN = {"Authorization": "Token of-label-studio"}
BODY = b"the bytes of an image"

FOREVER = 10 * PATIENCE
"""A pause longer than any limit: what waits for its end fails."""

Route = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers as its routes say, BODY by default, and remembers what it was asked."""

    daemon_threads = True
    block_on_close = False
    # Many clients may knock before this process gets a core to answer them.
    request_queue_size = 128

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.host = host
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.peers: set[Any] = set()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_port}"

    def tokens(self) -> list[str | None]:
        return [headers.get("Authorization") for _, headers in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.peers.add(self.client_address)
        self.server.routes.get(self.path.partition("?")[0], answer())(self)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def answer(body: bytes = BODY, status: int = 200, **headers: str) -> Route:
    sent = {"Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in sent.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return route


def redirect(url: str, status: int = 302) -> Route:
    return answer(b"", status, Location=url)


def raw(*parts: bytes, pause: float = 0.0, times: int = 1) -> Route:
    """Writes to the socket past all rules, the last part again and again, then hangs up.

    The pause after each part ends early when the test is over.
    """

    def route(handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler.server, Server)
        handler.close_connection = True
        for part in itertools.chain(parts, itertools.repeat(parts[-1], times - 1)):
            handler.wfile.write(part)
            if handler.server.closing.wait(pause):
                return

    return route


def in_turn(*routes: Route) -> Route:
    left = list(routes)

    def route(handler: BaseHTTPRequestHandler) -> None:
        current = left.pop(0) if len(left) > 1 else left[0]
        current(handler)

    return route


Fetchers = Callable[..., ImageFetcher]


def refusal(fetcher: ImageFetcher, value: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(value)
    assert caught.value.fix
    return caught.value
