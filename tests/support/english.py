"""What is still English in a text that should be in another language."""

from __future__ import annotations

import re

SENTENCE = re.compile(r"\b[A-Za-z']+(?: [a-z']+){3,}")
"""Four words in a row: names of settings, commands and menus are shorter."""


def said_in_english(text: str) -> list[str]:
    """The English phrases in a text, whose lines may be wrapped."""
    return SENTENCE.findall(" ".join(text.split()))
