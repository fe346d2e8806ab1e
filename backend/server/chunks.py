"""Where a chunked request body ends (RFC 9112, section 7.1)."""

from __future__ import annotations

MAX_LINE = 8190
"""Bytes of a line with a chunk's size, or of a trailer."""

MAX_DIGITS = 16
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkFraming:
    """Follows the framing of a chunked body as it arrives, and keeps none of it.

    What is wrong with a body is left to the parser that reads it: this only says when to stop.

    Attributes:
        size: bytes of all chunks announced so far.
        framing: bytes around them.
        is_broken: whether the framing cannot be followed any further.
    """

    def __init__(self) -> None:
        self.size = 0
        self.framing = 0
        self.is_broken = False
        self._line = bytearray()
        self._skipped = 0
        self._in_trailers = False

    def find_end(self, data: bytes) -> int | None:
        """Where in ``data``, which follows what was given before, the body ends; None: not yet."""
        at = 0
        while at < len(data) and not self.is_broken:
            if self._skipped:
                step = min(self._skipped, len(data) - at)
                self._skipped -= step
                at += step
                continue
            newline = data.find(b"\n", at)
            end = len(data) if newline < 0 else newline + 1
            self._line += data[at:end]
            self.framing += end - at
            at = end
            if len(self._line) > MAX_LINE:
                self.is_broken = True
            elif newline >= 0:
                line = bytes(self._line).strip()
                self._line.clear()
                if not self._in_trailers:
                    self._begin_chunk(line)
                elif not line:
                    return at
        return None

    def _begin_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        # int() alone would accept signs, underscores and a prefix.
        if not 0 < len(digits) <= MAX_DIGITS or not _HEX.issuperset(digits):
            self.is_broken = True
            return
        size = int(digits, 16)
        self.size += size
        # The line break after the data belongs to the chunk.
        self._skipped = size + 2 if size else 0
        self._in_trailers = not size
