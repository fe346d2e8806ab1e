"""The types of settings that are more than a text or a number, with their checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.messages.catalogue import Language
from backend.messages.message import Message

Precision = Literal["auto", "float32", "bfloat16", "int8"]
Regions = Literal["auto", "none", "cells", "patches", "tiles"]
Goal = Literal["", "precision", "recall", "f1"]


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(
            Message("{value!r} is none of auto, cpu, cuda, cuda:N and mps", value=value)
        )
    return value


Device = Annotated[str, AfterValidator(_known_device)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
"""Case-insensitive."""


def _long_enough(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < 16:
        raise ValueError(Message("must have at least 16 characters"))
    return value


PageSecret = Annotated[SecretStr, AfterValidator(_long_enough)]


class Spoken(BaseSettings):
    """The language alone: what is wrong with other settings has to be said in it, too."""

    model_config = SettingsConfigDict(
        env_prefix="LS_CLIP_", env_file=".env", extra="ignore", populate_by_name=True
    )

    language: Language = Field(
        Language.ENGLISH,
        description="The language of `ls-clip connect`, `ls-clip doctor`, the page of "
        "`ls-clip suggest --html` and the lines beside the suggestions: `en` or `ja` (Japanese); "
        "part of the model version.",
    )


def spoken_language() -> Language:
    """The language of the settings; English where they do not tell."""
    try:
        return Spoken().language
    except (UnicodeDecodeError, ValidationError):
        return Language.ENGLISH


def told(error: ValidationError, names: Mapping[str, str]) -> Message:
    """What is wrong with each setting, in one sentence.

    Args:
        error: what pydantic found.
        names: of the settings' fields -> of their environment variables.
    """
    wrong = []
    for problem in error.errors():
        place = str(problem["loc"][0]) if problem["loc"] else ""
        name = names.get(place.lower(), place)
        wrong.append(Message("{name}: {problem}", name=name, problem=_told(problem)))
    listed = wrong[0]
    for other in wrong[1:]:
        listed = Message("{before}; {other}", before=listed, other=other)
    return listed


def _told(problem: ErrorDetails) -> str:
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ValueError) and cause.args and isinstance(cause.args[0], Message):
        return Message("Value error, {cause}", cause=cause.args[0])
    limits = {name: str(limit) for name, limit in problem.get("ctx", {}).items()}
    known = {
        "int_parsing": Message(
            "Input should be a valid integer, unable to parse string as an integer"
        ),
        "float_parsing": Message(
            "Input should be a valid number, unable to parse string as a number"
        ),
        "bool_parsing": Message("Input should be a valid boolean, unable to interpret input"),
        "greater_than": Message("Input should be greater than {gt}", gt=limits.get("gt")),
        "greater_than_equal": Message(
            "Input should be greater than or equal to {ge}", ge=limits.get("ge")
        ),
        "less_than": Message("Input should be less than {lt}", lt=limits.get("lt")),
        "less_than_equal": Message(
            "Input should be less than or equal to {le}", le=limits.get("le")
        ),
        "literal_error": Message("Input should be {expected}", expected=limits.get("expected")),
        "enum": Message("Input should be {expected}", expected=limits.get("expected")),
    }
    return known.get(problem["type"], problem["msg"])


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
        raise ValueError(Message("is no address; its port must be a number"))
    return parts
