"""Clients that begin a request and do not end it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from tests.support.waiting import PATIENCE


def connect(url: str, begin: bytes = b"") -> socket.socket:
    """A connection to a server, on which this was sent."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    client = socket.create_connection((parts.hostname, parts.port or 80), timeout=PATIENCE)
    client.sendall(begin)
    return client


def request_head(method: str, path: str, *headers: str) -> bytes:
    """Request line and headers."""
    lines = [f"{method} {path} HTTP/1.1", "Host: backend", *headers]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def read_all(client: socket.socket) -> bytes:
    """All that the server sends until it closes the connection; a reset counts as that."""
    received = b""
    try:
        while data := client.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    finally:
        client.close()
    return received


def status(answer: bytes) -> int:
    """The status code of an answer; 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
