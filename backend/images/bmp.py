"""BMP: runs as browsers expand them, and what Pillow cannot read."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import BmpImagePlugin, Image, ImageFile, UnidentifiedImageError

from backend.images.partial import MOST_MISSING
from backend.messages.message import Message

_LINE_END, _IMAGE_END, _JUMP = 0, 1, 2
_BLACK = b"\0\0\0"
_MOST_COLOURS = 256


class RunDecoder(ImageFile.PyDecoder):
    """Run lengths of 8 or 4 bits; what the runs leave out is black.

    Pillow's own decoder refuses a file whose runs end early, and draws what they leave out in the
    first colour.
    """

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """See `PIL.ImageFile.PyDecoder.decode`."""
        assert self.fd is not None
        is_nibbles, direction = self.args[1], self.args[-1]
        width, height = self.state.xsize, self.state.ysize
        data = self.fd.read()
        rows = bytearray([self._black()]) * (width * height)
        place = x = y = 0
        while y < height:
            if place + 2 > len(data):
                if height - y > MOST_MISSING * height:
                    raise EOFError
                break
            count, value = data[place : place + 2]
            place += 2
            if count:
                pair = bytes([value >> 4, value & 15] if is_nibbles else [value, value])
                self._draw(rows, x, y, (pair * 128)[:count])
                x += count
            elif value == _LINE_END:
                x, y = 0, y + 1
            elif value == _IMAGE_END:
                break
            elif value == _JUMP:
                x, y = x + sum(data[place : place + 1]), y + sum(data[place + 1 : place + 2])
                place += 2
            else:
                length = (value + 1) // 2 if is_nibbles else value
                pixels = data[place : place + length]
                if is_nibbles:
                    pixels = bytes(half for byte in pixels for half in (byte >> 4, byte & 15))
                self._draw(rows, x, y, pixels[:value])
                x += value
                place += length + length % 2
        self.set_as_raw(bytes(rows), "P" if self.mode == "P" else "L", (0, direction))
        return -1, 0

    def _draw(self, rows: bytearray, x: int, y: int, pixels: bytes) -> None:
        width = self.state.xsize
        room = max(0, width - x)
        start = y * width + x
        rows[start : start + len(pixels[:room])] = pixels[:room]

    def _black(self) -> int:
        """The number of a black colour; of the darkest where there is no room for one."""
        if self.mode != "P" or self.im is None:
            return 0
        palette = self.im.getpalette("RGB", "RGB")
        colours = [palette[at : at + 3] for at in range(0, len(palette), 3)]
        if _BLACK not in colours and len(colours) < _MOST_COLOURS:
            self.im.putpalette("RGB", "RGB", palette + _BLACK)
            return len(colours)
        return min(range(len(colours)), key=lambda number: sum(colours[number]))


Image.register_decoder("bmp_rle", RunDecoder)


def unreadable(data: bytes) -> str | None:
    """What Pillow cannot read of a BMP file with a sound header; None where there is nothing."""
    if int.from_bytes(data[10:14], "little") > len(data):
        return None
    try:
        BmpImagePlugin.BmpImageFile(BytesIO(data))
    except UnidentifiedImageError:
        return None
    except OSError:
        return Message(
            "of {bits} bits a pixel in an unusual layout",
            bits=int.from_bytes(data[28:30], "little"),
        )
    except SyntaxError:
        return None
    return None
