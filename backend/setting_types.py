"""The types of settings that are more than a text or a number, with their checks."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator

Precision = Literal["auto", "float32", "bfloat16", "int8"]
Regions = Literal["auto", "none", "cells", "patches", "tiles"]
Goal = Literal["", "precision", "recall", "f1"]


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"{value!r} is none of auto, cpu, cuda, cuda:N and mps")
    return value


Device = Annotated[str, AfterValidator(_known_device)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
"""Case-insensitive."""


def split_url(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: it cannot be split. Python's own message is dropped: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        readable = parts.port != 0
    except ValueError:
        readable = False
    if not readable:
        raise ValueError("is no address; its port must be a number")
    return parts
