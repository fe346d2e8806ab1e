"""Decoding within limits of time and memory, for this process as a whole.

An ordinary file is decoded by the calling thread. Whatever may be costly, by its size or by what
its header cannot tell, is decoded in a process of its own, which ends when it takes too long. The
pixels are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from PIL import Image

from backend.heap import use_one_heap
from backend.images.decode import decode, upright_size
from backend.images.decoder_pool import DecoderPool
from backend.images.headers import ordinary_bytes
from backend.images.memory import MemoryBudget
from backend.settings import Settings

T = TypeVar("T")

_ORDINARY_SHARE, _KEPT_SHARE = 6, 12
"""Ordinary images get a sixth of the memory for themselves, so that they wait for no large one, and
what they leave in the heaps of many threads takes up to a twelfth: see `MemoryBudget`."""
_ORDINARY_BYTES = 250_000_000
"""The most memory of one image that is decoded by the calling thread."""


class Decoder:
    """See the module. Thread-safe.

    Args:
        settings: max_image_pixels, decode_seconds and decode_memory are read.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_image_pixels
        use_one_heap()
        memory = settings.decode_memory
        self._ordinary = MemoryBudget(memory // _ORDINARY_SHARE)
        others = memory - memory // _ORDINARY_SHARE - memory // _KEPT_SHARE
        self._pool = DecoderPool(settings.decode_seconds, MemoryBudget(others))

    def is_ordinary(self, data: bytes, draft_size: int | None = None) -> bool:
        """Whether the calling thread would decode this file itself."""
        return self._ordinary_bytes(data, draft_size) is not None

    def decoded(
        self,
        data: bytes,
        use: Callable[[Image.Image], T],
        draft_size: int | None = None,
    ) -> T:
        """Decode a file and return ``use(image)``; the image's memory is held for that long.

        Args:
            data: as for `backend.images.decode.decode`.
            use: must not keep the image.
            draft_size: as for `decode`.

        Raises:
            ImageError: as `decode`, and as `DecoderPool.decoded`.
        """
        size = self._ordinary_bytes(data, draft_size)
        if size is None:
            return self._pool.decoded(data, self._max_pixels, draft_size, use)
        with self._ordinary.held(size):
            return use(decode(data, self._max_pixels, draft_size))

    def size(self, data: bytes) -> tuple[int, int]:
        """Width and height in pixels of the image that `decoded` would give.

        Of an ordinary file its header is read, of others all.

        Raises:
            ImageError: as `decoded`.
        """
        if self.is_ordinary(data):
            return upright_size(data, self._max_pixels)
        return self._pool.decoded(data, self._max_pixels, None, lambda image: image.size)

    def close(self) -> None:
        """End the processes that decode; what they work on fails with ``timeout``."""
        self._pool.close()

    def _ordinary_bytes(self, data: bytes, draft_size: int | None) -> int | None:
        size = ordinary_bytes(data, draft_size)
        limit = min(_ORDINARY_BYTES, self._ordinary.size)
        return None if size is None or size > limit else size
