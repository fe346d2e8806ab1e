"""open_clip encoders by name."""

from __future__ import annotations

from typing import Any

from backend.encoders.openclip import OpenClipEncoder
from backend.encoders.openclip_source import find_source


def openclip_encoder(name: str, **options: Any) -> OpenClipEncoder:
    """The encoder of ``MODEL/TAG``, ``MODEL/CHECKPOINT`` or ``local-dir:PATH``, without a hub."""
    return OpenClipEncoder(find_source(name, offline=True), **options)
