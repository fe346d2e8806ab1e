"""The encoder that the settings name, one per process."""

from __future__ import annotations

import ctypes
import sys
import threading

from backend.encoders.base import Encoder
from backend.errors import EncoderError
from backend.settings import Settings

_loaded: dict[tuple[object, ...], Encoder] = {}
_lock = threading.Lock()
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def get_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name, created once per process.

    The weights are located now, downloaded if need be, and read at the first use.

    Raises:
        EncoderError: there is no such encoder, or its weights cannot be loaded.
    """
    key = (
        settings.encoder,
        settings.device,
        settings.precision,
        settings.regions,
        settings.batch_size,
        settings.offline,
    )
    with _lock:
        if key not in _loaded:
            _keep_freed_memory()
            _loaded[key] = _create(settings)
        return _loaded[key]


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of giving it back to the kernel (mallopt(3)).

    A forward pass on the CPU allocates the same large blocks again and again, and the kernel zeroes
    each of them: that was more than half of the offline encoder's time (benchmarks/bulk.py).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _create(settings: Settings) -> Encoder:
    name = settings.encoder.strip()
    if name == "offline":
        from backend.encoders.offline import OfflineEncoder

        regions = "cells" if settings.regions == "auto" else settings.regions
        return OfflineEncoder(regions, settings.batch_size)
    if name.startswith(("open_clip:", "hf-hub:", "local-dir:")):
        from backend.encoders.openclip import OpenClipEncoder

        if settings.regions == "cells":
            raise EncoderError(
                "LS_CLIP_REGIONS=cells needs a convolutional encoder (offline).",
                "Set LS_CLIP_REGIONS to tiles, none or auto.",
            )
        return OpenClipEncoder(
            name.removeprefix("open_clip:"),
            device=settings.device,
            precision=settings.precision,
            regions="tiles" if settings.regions == "auto" else settings.regions,
            batch_size=settings.batch_size,
            offline=settings.offline,
        )
    raise EncoderError(
        f"LS_CLIP_ENCODER={name!r} is not an encoder.",
        "Use open_clip:MODEL/TAG, open_clip:MODEL/CHECKPOINT, hf-hub:NAME, local-dir:PATH "
        "or offline.",
    )
