"""TIFF: how its samples are to be understood, where Pillow guesses or leaves it to its caller."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image, TiffImagePlugin

from backend.images.conversions import SIXTEEN_BITS, to_rgb
from backend.images.orientation import left_to_turn
from backend.messages.message import Message

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 258, 259, 262, 266
_SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBSAMPLING = 277, 338, 339, 530
_WIDTH, _HEIGHT, _OFFSETS = 256, 257, {273, 324}
_ORIENTATION = 274
_MARKS = {b"II*\0", b"MM\0*", b"II+\0"}
_BIG = 43
_MIN_IS_WHITE, _YCBCR = 0, 6
_SIGNED = 2
_NATIVE_ORDER = {
    "F;32BF": "F;32NF",
    "I;16BS": "I;16NS",
    "I;32B": "I;32N",
    "I;32": "I;32N",
    "I;32BS": "I;32NS",
}
_UNSIGNED = [(value + 128) % 256 for value in range(256)]
"""8-bit values from -128..127 as 0..255."""
_PHOTOMETRIC_NAMES = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "ink",
    6: "YCbCr",
    8: "Lab",
    9: "Lab",
    10: "Lab",
    32803: "camera sensor",
    34892: "linear sensor",
}
_FORMAT_NAMES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_SURE_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}
"""Compressions that every libtiff decodes."""

Tags = TiffImagePlugin.ImageFileDirectory_v2


def _read_more_layouts() -> None:
    """Let Pillow read a few layouts that it refuses, or takes for others.

    Samples beyond those of the colour are extra ones; without the tag that says what for they mean
    nothing (near infrared, for example), but Pillow takes a fourth one for transparency.
    """
    orders = {TiffImagePlugin.II: ("RGBX;16L", ""), TiffImagePlugin.MM: ("RGBX;16B", "B")}
    for prefix, (wide, order) in orders.items():
        layouts = {
            (2, (8,) * 4): ("RGB", "RGBX"),
            (2, (8,) * 5): ("RGB", "RGBXX"),
            (2, (8,) * 6): ("RGB", "RGBXXX"),
            (2, (16,) * 4): ("RGB", wide),
            (1, (8, 8)): ("L", "LX"),
            (5, (8,) * 5): ("CMYK", "CMYKX"),
        }
        for (photometric, bits), modes in layouts.items():
            TiffImagePlugin.OPEN_INFO[prefix, photometric, (1,), 1, bits, ()] = modes
        # Grey of any kind may be MinIsWhite; `decoded` turns it round.
        grey = {
            (1, 16): (f"I;16{order}", f"I;16{order}"),
            (_SIGNED, 16): ("I", f"I;16{order}S"),
            (1, 32): ("I", f"I;32{order}"),
            (_SIGNED, 32): ("I", f"I;32{order}S"),
        }
        for (kind, width), modes in grey.items():
            for photometric in (_MIN_IS_WHITE, 1):
                key = (prefix, photometric, (kind,), 1, (width,), ())
                TiffImagePlugin.OPEN_INFO[key] = modes


_read_more_layouts()


def directory(data: bytes) -> Tags | None:
    """The first directory of a TIFF file; None of other files, and where it is broken."""
    if data[:4] not in _MARKS:
        return None
    try:
        tags = Tags(data[: 16 if _BIG in data[2:4] else 8])
        stream = BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
    except Exception:  # Broken tags make Pillow raise nearly anything.
        return None
    return tags


def orientation_of(tags: Tags) -> int:
    """How an image has to be turned, 1 to 8 as in EXIF data."""
    value = tags.get(_ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def size_of(tags: Tags) -> tuple[int, int]:
    """Width and height."""
    return int(tags[_WIDTH]), int(tags[_HEIGHT])


def decoded(image: TiffImagePlugin.TiffImageFile) -> tuple[Image.Image, int]:
    """The RGB image of a file that has been opened, and how it has still to be turned.

    Raises:
        ValueError: Pillow would read it wrongly; see `unreadable`.
    """
    tags = image.tag_v2
    if _problem(tags) is not None:
        raise ValueError("unreadable samples")
    bits = tags.get(_BITS, (1,))[0]
    is_wide = image.mode.startswith(("I", "F"))
    is_negative = is_wide and tags.get(_PHOTOMETRIC, _MIN_IS_WHITE) == _MIN_IS_WHITE
    white = (1 << bits) - 1 if image.mode.startswith("I;16") else SIXTEEN_BITS
    kind = tags.get(_SAMPLE_FORMAT, (1,))[0]
    image.tile = [_in_native_order(tile) for tile in image.tile]
    image.load()
    pixels = image.point(_UNSIGNED) if bits == 8 and kind == _SIGNED else image
    rgb = to_rgb(pixels, white=white, is_negative=is_negative, is_unsigned=bits == 32 and kind == 1)
    return rgb, left_to_turn(image)


def _in_native_order(tile: Any) -> Any:
    """A part of a file as libtiff gives it, which turns bytes round where Pillow expects it not."""
    if tile[0] != "libtiff":
        return tile
    arguments = (_NATIVE_ORDER.get(tile[3][0], tile[3][0]), *tile[3][1:])
    return tile._replace(args=arguments)


def unreadable(data: bytes) -> str | None:
    """What Pillow cannot read of a TIFF file whose tags are sound; None where there is nothing."""
    if data[:4] == b"MM\0+":
        return Message("a big-endian BigTIFF")
    tags = directory(data)
    try:
        return None if tags is None else _problem(tags)
    except Exception:  # Tags of the wrong types; then the file is damaged.
        return None


def _problem(tags: Tags) -> str | None:
    if tags.get(_WIDTH, 0) < 1 or tags.get(_HEIGHT, 0) < 1 or not _OFFSETS & {*tags}:
        return None
    compression = tags.get(_COMPRESSION, 1)
    if compression not in _SURE_COMPRESSIONS:
        return Message(
            "compressed in a way (number {compression}) that cannot be read",
            compression=compression,
        )
    photometric = tags.get(_PHOTOMETRIC, _MIN_IS_WHITE)
    if photometric == _YCBCR and compression == 1 and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        return Message("of YCbCr samples without compression and with fewer colours than pixels")
    count = tags.get(_SAMPLES, 1)
    bits = tags.get(_BITS, (1,))
    bits = bits * count if len(bits) == 1 else bits[:count]
    formats = {*tags.get(_SAMPLE_FORMAT, (1,))}
    key = (
        tags.prefix,
        photometric,
        tuple(formats),
        tags.get(_FILL_ORDER, 1),
        bits,
        tags.get(_EXTRA_SAMPLES, ()),
    )
    if key in TiffImagePlugin.OPEN_INFO:
        return None
    name = _PHOTOMETRIC_NAMES.get(photometric, f"kind {photometric}")
    kind = _FORMAT_NAMES.get(max(formats), "")
    widths = "/".join(str(width) for width in sorted({*bits}))
    if not kind:
        return Message(
            "of {count} {widths}-bit {name} samples a pixel", count=count, widths=widths, name=name
        )
    return Message(
        "of {count} {widths}-bit {kind} {name} samples a pixel",
        count=count,
        widths=widths,
        kind=kind,
        name=name,
    )
