"""A file on a web server that a test replaces, and what was sent of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.http_server import Server


@dataclass
class Hosted:
    """See the module; empty headers are not sent.

    Attributes:
        body: the file.
        etag, last_modified: its headers.
        sized: whether its length is declared.
        honours: whether the host answers 304 where it may.
        status: with which it answers.
        answers: status and number of body bytes, of each answer.
    """

    body: bytes
    etag: str = ""
    last_modified: str = ""
    sized: bool = True
    honours: bool = True
    status: int = 200
    answers: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers
        same = bool(self.etag) and asked.get("If-None-Match") == self.etag
        # As many hosts do: a file with an older date counts as unchanged.
        same = same or bool(self.last_modified and asked.get("If-Modified-Since"))
        status = 304 if same and self.honours else self.status
        body = self.body if status == 200 else b""
        handler.send_response(status)
        for name, value in (("ETag", self.etag), ("Last-Modified", self.last_modified)):
            if value:
                handler.send_header(name, value)
        if self.sized and status != 304:
            handler.send_header("Content-Length", str(len(body)))
        elif status != 304:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        # Before the client can have the answer.
        self.answers.append((status, len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for such files."""
    server = Server()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
