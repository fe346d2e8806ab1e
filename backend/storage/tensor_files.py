"""What safetensors files of the store have in common: a description in the header, and a digest.

A safetensors file begins with the length of its header (8 bytes, little-endian), then the header:
JSON with a string for every key of ``__metadata__``
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def description(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of this name in a safetensors file's metadata.

    Args:
        data: the file, or its beginning with the whole header.
        name: key in ``__metadata__``.

    Raises:
        KeyError, TypeError, ValueError: the file is damaged.
    """
    size = int.from_bytes(data[:8], "little")
    about: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][name])
    return about


def digest(data: bytes) -> str:
    """16 hexadecimal digits that name a file's content."""
    return hashlib.sha256(data).hexdigest()[:16]
