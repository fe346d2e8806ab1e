"""One request while it arrives: what there is of it so far, and when it is whole.

Bytes are collected without a thread, so that a client that sends slowly or never ends costs
nothing but a connection. gunicorn's own parser reads what was collected.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.body import ChunkedReader, LengthReader

from backend.errors import RequestError
from backend.server.chunks import ChunkFraming

MAX_HEAD = 65_536
"""Bytes of request line and headers."""
IN_MEMORY = 262_144
"""Bytes of a request that are kept in memory; a longer one goes to a temporary file."""
PIECE = 262_144
"""Bytes that are read at once."""
_END_OF_HEAD = b"\r\n\r\n"

BodyLimit = Callable[[Mapping[str, str]], int]
"""How many bytes the body of a request with these headers (upper case) may have; 0: none."""


class Stage(Enum):
    """How much of a request is there."""

    HEAD = auto()
    BODY = auto()
    READY = auto()


class Arrival:
    """See the module. One thread at a time.

    Args:
        config: gunicorn's.
        client: the caller's address.
        body_limit: see `BodyLimit`; a longer body is not read.
        started: when it began, on the monotonic clock.

    Attributes:
        stage: how much of it is there.
        path: of the address; empty until the head is there, or if that cannot be parsed.
        expects_continue: whether the client waits for "100 Continue" before it sends the body.
        is_whole: whether all of it was collected, if it is ready.
        rest: bytes that belong to the next request of the connection.
    """

    def __init__(self, config: Any, client: Any, body_limit: BodyLimit, started: float) -> None:
        self.started = started
        self.stage = Stage.HEAD
        self.path = ""
        self.expects_continue = False
        self.is_whole = True
        self.rest = b""
        self._config = config
        self._client = client
        self._body_limit = body_limit
        self._max_body = 0
        self._head = bytearray()
        self._content: Any = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._missing = 0
        self._chunks: ChunkFraming | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is there."""
        return self.stage is Stage.HEAD and not self._head

    @property
    def wanted(self) -> int:
        """How many bytes to read next, at most."""
        return min(self._missing, PIECE) if self._missing else PIECE

    def feed(self, data: bytes) -> None:
        """Take what the client has sent.

        Raises:
            RequestError: 431, the head is too long.
        """
        if self.stage is Stage.BODY:
            self._feed_body(data)
            return
        searched = max(0, len(self._head) - len(_END_OF_HEAD) + 1)
        self._head += data
        end = self._head.find(_END_OF_HEAD, searched)
        if (end if end >= 0 else len(self._head)) > MAX_HEAD:
            raise RequestError(
                f"The headers are longer than {MAX_HEAD} bytes.",
                "Send fewer or shorter headers.",
                http_status=431,
                code="headers_too_large",
            )
        if end < 0:
            return
        end += len(_END_OF_HEAD)
        head, more = bytes(self._head[:end]), bytes(self._head[end:])
        self._content.write(head)
        self.stage = self._begin_body(head)
        if self.stage is Stage.BODY:
            self._feed_body(more)
        else:
            self._content.seek(0)
            self.rest = more

    def recv(self, size: int) -> bytes:
        """Bytes for gunicorn's parser, in place of a socket's; empty at the end.

        Raises:
            RequestError: the body was not collected, because it is too long or because the caller
                may not send one.
        """
        data: bytes = self._content.read(size)
        if not data and not self.is_whole:
            raise RequestError(
                "The request body was not read.",
                "Send less at once, or raise LS_CLIP_MAX_BODY_BYTES.",
                http_status=413,
                code="too_large",
            )
        return data

    def close(self) -> None:
        """Drop what was collected."""
        self._content.close()

    def _begin_body(self, head: bytes) -> Stage:
        try:
            request = next(get_parser(self._config, iter([head]), self._client))
        except Exception:
            # The thread that handles it meets the same error, and answers.
            return Stage.READY
        headers = dict(request.headers)
        self.path = request.path or ""
        self.expects_continue = headers.get("EXPECT", "").lower() == "100-continue"
        reader = request.body.reader
        if isinstance(reader, ChunkedReader):
            self._chunks = ChunkFraming()
        elif isinstance(reader, LengthReader):
            self._missing = reader.length
        if self._chunks is None and not self._missing:
            return Stage.READY
        self._max_body = self._body_limit(headers)
        self.is_whole = 0 < self._max_body >= self._missing
        return Stage.BODY if self.is_whole else Stage.READY

    def _feed_body(self, data: bytes) -> None:
        if self._chunks is not None:
            end = self._chunks.find_end(data)
            self._content.write(data if end is None else data[:end])
            if end is not None:
                self.rest = data[end:]
                self._end()
            elif self._chunks.is_broken:
                self._end()
            elif self._chunks.size > self._max_body or self._chunks.framing > self._max_body:
                self._end(is_whole=False)
            return
        body, self.rest = data[: self._missing], data[self._missing :]
        self._content.write(body)
        self._missing -= len(body)
        if not self._missing:
            self._end()

    def _end(self, is_whole: bool = True) -> None:
        self.is_whole = is_whole
        self._content.seek(0)
        self.stage = Stage.READY
