"""TIFF files made by hand, with the pixels that the specification gives them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.builders import photo

SIZE = (37, 29)
PICTURE: NDArray[np.uint8] = np.asarray(photo(7, *SIZE))
GREY: NDArray[np.uint8] = np.asarray(photo(7, *SIZE).convert("L"))
OTHER: NDArray[np.uint8] = np.asarray(photo(8, *SIZE).convert("L"))

PLAIN, DEFLATE = 1, 8
_TYPES = {"short": (3, "H"), "long": (4, "L"), "long8": (16, "Q")}


def tiff(
    values: NDArray[Any],
    photometric: int,
    *,
    bits: Sequence[int] | None = None,
    extra: Sequence[int] | None = None,
    sample_format: int | None = None,
    planar: bool = False,
    order: str = "<",
    compression: int = PLAIN,
    big: bool = False,
    rows: bytes | None = None,
    strip_rows: int | None = None,
    tags: dict[int, tuple[str, Sequence[int]]] | None = None,
) -> bytes:
    """A TIFF in strips, for each band its own where ``planar``.

    Args:
        values: height x width, or height x width x bands.
        rows: the packed rows, where they are not just the values.
        strip_rows: how many rows a strip has; all of them by default.
    """
    values = values.reshape(*values.shape[:2], -1)
    height, width, count = values.shape
    kind = values.dtype.newbyteorder(order)  # type: ignore[arg-type]
    if rows is not None:
        strips = [rows]
    else:
        parts = [values[..., band] for band in range(count)] if planar else [values]
        strips = [
            part[top : top + (strip_rows or height)].astype(kind).tobytes()
            for part in parts
            for top in range(0, height, strip_rows or height)
        ]
    if compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    start = 16 if big else 8
    offsets = [start + sum(map(len, strips[:number])) for number in range(len(strips))]
    number = "long8" if big else "long"
    entries: dict[int, tuple[str, Sequence[int]]] = {
        256: ("long", [width]),
        257: ("long", [height]),
        258: ("short", bits or [8 * values.dtype.itemsize] * count),
        259: ("short", [compression]),
        262: ("short", [photometric]),
        273: (number, offsets),
        277: ("short", [count]),
        278: ("long", [strip_rows or height]),
        279: (number, [len(strip) for strip in strips]),
        284: ("short", [2 if planar else 1]),
    }
    if extra is not None:
        entries[338] = ("short", extra)
    if sample_format is not None:
        entries[339] = ("short", [sample_format] * count)
    entries |= tags or {}
    body = b"".join(strips)
    body += bytes(-len(body) % 8)
    return _file(entries, body, order, big)


def _file(
    entries: dict[int, tuple[str, Sequence[int]]], body: bytes, order: str, big: bool
) -> bytes:
    """The header, the pixels, and then the directory with its values."""
    mark = b"II" if order == "<" else b"MM"
    start = (16 if big else 8) + len(body)
    word, entry, room = ("Q", 20, 8) if big else ("L", 12, 4)
    values_at = start + (8 if big else 2) + entry * len(entries) + struct.calcsize(order + word)
    directory, values = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for tag, (name, numbers) in sorted(entries.items()):
        kind, letter = _TYPES[name]
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        directory += struct.pack(order + "HH" + word, tag, kind, len(numbers))
        if len(packed) <= room:
            directory += packed.ljust(room, b"\0")
        else:
            directory += struct.pack(order + word, values_at + len(values))
            values += packed + bytes(-len(packed) % 8)
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        head = mark + struct.pack(order + "HL", 42, start)
    return head + body + directory + bytes(struct.calcsize(order + word)) + values


def with_bands(*more: NDArray[Any], base: NDArray[Any] = PICTURE) -> NDArray[Any]:
    """The picture with these bands after its own."""
    base = base.reshape(*base.shape[:2], -1)
    return np.concatenate([base, *(band[..., None].astype(base.dtype) for band in more)], axis=2)


def wide(values: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """8 bits as 16."""
    return values.astype(np.uint16) * 257


def over_white(values: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    share = (alpha / 255.0)[..., None]
    base = values.reshape(*values.shape[:2], -1)
    return np.rint(base * share + 255 * (1 - share)).astype(np.uint8)


def packed(values: NDArray[np.uint16], bits: int) -> bytes:
    """Grey rows of so many bits a sample, each row up to a whole byte."""
    spread = (values[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()
