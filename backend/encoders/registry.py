"""The encoder that the settings name, one per process."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable

from backend.encoders.base import Encoder
from backend.errors import EncoderError
from backend.heap import keep_freed_memory
from backend.messages.message import Message
from backend.settings import Settings

log = logging.getLogger(__name__)

_known: dict[tuple[object, ...], list[Encoder]] = {}
_lock = threading.Lock()


def get_encoder(
    settings: Settings, is_stored: Callable[[str, int], bool] = lambda encoder_id, dim: False
) -> Encoder:
    """The encoder that the settings name, created once per process.

    The weights are located now, downloaded if need be, and read at the first use. A store keeps its
    encoder: where it holds embeddings as an earlier release computed them, and none of the present
    kind, they are computed that way still.

    Args:
        settings: encoder, device, precision, regions, batch_size and offline are read.
        is_stored: whether the store holds embeddings of an encoder with this id and dimension.

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
        if key not in _known:
            keep_freed_memory()
            _known[key] = _create(settings)
        encoders = _known[key]
    return next(
        (encoder for encoder in encoders if is_stored(encoder.id, encoder.dim)), encoders[0]
    )


def new_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name, for the caller alone: it is not kept for the process.

    As a new store would compute it. When the caller has dropped it, `free_memory` gives its memory
    to the next one.

    Args:
        settings: as for `get_encoder`.

    Raises:
        EncoderError: as `get_encoder`.
    """
    keep_freed_memory()
    return _create(settings)[0]


def free_memory() -> None:
    """Give back what dropped encoders held, on the device too."""
    import torch

    # Models refer to themselves, so counting references does not end them.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _create(settings: Settings) -> list[Encoder]:
    """The encoder as it is computed now, and as earlier releases did."""
    name = settings.encoder.strip()
    if name == "offline":
        from backend.encoders.offline import OfflineEncoder

        if settings.device not in {"auto", "cpu"} or settings.precision not in {"auto", "float32"}:
            log.warning(
                "The offline encoder always computes in float32 on the CPU: LS_CLIP_DEVICE=%s and "
                "LS_CLIP_PRECISION=%s change nothing.",
                settings.device,
                settings.precision,
            )
        regions = "cells" if settings.regions == "auto" else settings.regions
        return [
            OfflineEncoder(regions, settings.batch_size, earlier=earlier)
            for earlier in (False, True)
        ]
    if name.startswith(("open_clip:", "hf-hub:", "local-dir:")):
        from backend.encoders.openclip import OpenClipEncoder
        from backend.encoders.openclip_source import find_source

        source = find_source(name.removeprefix("open_clip:"), settings.offline)
        # What the first release did not have was never stored by it.
        is_new = settings.regions in {"cells", "patches"} or settings.precision == "int8"
        return [
            OpenClipEncoder(
                source,
                device=settings.device,
                precision=settings.precision,
                regions=settings.regions,
                batch_size=settings.batch_size,
                earlier=earlier,
            )
            for earlier in ((False,) if is_new else (False, True))
        ]
    raise EncoderError(
        Message("{name!r} is not an encoder.", name=name),
        Message(
            "Name one of open_clip:MODEL/TAG, open_clip:MODEL/CHECKPOINT, hf-hub:NAME, "
            "local-dir:PATH and offline (LS_CLIP_ENCODER, or on the command line)."
        ),
    )
