"""Decoding: untrusted image bytes in, an upright RGB image out.

The format is read from the content, never from a name or a header. The size is read from the
image's own header and checked before any pixel is decoded, and so are the scans of a JPEG. What a
file costs beyond that is bounded by `backend.images.decoder`, which decides where this runs. The
pixels are those that a browser shows (docs/images.md lists where not).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from PIL import Image, ImageFile, TiffImagePlugin

from backend.errors import ImageError, ImageReason
from backend.images import partial, png, tiff
from backend.images.conversions import to_rgb
from backend.images.encoded import EncodedImage
from backend.images.headers import (
    MAX_SCANS,
    has_too_many_scans,
    jpeg_bytes,
    jpeg_header,
    pixel_bytes,
    webp_size,
)
from backend.images.heic import HeicFile, is_avif, is_heic
from backend.images.jpeg import jpeg_orientation
from backend.images.orientation import TRANSPOSE_BY_ORIENTATION, left_to_turn
from backend.images.partial import MissingRows
from backend.images.planes import has_planes, merged
from backend.images.refusals import FORMATS, explained, too_many_pixels
from backend.messages.message import Message

# Without this Pillow would import its plugins for all formats at the first WebP, TIFF or AVIF file.
for _plugin in ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP"):
    import_module(f"PIL.{_plugin}ImagePlugin")
if "AVIF" in FORMATS:
    import_module("PIL.AvifImagePlugin")

# Pillow warns about metadata that does not matter here, in other words for each file. Filters are
# process-wide and switching them per call is not thread-safe, so this one is installed once.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Sizes are checked here. Pillow's own check would also warn, at half of the size that it refuses.
Image.MAX_IMAGE_PIXELS = None
MOST_PIXELS = 178_956_970
"""The largest size that Pillow decodes by default; ``max_pixels`` does not raise it."""

Reserve = Callable[[int], None]
_QUARTER_TURNS = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""


def decode(
    data: bytes,
    max_pixels: int,
    draft_size: int | None = None,
    reserve: Reserve = lambda size: None,
) -> Image.Image:
    """Decode the first frame of an image.

    Args:
        data: a JPEG, MPO, PNG, WebP, GIF, BMP, TIFF, (where Pillow has it) AVIF or (where
            pillow-heif is installed) HEIC file. The last tenth of the rows of a JPEG, PNG, GIF or
            BMP may be missing.
        max_pixels: the largest width x height that is decoded, at least 1. Pillow's own limit of
            178,956,970 pixels (`MOST_PIXELS`) applies as well.
        draft_size: a JPEG may come out at 1/2, 1/4 or 1/8 of its size as long as its shorter side
            keeps at least this many pixels, which is faster; other formats are not affected.
        reserve: called before any pixel is decoded, with the bytes of memory that are needed at
            most; may raise an ImageError to refuse.

    Returns:
        A new image of mode ``RGB``, at least 1 x 1, turned as a browser turns it. Transparent and
        missing pixels are white; 16-bit values are scaled from 0..65535 to 0..255; 32-bit
        grey values are stretched so that the smallest becomes 0 and the largest 255.

    Raises:
        ImageError: its ``reason`` is ``unsupported_format``, ``too_many_pixels``, ``too_costly``,
            ``truncated`` or ``corrupt``, or it comes from ``reserve``.
    """
    most = min(max_pixels, MOST_PIXELS)
    with _errors_explained(data):
        if is_heic(data):
            return _decode_heic(data, most, reserve)
        rgb, orientation = _decode(_encoded(data), most, draft_size, reserve)
        transpose = TRANSPOSE_BY_ORIENTATION.get(orientation)
        return rgb.transpose(transpose) if transpose is not None else rgb


def upright_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height in pixels that `decode` would give an image, by its header alone.

    Args:
        data: an ordinary file, see `backend.images.headers`.
        max_pixels: as for `decode`.

    Raises:
        ImageError: its ``reason`` is ``unsupported_format``, ``too_many_pixels``, ``truncated`` or
            ``corrupt``.
    """
    with _errors_explained(data):
        encoded = _encoded(data)
        _check_pixels(webp_size(encoded.data), min(max_pixels, MOST_PIXELS))
        with _opened(encoded) as image:
            # Pillow has turned the size of a TIFF file already.
            width, height = encoded.canvas or image.size
            _check_pixels((width, height), min(max_pixels, MOST_PIXELS))
        is_turned = encoded.orientation in _QUARTER_TURNS
        return (height, width) if is_turned else (width, height)


@contextmanager
def _errors_explained(data: bytes) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            ImageReason.TOO_COSTLY,
            Message(
                "The image needs more memory to decode than there is, or than its size explains."
            ),
            Message("Scale the image down, or save it again in an image editor."),
        ) from error
    except Exception as error:  # Broken files make Pillow's plugins raise nearly anything.
        raise explained(data, error) from error


def _encoded(data: bytes) -> EncodedImage:
    if data[:8] == png.SIGNATURE:
        return png.encoded_of(data)
    if data[:3] == b"\xff\xd8\xff":
        return EncodedImage(data, jpeg_orientation(data))
    if data[:4] == b"RIFF":
        return EncodedImage(partial.whole_webp(data))
    # Pillow asks for the major brand.
    return EncodedImage(data[:8] + b"avif" + data[12:] if is_avif(data) else data)


def _decode_heic(data: bytes, max_pixels: int, reserve: Reserve) -> Image.Image:
    file = HeicFile(data)
    _check_pixels(file.size, max_pixels)
    reserve(file.needed_bytes + 2 * len(data))
    image = file.image()
    _check_pixels(image.size, max_pixels)
    return to_rgb(image)


def _decode(
    encoded: EncodedImage, max_pixels: int, draft_size: int | None, reserve: Reserve
) -> tuple[Image.Image, int]:
    """The image, and how it has to be turned."""
    tags = tiff.directory(encoded.data)
    if tags is not None and has_planes(tags):
        size = tiff.size_of(tags)
        _check_pixels(size, max_pixels)
        reserve(size[0] * size[1] * pixel_bytes("TIFF") + 2 * len(encoded.data))
        return to_rgb(merged(encoded.data, tags)), tiff.orientation_of(tags)
    _check_pixels(webp_size(encoded.data), max_pixels)
    if has_too_many_scans(encoded.data):
        raise ImageError(
            ImageReason.TOO_COSTLY,
            Message(
                "The JPEG has more than {max_scans} scans, each of which is another pass over the "
                "image.",
                max_scans=MAX_SCANS,
            ),
            Message("Open it in an image editor, save it again and replace it."),
        )
    with _opened(encoded) as image:
        _check_pixels(encoded.canvas or image.size, max_pixels)
        reserve(_needed_bytes(image, encoded, draft_size))
        name, start = image.format, image.tile[0][2] if image.tile else 0
        try:
            return _finished(image, encoded, draft_size)
        except MemoryError:
            raise
        except Exception as error:
            failure = error.with_traceback(None)
    # The memory of the first try is free again.
    del image
    rest = partial.for_another_try(encoded, name, start)
    if rest is None:
        raise failure
    try:
        with _opened(rest) as image:
            return _finished(image, encoded, draft_size, partial.load_part)
    except partial.TooLittleError:
        raise failure from None


@contextmanager
def _opened(encoded: EncodedImage) -> Iterator[ImageFile.ImageFile]:
    with Image.open(encoded.opened(), formats=FORMATS) as image:
        # Pillow would turn a TIFF or an AVIF file as its XMP data says.
        image.info.pop("xmp", None)
        yield image


def _finished(
    image: ImageFile.ImageFile,
    encoded: EncodedImage,
    draft_size: int | None,
    load: Callable[[ImageFile.ImageFile], MissingRows] = partial.load_all,
) -> tuple[Image.Image, int]:
    """Decode an image that has been opened."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return tiff.decoded(image)
    if draft_size is not None:
        image.draft(image.mode, (draft_size, draft_size))
    # The frame of a GIF may be smaller than its screen, the rest of which a browser leaves blank.
    frame = image.tile[0][1] if image.format == "GIF" else None
    missing = load(image)
    # Pillow gives what an AVIF's irot and imir say as its EXIF orientation.
    orientation = left_to_turn(image) if image.format == "AVIF" else encoded.orientation
    rgb = to_rgb(image, gamma=encoded.gamma)
    missing.fill(rgb)
    if frame is not None and frame != (0, 0, *rgb.size):
        rgb = _placed(rgb.crop(frame), rgb.size, frame[:2])
    if encoded.canvas is not None:
        rgb = _placed(rgb, encoded.canvas, encoded.place)
    return rgb, orientation


def _placed(part: Image.Image, size: tuple[int, int], place: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", size, "white")
    canvas.paste(part, place)
    return canvas


def _needed_bytes(image: Image.Image, encoded: EncodedImage, draft_size: int | None) -> int:
    """An upper bound, from the header of a file that has been opened."""
    header = jpeg_header(encoded.data)
    if header is not None:
        return jpeg_bytes(header, draft_size)
    width, height = encoded.canvas or image.size
    return width * height * pixel_bytes(image.format) + 2 * len(encoded.data)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise too_many_pixels(size, max_pixels)
