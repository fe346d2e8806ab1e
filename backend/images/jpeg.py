"""JPEG: its orientation, and what no decoder of browsers reads."""

from __future__ import annotations

from collections.abc import Iterator

from backend.images.orientation import exif_orientation
from backend.messages.message import Message

_EXIF, _SCAN, _END = 0xE1, 0xDA, 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_READABLE_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
# Markers that no length follows: stuffed zeros, TEM, restarts and the start.
_BARE_MARKERS = {0x00, 0x01, *range(0xD0, 0xD9)}


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the first scan, as libjpeg finds them."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _BARE_MARKERS:
            place += 2
        elif marker in {_SCAN, _END}:
            return
        else:
            length = max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
            yield marker, place + 4, place + 2 + length
            place += 2 + length


def jpeg_orientation(data: bytes) -> int:
    """The orientation of a JPEG, 1 to 8: that of its first EXIF segment."""
    for marker, start, end in _segments(data):
        # The byte after the name and its zero is a filler.
        if marker == _EXIF and data[start : start + 5] == b"Exif\0":
            return exif_orientation(data[start + 6 : end])
    return 1


def unreadable(data: bytes) -> str | None:
    """What cannot be read of a JPEG, from its header; None where there is nothing."""
    for marker, start, end in _segments(data):
        if marker not in _FRAMES:
            continue
        frame = data[start:end]
        if len(frame) < 6:
            return None
        if marker not in _READABLE_FRAMES:
            return Message("lossless or hierarchical")
        if frame[0] != 8:
            return Message("of {bits} bits a sample", bits=frame[0])
        if frame[1:3] == b"\0\0":
            return Message("one whose height comes after its pixels")
        if frame[5] not in {1, 3, 4}:
            return Message("of {components} components", components=frame[5])
        return None
    return None
