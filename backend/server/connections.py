"""gunicorn's threaded worker, with requests that wait for no thread until they are whole.

gunicorn's own worker gives a thread to each connection as soon as a byte has come, and reads from
it however long that takes: as many clients as there are threads can silence it. Here one loop
collects all requests, each within a time limit (`Arrival`), and hands over whole ones; connections
are closed there too. Where there are too many connections, those that have waited longest for the
rest of a request make room.
"""

from __future__ import annotations

import errno
import json
import logging
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from backend import telemetry
from backend.errors import RequestError
from backend.server.arrival import Arrival, Stage

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""For request line and headers, from the first byte or, on a new connection, from its start."""
ANSWER_SECONDS = 120.0
"""From the last byte of a request to the last byte of its answer. Label Studio waits 100."""
LINGER_SECONDS = 2.0
"""For a client to take an answer and close, before the connection is closed on it."""
UNHINDERED = frozenset({"/", "/health"})
"""Paths with threads of their own, so that they answer whatever else goes on."""
UNHINDERED_THREADS = 2
SEND_BUFFER = 262_144
"""Bytes of an answer that the kernel takes at once, so that no thread waits for a slow reader."""


class Closed(StrEnum):
    """Why a connection was closed on its client; the label of the metric."""

    SLOW_HEADERS = "slow_headers"
    SLOW_BODY = "slow_body"
    SLOW_ANSWER = "slow_answer"
    CROWDED = "crowded"


class Connection(TConn):
    """A connection, with the request that arrives on it.

    Attributes:
        arrival: that request.
        rest: what came of the next one.
    """

    def __init__(self, worker: ClipWorker, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, sock, client, server)
        self._worker = worker
        self.arrival: Arrival
        self.rest = b""
        self.parser = get_parser(self.cfg, self, client)
        # No thread is to wait for data: all of it is there when one takes over.
        self.data_ready = True

    def recv(self, size: int) -> bytes:
        """What was collected, for the parser."""
        return self.arrival.recv(size)

    def close(self, graceful: bool = False) -> None:
        """Close; gracefully: after the client had time to read the answer."""
        self.arrival.close()
        if graceful:
            self._worker.linger(self.sock)
        else:
            self.sock.close()


class ClipWorker(ThreadWorker):
    """See the module. Its application is a `backend.server.gunicorn.Server`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._receive_seconds: float = self.app.settings.receive_seconds
        self._heads: dict[Connection, float] = {}
        self._bodies: dict[Connection, float] = {}
        self._answers: dict[Connection, float] = {}
        self._lingering: dict[socket.socket, float] = {}
        self._closed: Counter[Closed] = Counter()
        self._unhindered = ThreadPoolExecutor(UNHINDERED_THREADS, "health")

    def init_signals(self) -> None:
        """As gunicorn's, but what would kill a worker and is meant for its parent is ignored."""
        super().init_signals()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        """As gunicorn's, which would kill a process that brings a large store up to date."""
        loaded = threading.Event()

        def tell() -> None:
            while not loaded.wait(1.0):
                self.notify()

        threading.Thread(target=tell, name="start", daemon=True).start()
        try:
            super().load_wsgi()
        finally:
            loaded.set()

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and wait for its request."""
        if self.nr_conns >= self.worker_connections - 1:
            self._make_room()
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                self._make_room()
            # Else the client has gone again.
            return
        self.nr_conns += 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._await_request(Connection(self, sock, client, listener.getsockname()))

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """Wait for the next request of a connection."""
        if conn not in self.keepalived_conns:
            # Closed since the events were listed.
            return
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_request(conn)

    def enqueue_req(self, conn: Connection) -> None:
        """Hand a request to a thread."""
        self._answers[conn] = time.monotonic() + ANSWER_SECONDS
        pool = self._unhindered if conn.arrival.path in UNHINDERED else self.tpool
        pool.submit(self.handle, conn).add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, conn, future)
        )

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        """Close a connection, or keep it for its next request."""
        self._answers.pop(conn, None)
        conn.arrival.close()
        super().finish_request(conn, fs)
        if conn.rest and self.keepalived_conns and self.keepalived_conns[-1] is conn:
            self.on_client_socket_readable(conn, conn.sock)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer a request that no application has seen, in the one shape."""
        if isinstance(exc, RequestError):
            error = exc
        elif isinstance(exc, ParseException):
            error = RequestError(
                f"The request is not valid HTTP: {type(exc).__name__}.",
                "Send a valid request; a proxy in front may say what is wrong.",
                http_status=400,
                code="bad_request",
            )
        else:
            log.error("unexpected error outside of a route", exc_info=exc)
            error = RequestError(
                "Something went wrong inside the backend.",
                "The backend's log has the details; please report them.",
                http_status=500,
                code="internal",
            )
        _send(client, _answer(error))

    def murder_pending(self) -> None:
        """Close what has waited too long; gunicorn calls this once a second and at the end."""
        now = time.monotonic()
        for conn in _overdue(self._heads, now):
            self._refuse(
                conn, Closed.SLOW_HEADERS, None if conn.arrival.is_empty else _late("headers")
            )
        for conn in _overdue(self._bodies, now):
            self._refuse(conn, Closed.SLOW_BODY, _late("body"))
        for conn in _overdue(self._answers, now):
            del self._answers[conn]
            self._count(Closed.SLOW_ANSWER)
            # Its thread, which may be writing, closes it.
            _shut_down(conn.sock, socket.SHUT_RDWR)
        for sock in _overdue(self._lingering, now):
            self._end_linger(sock)
        if not self.alive:
            for conn in [conn for conn in self._heads if conn.arrival.is_empty]:
                self._refuse(conn, None)
        if self._closed:
            why = ", ".join(f"{reason} {count}" for reason, count in self._closed.items())
            log.warning("connections closed on their clients: %s", why)
            self._closed.clear()

    def linger(self, sock: socket.socket) -> None:
        """Close a connection once its client has closed, or after a while.

        Closed at once, with something unread, the client might lose the answer.
        """
        _shut_down(sock, socket.SHUT_WR)
        sock.setblocking(False)
        if len(self._lingering) >= self.worker_connections:
            self._end_linger(next(iter(self._lingering)))
        self._lingering[sock] = time.monotonic() + LINGER_SECONDS
        self.poller.register(sock, selectors.EVENT_READ, self._discard)

    def _await_request(self, conn: Connection) -> None:
        now = time.monotonic()
        conn.arrival = Arrival(self.cfg, conn.client, self.app.body_limit, now)
        conn.sock.setblocking(False)
        self._heads[conn] = now + min(HEAD_SECONDS, self._receive_seconds)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._collect, conn))
        if conn.rest:
            self._take(conn, conn.rest)

    def _collect(self, conn: Connection, sock: socket.socket) -> None:
        if conn not in self._heads and conn not in self._bodies:
            # Closed since the events were listed.
            return
        try:
            data = sock.recv(conn.arrival.wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._take(conn, data)
        else:
            self._refuse(conn, None)

    def _take(self, conn: Connection, data: bytes) -> None:
        arrival = conn.arrival
        try:
            arrival.feed(data)
        except RequestError as error:
            self._refuse(conn, None, error)
            return
        if arrival.stage is Stage.READY:
            conn.rest = arrival.rest
            self._forget(conn)
            self.enqueue_req(conn)
        elif arrival.stage is Stage.BODY and conn in self._heads:
            del self._heads[conn]
            self._bodies[conn] = arrival.started + self._receive_seconds
            if arrival.expects_continue:
                _send(conn.sock, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _make_room(self) -> None:
        """Close the connection that has waited longest for the rest of a request."""
        if self._heads:
            self._refuse(next(iter(self._heads)), Closed.CROWDED)
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()
        elif self._bodies:
            self._refuse(next(iter(self._bodies)), Closed.CROWDED)

    def _refuse(
        self, conn: Connection, reason: Closed | None, error: RequestError | None = None
    ) -> None:
        """Close a connection whose request is not whole; with an error, after telling so."""
        if reason is not None:
            self._count(reason)
        self._forget(conn)
        self.nr_conns -= 1
        if error is not None:
            _send(conn.sock, _answer(error))
        conn.close(graceful=error is not None)

    def _count(self, reason: Closed) -> None:
        self._closed[reason] += 1
        telemetry.CONNECTIONS_CLOSED.labels(reason).inc()

    def _forget(self, conn: Connection) -> None:
        self._heads.pop(conn, None)
        self._bodies.pop(conn, None)
        self.poller.unregister(conn.sock)

    def _discard(self, sock: socket.socket) -> None:
        if sock not in self._lingering:
            return
        try:
            if sock.recv(65_536):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._end_linger(sock)

    def _end_linger(self, sock: socket.socket) -> None:
        self._lingering.pop(sock, None)
        self.poller.unregister(sock)
        sock.close()


def close_unless_whole(worker: ClipWorker, request: Any) -> None:
    """Hook of gunicorn before a request: what follows one that was not collected is no request."""
    del worker
    if not request.unreader.sock.arrival.is_whole:
        request.force_close()


def _overdue(deadlines: dict[Any, float], now: float) -> Iterable[Any]:
    return [key for key, deadline in deadlines.items() if deadline <= now]


def _late(what: str) -> RequestError:
    return RequestError(
        f"The {what} of the request did not come in time.",
        f"Send the headers within {HEAD_SECONDS:g} seconds and all of it within "
        "LS_CLIP_RECEIVE_SECONDS, or raise that.",
        http_status=408,
        code="too_slow",
    )


def _answer(error: RequestError) -> bytes:
    body = json.dumps({"error": error.as_dict()}).encode()
    head = (
        f"HTTP/1.1 {error.http_status} {HTTPStatus(error.http_status).phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _send(sock: socket.socket, data: bytes) -> None:
    """Send a few bytes, which the kernel takes at once, or not at all."""
    try:
        sock.send(data)
    except OSError:
        log.debug("a client has gone before it was answered")


def _shut_down(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        log.debug("a client has gone already")
