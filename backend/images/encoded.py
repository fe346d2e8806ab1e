"""What a decoder is given of a file, and what the file says beside its pixels."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO


@dataclass(frozen=True)
class EncodedImage:
    """A file as Pillow is to read it.

    Attributes:
        data: the file.
        orientation: how the image has to be turned, 1 to 8 as in EXIF data.
        gamma: what pixel values have to be raised to before they are light; None for sRGB's curve.
        canvas: width and height, where the pixels are only a part of the image.
        place: left and top of that part.
        parts: what Pillow is given instead of the file; empty for all of it.
    """

    data: bytes
    orientation: int = 1
    gamma: float | None = None
    canvas: tuple[int, int] | None = None
    place: tuple[int, int] = (0, 0)
    parts: tuple[bytes | memoryview, ...] = ()

    def opened(self) -> BinaryIO:
        """A stream for Pillow."""
        return JoinedFile(self.parts) if self.parts else io.BytesIO(self.data)


class JoinedFile(io.BytesIO):
    """Pieces of memory, one after the other, that are read as a file. They are not copied."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        super().__init__()
        self._parts = parts
        self._starts = [0, *accumulate(map(len, parts))]
        self._place = 0
        # The longest part, where nearly all reads are.
        longest = max(range(len(parts)), key=lambda number: len(parts[number]))
        self._longest = parts[longest]
        self._from, self._to = self._starts[longest], self._starts[longest + 1]

    def read(self, size: int | None = -1) -> bytes:
        """As of a file."""
        if size is not None and self._from <= self._place <= self._place + size <= self._to:
            start = self._place - self._from
            self._place += size
            return bytes(self._longest[start : start + size])
        left = self._starts[-1] - self._place
        left = left if size is None or size < 0 else min(size, left)
        found: list[bytes | memoryview] = []
        while left > 0:
            number = bisect_right(self._starts, self._place) - 1
            start = self._place - self._starts[number]
            piece = self._parts[number][start : start + left]
            found.append(piece)
            self._place += len(piece)
            left -= len(piece)
        return b"".join(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._starts[-1]}
        self._place = max(0, origin[whence] + offset)
        return self._place

    def tell(self) -> int:
        """As of a file."""
        return self._place
