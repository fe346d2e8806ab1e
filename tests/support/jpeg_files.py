"""JPEG files of every kind: colours, samplings, scans, and where their EXIF data lies."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.support.builders import photo
from tests.support.costly_images import encoded
from tests.support.exif_data import exif, xmp

SIZE = (97, 61)
START, END, FRAME, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xda"
PICTURE = photo(7, *SIZE)


def jpeg(image: Image.Image = PICTURE, **options: Any) -> bytes:
    return encoded(image, "JPEG", **{"quality": 92, **options})


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(*segments: bytes, data: bytes | None = None) -> bytes:
    """A JPEG that begins with these segments."""
    data = data or jpeg()
    return data[:2] + b"".join(segments) + data[2:]


def app1(body: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + body)


def without(data: bytes, mark: bytes) -> bytes:
    """Without the segment whose body begins like this."""
    start = data.index(mark) - 4
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def adobe(data: bytes, transform: int) -> bytes:
    """With another transform in its Adobe segment."""
    place = data.index(b"Adobe") + 11
    return data[:place] + bytes([transform]) + data[place + 1 :]


def components(data: bytes, names: bytes) -> bytes:
    """With these names of its components."""
    out = bytearray(data)
    frame, scan = out.index(FRAME), out.index(SCAN)
    for number, name in enumerate(names):
        out[frame + 10 + 3 * number] = name
        out[scan + 5 + 2 * number] = name
    return bytes(out)


def cmyk() -> Image.Image:
    return PICTURE.convert("CMYK")


def ycck() -> Image.Image:
    """CMYK as luminance, colours and black, for an Adobe segment with transform 2."""
    inverted = Image.eval(PICTURE, lambda value: 255 - value)
    parts = [*inverted.convert("YCbCr").split(), Image.new("L", SIZE, 40)]
    return Image.merge("CMYK", parts)


def halved(data: bytes, markers: int) -> bytes:
    """Only so many scans."""
    place = 0
    for _ in range(markers + 1):
        place = data.index(SCAN, place + 1)
    start = (
        data.rindex(b"\xff\xc4", 0, place) if b"\xff\xc4" in data[place - 200 : place] else place
    )
    return data[:start] + END


def lines_later(data: bytes) -> bytes:
    """Whose height comes after its first scan (DNL)."""
    place = data.index(FRAME) + 5
    height = data[place : place + 2]
    return data[:place] + b"\0\0" + data[place + 2 : -2] + segment(0xDC, height) + END


def noisy() -> Image.Image:
    noise = np.random.default_rng(4).integers(-20, 20, (300, 400, 1), np.int16)
    pixels = np.asarray(photo(5, 400, 300)) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def kinds() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file that a browser shows."""
    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        yield sampling, jpeg(subsampling=sampling)
        yield f"{sampling} progressive", jpeg(subsampling=sampling, progressive=True)
    for size in ((1, 1), (7, 9), (16, 16), (17, 33), (640, 3)):
        yield f"{size}", jpeg(photo(3, *size))
    yield "grey", jpeg(PICTURE.convert("L"))
    yield "grey progressive", jpeg(PICTURE.convert("L"), progressive=True)
    yield "restart markers", jpeg(restart_marker_blocks=3)
    yield "restart markers in rows", jpeg(restart_marker_rows=1)
    yield "optimized", jpeg(optimize=True)
    yield "quality 5", jpeg(quality=5)
    yield "CMYK", jpeg(cmyk())
    yield "CMYK without Adobe", without(jpeg(cmyk()), b"Adobe")
    yield "YCCK", adobe(jpeg(ycck()), 2)
    yield "YCCK progressive", adobe(jpeg(ycck(), progressive=True), 2)
    rgb = jpeg(keep_rgb=True)
    yield "RGB", rgb
    if b"Adobe" in rgb:
        yield "RGB by its components", components(without(rgb, b"Adobe"), b"RGB")
        yield "RGB whose Adobe segment says YCbCr", adobe(rgb, 1)
        yield "YCbCr with other names", components(without(rgb, b"Adobe"), b"\1\2\3")
    else:
        yield "RGB with JFIF names", components(rgb, b"\1\2\3")
        yield "RGB with other names", components(rgb, b"abc")
    yield "names 0 1 2", components(jpeg(), b"\0\1\2")
    yield "names 0 1 2 without JFIF", components(without(jpeg(), b"JFIF"), b"\0\1\2")
    yield "names R G B with JFIF", components(jpeg(), b"RGB")
    yield "without JFIF", without(jpeg(), b"JFIF")
    for orientation in range(10):
        yield f"EXIF {orientation}", with_segments(app1(exif(orientation)))
    yield "EXIF big-endian", with_segments(app1(exif(6, ">")))
    yield "EXIF after other tags", with_segments(app1(exif(6, more=10)))
    yield "EXIF orientation as a long", with_segments(app1(exif(6, kind=4)))
    yield "EXIF orientation as a byte", with_segments(app1(exif(6, kind=1)))
    yield "EXIF orientation of two values", with_segments(app1(exif(6, count=2)))
    yield "EXIF orientation of no value", with_segments(app1(exif(6, count=0)))
    yield "EXIF twice", with_segments(app1(exif(6)), app1(exif(3)))
    yield (
        "EXIF in two pieces",
        with_segments(app1(exif(6, more=3)[:30]), app1(exif(6, more=3)[30:])),
    )
    yield "EXIF broken, then good", with_segments(app1(b"junk"), app1(exif(6)))
    yield "EXIF of 1, then 6", with_segments(app1(exif(1)), app1(exif(6)))
    yield (
        "EXIF without orientation, then 6",
        with_segments(app1(exif(6).replace(b"\x12\1", b"\x13\1")), app1(exif(6))),
    )
    yield "EXIF cut", with_segments(app1(exif(6, more=5)[:40]))
    yield (
        "EXIF whose directory is far",
        with_segments(app1(b"II*\0" + struct.pack("<L", 30) + bytes(22) + exif(6)[8:])),
    )
    yield "EXIF whose directory is nowhere", with_segments(app1(b"II*\0\xff\xff\xff\x7f"))
    yield "EXIF of the wrong number", with_segments(app1(b"II\x2b\0" + exif(6)[4:]))
    yield "EXIF with one zero", with_segments(segment(0xE1, b"Exif\0" + exif(6)))
    yield "EXIF with another filler", with_segments(segment(0xE1, b"Exif\0\xff" + exif(6)))
    yield "EXIF in APP2", with_segments(segment(0xE2, b"Exif\0\0" + exif(6)))
    yield "EXIF after JFIF", jpeg(exif=b"Exif\0\0" + exif(6))
    plain = jpeg()
    frame, scan = plain.index(FRAME), plain.index(SCAN)
    yield "EXIF after the frame", plain[:scan] + app1(exif(6)) + plain[scan:]
    yield "EXIF before the frame", plain[:frame] + app1(exif(6)) + plain[frame:]
    yield "EXIF after the pixels", plain[:-2] + app1(exif(6)) + END
    yield "EXIF after the end", plain + app1(exif(6))
    yield "XMP 6", with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)))
    yield (
        "XMP 6, EXIF 3",
        with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)), app1(exif(3))),
    )
    thumbnail = jpeg(photo(9, 16, 12))
    yield "thumbnail in EXIF", with_segments(app1(exif(1) + thumbnail))
    yield "thumbnail in JFXX", with_segments(segment(0xE0, b"JFXX\0\x10" + thumbnail))
    yield "MPO", encoded(PICTURE, "MPO", save_all=True, append_images=[photo(9, *SIZE)], quality=92)
    yield "data after the end", plain + b"junk" * 100
    yield "another JPEG after the end", plain + jpeg(photo(9, 40, 30))
    yield "fill bytes", plain[:2] + b"\xff\xff\xff" + plain[2:]
    yield "junk between segments", plain[:frame] + b"junk" + plain[frame:]
    yield "profile", jpeg(icc_profile=bytes(300))
    yield "long comment", jpeg(comment=b"x" * 60_000)
    yield "height after the scan", lines_later(plain)
    yield "12 bits", plain[: frame + 4] + b"\x0c" + plain[frame + 5 :]
    yield "arithmetic", plain[: frame + 1] + b"\xc9" + plain[frame + 2 :]
    yield "lossless", plain[: frame + 1] + b"\xc3" + plain[frame + 2 :]
    yield "wrong height", plain[: frame + 5] + struct.pack(">H", 80) + plain[frame + 7 :]
    yield "half height", plain[: frame + 5] + struct.pack(">H", 30) + plain[frame + 7 :]
    noise = jpeg(noisy())
    steps = jpeg(noisy(), progressive=True)
    yield "without an end", noise[:-2]
    yield "with half an end", noise[:-1]
    yield "progressive without an end", steps[:-2]
    for part in (0.99, 0.97, 0.95, 0.92, 0.85, 0.5, 0.1):
        yield f"{part:.0%}", noise[: round(len(noise) * part)]
        yield f"{part:.0%} and an end", noise[: round(len(noise) * part)] + END
        yield f"progressive {part:.0%}", steps[: round(len(steps) * part)]
    yield "grey 95%", (grey := jpeg(noisy().convert("L")))[: round(len(grey) * 0.95)]
    yield "CMYK 95%", (inks := jpeg(noisy().convert("CMYK")))[: round(len(inks) * 0.95)]
    turned = with_segments(app1(exif(6)), data=noise)
    yield "turned 95%", turned[: round(len(turned) * 0.95)]
    for scans in (1, 2, 5):
        yield f"{scans} of the scans", halved(steps, scans)
    damaged = bytearray(noise)
    damaged[len(noise) // 2 : len(noise) // 2 + 40] = bytes(40)
    yield "damaged in the middle", bytes(damaged)
    damaged[len(noise) // 2 : len(noise) // 2 + 2] = b"\xff\xe9"
    yield "a marker in the middle", bytes(damaged)
    hole = bytearray(noise)
    hole[-40:-38] = b"\xff\xc8"
    yield "a bad marker near the end", bytes(hole)
