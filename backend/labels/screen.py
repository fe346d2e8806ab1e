"""What of a labeling config is on an annotator's screen, apart from ``visibleWhen``.

Label Studio selects what a prediction ticks whether it is shown or not, and submits it unseen
(measured on 1.23.2). So what is never on the screen when a task opens is not predicted.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from backend.labels.attributes import REPEATED, Tag, attribute, is_on, not_accepted, tag_of
from backend.labels.visibility import Visibility
from backend.messages.message import Message

_HIDES = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_AT_RULE = re.compile(r"@[^{};]*(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})")
"""What holds under a condition, such as ``@media print``."""
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
CLOSED = Message(
    'it is in a closed panel, so that its suggestions would be submitted unseen; add open="true" '
    "to the <Panel>"
)
STYLED = Message("a style hides it")


class Screen:
    """Which parts of one labeling config are shown.

    Args:
        root: of the config.
        visibility: its conditions.
    """

    def __init__(self, root: Element, visibility: Visibility) -> None:
        self._visibility = visibility
        self._hidden = _hidden_selectors(root)
        self._open: set[Element] = set()
        for collapse in root.iter():
            if tag_of(collapse) is Tag.COLLAPSE:
                self._open |= _open_panels(collapse)

    def why_hidden(self, tag: Element, outer: Element | None = None) -> str:
        """Why a tag cannot be seen in a task that opens, or stands there several times.

        Args:
            tag: a control, or a choice.
            outer: only what is within this tag is looked at; None: everything around it.

        Returns:
            The reason; empty if it is shown once.
        """
        for element in self._visibility.upwards(tag):
            if element is outer:
                break
            kind = tag_of(element)
            if kind is Tag.REPEATER:
                return REPEATED
            if kind is Tag.PANEL and element not in self._open:
                return CLOSED
            if kind in {Tag.VIEW, Tag.CHOICE} and self._is_styled_away(element):
                return STYLED
        return ""

    def _is_styled_away(self, element: Element) -> bool:
        if _HIDES.search(attribute(element, "style")):
            return True
        selectors = {f".{name}" for name in attribute(element, "className").split()}
        if identifier := attribute(element, "idAttr"):
            selectors.add(f"#{identifier}")
        return bool(selectors & self._hidden)


def why_not_shown(root: Element) -> str:
    """What keeps Label Studio's editor from showing any task; empty if nothing does."""
    for element in root.iter():
        if tag_of(element) is not None and (problem := not_accepted(element)):
            return Message(
                "Label Studio shows an error instead of the task: {problem}", problem=problem
            )
    return ""


def _open_panels(collapse: Element) -> set[Element]:
    panels = [
        panel
        for panel in collapse
        if tag_of(panel) is Tag.PANEL
        and (attribute(panel, "open") or attribute(collapse, "open")) == "true"
    ]
    is_accordion = not attribute(collapse, "accordion") or is_on(collapse, "accordion")
    return set(panels[:1] if is_accordion else panels)


def _hidden_selectors(root: Element) -> frozenset[str]:
    """The classes (``.name``) and ids (``#name``) that a ``<Style>`` hides wherever they stand."""
    hidden = set()
    for style in root.iter():
        if tag_of(style) is Tag.STYLE:
            text = _AT_RULE.sub("", _COMMENT.sub("", style.text or ""))
            for selectors, rules in _RULE.findall(text):
                if _HIDES.search(rules):
                    hidden |= {selector.strip() for selector in selectors.split(",")}
    return frozenset(hidden)
