"""One address for several servers, as a host name of several containers is."""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self


class Balancer:
    """Connects clients of one port to servers of others, to one after the other.

    Like a client that is given several addresses for a name, it tries the next where one refuses.

    Args:
        port: to listen at.
        targets: the servers' ports on this machine.
    """

    def __init__(self, port: int, targets: Sequence[int]) -> None:
        turns = itertools.cycle(range(len(targets)))

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                first = next(turns)
                for place in range(len(targets)):
                    target = targets[(first + place) % len(targets)]
                    try:
                        server = socket.create_connection(("127.0.0.1", target), 5)
                    except OSError:
                        continue
                    with server:
                        server.settimeout(None)
                        _both_ways(self.request, server)
                    return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _both_ways(client: socket.socket, server: socket.socket) -> None:
    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
    back.start()
    _copy(client, server)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends, and tell the target so."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
