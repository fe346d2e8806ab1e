"""When an annotator sees a control: ``visibleWhen`` on it or on a tag around it.

Follows Label Studio 1.23.2 (https://labelstud.io/tags/view): a control is on the screen while its
own condition and those of all tags around it are met, and a control that is hidden counts as one
without a selected choice. Names of attributes are read in any case, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from xml.etree.ElementTree import Element

from backend.labels.attributes import CONTROL_TAGS, Tag, attribute, is_on, tag_of
from backend.messages.message import Message

Ticks = Mapping[str, frozenset[str]]
"""Control name -> what is selected in it: stored values, of a path its last element."""

RESULT_TYPES = ("choices", "taxonomy")
"""Types of results that say which choices are selected."""
CONDITIONAL = CONTROL_TAGS | {Tag.VIEW}
"""Tags whose ``visibleWhen`` Label Studio reads, of those that hold controls or choices."""


class When(StrEnum):
    """The values of ``visibleWhen`` that hide a tag; with any other one an image's tag is shown."""

    REGION = "region-selected"
    CHOICE = "choice-selected"
    NO_CHOICE = "choice-unselected"


class Fixed(StrEnum):
    """What a ``visibleWhen`` comes to where no choice of the task's own decides."""

    ALWAYS = "always"
    """For every task."""
    REGION = "region"
    """For a selected region only."""
    NEVER = "never"
    """Nothing offers the choice that it asks for."""
    CIRCLE = "circle"
    """It waits for controls that wait for each other."""

    @property
    def reason(self) -> str:
        """Why that leaves a control out; empty if it does not."""
        return _REASONS.get(self, "")


_REASONS = {
    Fixed.REGION: Message("shown for a selected region only"),
    Fixed.NEVER: Message(
        "its visibleWhen asks for a choice that nothing offers, so that it is never shown"
    ),
    Fixed.CIRCLE: Message(
        "its visibleWhen waits for controls that wait for each other, so that it is never shown"
    ),
}


@dataclass(frozen=True)
class Condition:
    """Shown while a certain choice is selected elsewhere, or while it is not.

    Attributes:
        sources: names of the controls that are looked at.
        values: stored values of which one has to be selected; empty: any choice will do.
        negated: whether it is shown while that is *not* so.
        above: conditions under which the looked-at control is shown itself.
    """

    sources: tuple[str, ...]
    values: tuple[str, ...] = ()
    negated: bool = False
    above: tuple[Condition, ...] = ()

    def is_met(self, ticks: Ticks) -> bool:
        """Whether the tag is shown when this is selected."""
        selected = {value for name in self.sources for value in ticks.get(name, ())}
        found = bool(selected & set(self.values) if self.values else selected)
        return (found and all(above.is_met(ticks) for above in self.above)) != self.negated


def all_met(conditions: Iterable[Condition], ticks: Ticks) -> bool:
    """Whether an annotator who has selected this sees what is shown under all these conditions."""
    return all(condition.is_met(ticks) for condition in conditions)


def ticks_of(result: Iterable[Any]) -> Ticks:
    """What a result (Label Studio's items) selects, of all its choices and taxonomies."""
    ticks: dict[str, frozenset[str]] = {}
    for item in result:
        value = item.get("value") if isinstance(item, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        name = str(item.get("from_name"))
        for kind in RESULT_TYPES:
            stored = value.get(kind)
            if isinstance(stored, list):
                ticks[name] = ticks.get(name, frozenset()) | {*map(_last, stored)}
    return ticks


class Visibility:
    """The conditions of one labeling config.

    Args:
        root: of the config.
    """

    def __init__(self, root: Element) -> None:
        self._parents = {child: parent for parent in root.iter() for child in parent}
        self._named: dict[str, Element] = {}
        for tag in root.iter():
            if tag.get("name"):
                self._named.setdefault(tag.get("name", ""), tag)

    def of(self, tag: Element) -> tuple[Condition, ...] | Fixed:
        """All conditions under which a tag is shown; an empty tuple if it always is.

        Returns:
            Another `Fixed` than `Fixed.ALWAYS` if it cannot be seen while labeling the image.
        """
        return self._of(tag, frozenset())

    def why_not_submitted(self, tag: Element) -> str:
        """Why Label Studio shows a control, but drops its answers; empty if it does not.

        Measured on 1.23.2: when it submits it looks at the control's own condition once more, and
        finds neither the choices of a taxonomy nor those of a control that is not named.
        """
        name, choice = attribute(tag, "whenTagName"), attribute(tag, "whenChoiceValue")
        if attribute(tag, "visibleWhen") != When.CHOICE or not choice:
            return ""
        source = self._named.get(name) if name else None
        if name and (source is None or tag_of(source) is not Tag.TAXONOMY):
            return ""
        cause = (
            Message("the condition asks for a choice of a <Taxonomy>")
            if name
            else Message("it has no whenTagName")
        )
        return Message(
            "Label Studio does not submit its answers, because {cause}; put the condition on a "
            "<View> around it, with whenTagName",
            cause=cause,
        )

    def within(self, tag: Element, outer: Element) -> tuple[Condition, ...] | Fixed:
        """The same, of what is between a tag and one around it."""
        return self._of(tag, frozenset(), outer)

    def upwards(self, tag: Element) -> Iterator[Element]:
        """The tag and all those around it."""
        element: Element | None = tag
        while element is not None:
            yield element
            element = self._parents.get(element)

    def _of(
        self, tag: Element, asked: frozenset[str], outer: Element | None = None
    ) -> tuple[Condition, ...] | Fixed:
        conditions = []
        for element in self.upwards(tag):
            if element is outer:
                break
            if tag_of(element) not in CONDITIONAL:
                continue
            condition = self._condition(element, asked)
            if isinstance(condition, Fixed) and condition is not Fixed.ALWAYS:
                return condition
            if isinstance(condition, Condition):
                conditions.append(condition)
        return tuple(conditions)

    def _condition(self, tag: Element, asked: frozenset[str]) -> Condition | Fixed:
        when = attribute(tag, "visibleWhen")
        name, choice = attribute(tag, "whenTagName"), attribute(tag, "whenChoiceValue")
        if when == When.REGION:
            return Fixed.REGION
        if when not in {When.CHOICE, When.NO_CHOICE, ""} or (not when and not choice):
            return Fixed.ALWAYS
        negated = when == When.NO_CHOICE
        if when and name:
            return self._of_control(name, choice, negated, asked)
        inside = set(tag.iter())
        others = tuple(
            other
            for other, element in self._named.items()
            if tag_of(element) is Tag.CHOICES
            and element not in inside
            and not _is_of_parts(element)
        )
        if others:
            # Without whenTagName the value is only looked at if there is no visibleWhen either.
            return Condition(others, () if when else (choice,), negated)
        return Fixed.ALWAYS if negated else Fixed.NEVER

    def _of_control(
        self, name: str, choice: str, negated: bool, asked: frozenset[str]
    ) -> Condition | Fixed:
        tag = self._named.get(name)
        above: tuple[Condition, ...] | Fixed = Fixed.CIRCLE if name in asked else Fixed.NEVER
        if tag is not None and tag_of(tag) in CONTROL_TAGS and name not in asked:
            above = Fixed.REGION if _is_of_parts(tag) else self._of(tag, asked | {name})
        if tag is None or isinstance(above, Fixed):
            return Fixed.ALWAYS if negated else Fixed(str(above))
        values = tuple(_stored_value(tag, value) for value in choice.split(",")) if choice else ()
        return Condition((name,), values, negated, above)


def _is_of_parts(control: Element) -> bool:
    """Whether it labels regions or pages: its choices count while one of them is selected."""
    return is_on(control, "perRegion") or is_on(control, "perItem")


def _stored_value(control: Element, value: str) -> str:
    """What Label Studio stores for a choice that is named by its value or by its alias."""
    for choice in control.iter():
        if tag_of(choice) is not Tag.CHOICE:
            continue
        text = choice.get("value", "")
        stored = choice.get("alias") or text
        if value in {text, stored}:
            return stored
    return value


def _last(stored: Any) -> str:
    return str(stored[-1]) if isinstance(stored, list) and stored else str(stored)
