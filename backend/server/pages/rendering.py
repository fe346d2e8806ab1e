"""From a template and what it shows to a page, in the language of the settings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Response, url_for
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backend.errors import ClipError
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message
from backend.server.pages.access import access

FOLDER = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, status: int = 200, **shown: Any) -> Response:
    """A page.

    Args:
        template: of `templates/`.
        status: of the answer.
        shown: what the template names.
    """
    language = access().settings.language

    def text(template: str, /, **values: object) -> str:
        """A text of the template, in the language."""
        return localized(Message(template, **values), language)

    content = _TEMPLATES.get_template(template).render(
        _=text,
        said=lambda told: localized(told, language),
        language=language,
        moment=moment,
        url_for=url_for,
        **shown,
    )
    return Response(content, status=status, content_type="text/html; charset=utf-8")


def error_page(error: ClipError) -> Response:
    """What is wrong, and what can be done about it."""
    language: Language = access().settings.language
    return page("error.html", error.http_status, error=error.as_dict(language), visitor=None)


def moment(unix_time: float) -> str:
    """``2026-11-27 14:03 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_time))
