"""TIFF files whose bands lie apart, one plane after the other: each is read as a grey image.

Pillow reads only the plainest of them rightly.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 284, 338, 339
_PLACES = {273, 279, 324, 325}
"""Offsets and lengths of strips and of tiles."""
_KEPT = {_WIDTH, _HEIGHT, _COMPRESSION, 266, 278, 317, 322, 323, 347}
"""Of size, compression and layout; neither the orientation nor any metadata."""
_BYTES, _LONG = 7, 4
_APART, _MIN_IS_WHITE, _MIN_IS_BLACK = 2, 0, 1
_MODES = {_MIN_IS_WHITE: "L", _MIN_IS_BLACK: "L", 2: "RGB", 5: "CMYK"}
_WITH_ALPHA = {("L", 1): "La", ("L", 2): "LA", ("RGB", 1): "RGBa", ("RGB", 2): "RGBA"}


def has_planes(tags: ImageFileDirectory_v2) -> bool:
    """Whether the bands of a file lie apart and are to be merged here."""
    return (
        tags.get(_PLANAR, 1) == _APART
        and tags.get(_SAMPLES, 1) > 1
        and tags.get(_PHOTOMETRIC, 0) in _MODES
    )


def merged(data: bytes, tags: ImageFileDirectory_v2) -> Image.Image:
    """The image, not turned yet.

    Args:
        data: a TIFF file, classic or big.
        tags: its first directory.

    Raises:
        ValueError: its samples are not unsigned ones of 8 or 16 bits.
    """
    if {*tags.get(_SAMPLE_FORMAT, (1,))} != {1}:
        raise ValueError("planes of signed or floating-point samples")
    mode = _MODES[tags.get(_PHOTOMETRIC, _MIN_IS_WHITE)]
    extra = tags.get(_EXTRA_SAMPLES, ())
    mode = _WITH_ALPHA.get((mode, extra[0]), mode) if extra else mode
    planes = []
    for number in range(Image.getmodebands(mode)):
        with Image.open(BytesIO(_plane(data, tags, number)), formats=("TIFF",)) as plane:
            plane.load()
            planes.append(_narrow(plane))
    if tags.get(_PHOTOMETRIC, _MIN_IS_WHITE) == _MIN_IS_WHITE:
        planes[0] = ImageOps.invert(planes[0])
    return planes[0] if len(planes) == 1 else Image.merge(mode, planes)


def _narrow(plane: Image.Image) -> Image.Image:
    """8 bits; of 16 the high ones, as Pillow does for bands that lie together."""
    if plane.mode == "L":
        return plane.copy()
    if not plane.mode.startswith("I;16"):
        raise ValueError("planes of neither 8 nor 16 bits")
    import numpy as np

    return Image.fromarray((np.asarray(plane) >> 8).astype(np.uint8))


def _plane(data: bytes, tags: ImageFileDirectory_v2, number: int) -> bytes:
    """A grey TIFF of one of the planes: the same file with another directory."""
    bits = tags.get(_BITS, (1,))
    entries = {tag: tags[tag] for tag in _KEPT & {*tags}}
    entries[_BITS] = bits[number if len(bits) > 1 else 0]
    entries[_PHOTOMETRIC], entries[_SAMPLES] = _MIN_IS_BLACK, 1
    for tag in _PLACES & {*tags}:
        each = len(tags[tag]) // tags[_SAMPLES]
        entries[tag] = tags[tag][each * number : each * (number + 1)]
    order = "<" if tags.prefix == TiffImagePlugin.II else ">"
    start = len(data) + len(data) % 2
    head: bytes = tags.prefix + struct.pack(order + "HL", 42, start)
    return head + data[8:].ljust(start - 8, b"\0") + _directory(entries, order, start)


def _directory(entries: Mapping[int, Any], order: str, start: int) -> bytes:
    """A classic directory for this place in a file, with its values behind it."""
    place = start + 2 + 12 * len(entries) + 4
    fields, values = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, bytes):
            kind, count, packed = _BYTES, len(value), value
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            kind, count = _LONG, len(numbers)
            packed = struct.pack(f"{order}{count}L", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack(order + "L", place + len(values)), values + packed
        fields += struct.pack(order + "HHL", tag, kind, count) + packed.ljust(4, b"\0")
    return fields + bytes(4) + values
