"""The result of the README's first command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.network_guard import Guard


@dataclass
class FirstDemo:
    """What the README's first command did in a new directory, with the network guarded."""

    guard: Guard
    directory: Path
    port: int
    output: str
    words: str
