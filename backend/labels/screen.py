"""What of a labeling config is on an annotator's screen, apart from ``visibleWhen``.

Label Studio selects what a prediction ticks whether it is shown or not, and submits it unseen
(measured on 1.23.2). So what is never on the screen when a task opens is not predicted.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from backend.labels.attributes import REPEATED, Tag, attribute, is_on, not_accepted, tag_of
from backend.labels.styles import Styles, is_invisible
from backend.labels.visibility import Visibility
from backend.messages.message import Message

CLOSED = Message(
    'it is in a closed panel, so that its suggestions would be submitted unseen; add open="true" '
    "to the <Panel>"
)
NAMED = 10
"""Rules that a note names, at most."""
STYLED = Message("a style hides it")


class Screen:
    """Which parts of one labeling config are shown.

    Args:
        root: of the config.
        visibility: its conditions.
    """

    def __init__(self, root: Element, visibility: Visibility) -> None:
        self._visibility = visibility
        self._styles = Styles(root, visibility.upwards)
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
        visibility = ""
        for element in self._visibility.upwards(tag):
            if element is outer:
                break
            kind = tag_of(element)
            if kind is Tag.REPEATER:
                return REPEATED
            if kind is Tag.PANEL and element not in self._open:
                return CLOSED
            # The innermost one counts.
            visibility = visibility or self._styles.visibility(element)
            if self._styles.hides(element) or is_invisible(visibility):
                return STYLED
        return ""

    @property
    def remarks(self) -> list[str]:
        """What cannot be told about the styles, one sentence."""
        rules = self._styles.undecided
        if not rules:
            return []
        return [
            Message(
                "<Style>: whether {rules} hides choices cannot be told from the labeling config, "
                "so that nothing is left out for it; what it hides would be submitted unseen.",
                rules=" / ".join(rules[:NAMED]) + " / ..." * (len(rules) > NAMED),
            )
        ]


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
