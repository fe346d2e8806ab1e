"""The languages that people can be spoken to in, and what the texts are in each.

A catalogue is a TOML file beside this module, named after its language: English text = translation,
with the same placeholders, in tables that say where a text is used. It is read when a text is first
looked up.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from string import Formatter

from backend.messages.message import Message

EVIDENCE = "evidence"
"""The table of what stands beside a prediction, and is part of it."""


class Language(StrEnum):
    """A language of texts for people."""

    ENGLISH = "en"
    JAPANESE = "ja"


@cache
def catalogue(language: Language) -> Mapping[str, Mapping[str, str]]:
    """Table -> English text -> translation; empty for English."""
    if language is Language.ENGLISH:
        return {}
    path = Path(__file__).with_name(f"{language}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def digest(language: Language, table: str) -> str:
    """A hash (sha256) of one table of a catalogue."""
    content = json.dumps(catalogue(language)[table], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def localized(text: str, language: Language) -> str:
    """A text in a language; in English where it is no `Message`, or the catalogue lacks it."""
    if language is Language.ENGLISH or not isinstance(text, Message):
        return str(text)
    translation = _translations(language).get(text.key)
    if translation is None:
        if has_words(text.key):
            return str(text)
        translation = text.key
    values = {
        name: localized(value, language) if isinstance(value, Message) else value
        for name, value in text.values.items()
    }
    return translation.format(**values)


def has_words(template: str) -> bool:
    """Whether there is anything to translate in a template beside its placeholders."""
    return any(sign.isalpha() for part in Formatter().parse(template) for sign in part[0])


@cache
def _translations(language: Language) -> Mapping[str, str]:
    return {
        english: translation
        for table in catalogue(language).values()
        for english, translation in table.items()
    }
