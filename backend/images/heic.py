"""HEIC images, where pillow-heif is installed; they are always decoded in a decoder process.

It is no dependency because what it brings is under the GPL and patents. Its plugin is not
registered with Pillow: nothing but a HEIC file is to meet it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from backend.errors import ImageError, ImageReason
from backend.messages.message import Message

if TYPE_CHECKING:
    from types import ModuleType

_CODING_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_GENERAL_BRANDS = {b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_MOST_BRANDS = 100

# Bytes of memory per pixel at most: the frame, its colours converted, and two copies.
_PIXEL_BYTES, _DEEP_ALPHA_PIXEL_BYTES = 17, 22


def brands(data: bytes) -> list[bytes]:
    """What an ISO base media file says it is: the major brand first, then the compatible ones."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), len(data), 16 + 4 * _MOST_BRANDS)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def is_avif(data: bytes) -> bool:
    """Whether a file is an AVIF image, of whatever major brand."""
    found = brands(data)
    return bool(_AVIF_BRANDS & {*found}) and found[0] not in _CODING_BRANDS


def is_heic(data: bytes) -> bool:
    """Whether a file is a HEIC image, of whatever brand."""
    return bool((_CODING_BRANDS | _GENERAL_BRANDS) & {*brands(data)}) and not is_avif(data)


class HeicFile:
    """A HEIC file whose header has been read.

    Attributes:
        size: width and height, turned as the file says.

    Raises:
        ImageError: pillow-heif is not installed.
    """

    def __init__(self, data: bytes) -> None:
        self._file: Any = _pillow_heif().open_heif(data, convert_hdr_to_8bit=True)
        self.size: tuple[int, int] = self._file.size

    @property
    def needed_bytes(self) -> int:
        """The most memory that decoding takes."""
        is_deep = self._file.has_alpha and self._file.info["bit_depth"] > 8
        each = _DEEP_ALPHA_PIXEL_BYTES if is_deep else _PIXEL_BYTES
        return self.size[0] * self.size[1] * each

    def image(self) -> Image.Image:
        """Decode it: 8 bits, upright as its ``irot`` and ``imir`` say."""
        image: Image.Image = self._file.to_pillow()
        return image


def _pillow_heif() -> ModuleType:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            ImageReason.UNSUPPORTED_FORMAT,
            Message(
                "This is a HEIC image, which can be read only with the extra that is not installed."
            ),
            Message(
                "Install it where the server and the workers run (uv pip install '.[heic]', see "
                "docs/install.md), or convert the image to JPEG."
            ),
        ) from error
    options = pillow_heif.options
    # Threads would take address space, and what is not shown only time.
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return pillow_heif
