"""The labels that the ``<Choice>`` tags of a control define, and those that nobody can select."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from backend.errors import LabelConfigError
from backend.labels.attributes import Tag, attribute, is_on, is_true, tag_of
from backend.labels.label import Label, label_key, prompts_of, unique_labels
from backend.labels.screen import Screen
from backend.labels.visibility import Fixed, Visibility
from backend.messages.message import Message

NAMED = 10
"""Choices that a note names, at most."""


@dataclass(frozen=True)
class Choices:
    """The choices of one control.

    Attributes:
        labels: those that are predicted, in the order of the config.
        hidden: keys of those that nobody can select: hidden, locked, below a choice where that is
            not shown, or a branch where only leaves can be selected.
        skipped: keys of those with ``model_skip``.
        asked: all that an annotator can select, those with ``model_skip`` among them.
    """

    labels: tuple[Label, ...]
    hidden: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    asked: tuple[Label, ...] = ()


def read_choices(control: Element, screen: Screen, visibility: Visibility) -> Choices:
    """Read the choices that stand in a control.

    Raises:
        LabelConfigError: a threshold of a choice is no probability.
    """
    return _Reader(control, screen, visibility).read()


def threshold_of(tag: Element) -> float | None:
    """The ``model_score_threshold`` of a control or a choice; None if it has none.

    Raises:
        LabelConfigError: it is no probability.
    """
    text = tag.get("model_score_threshold")
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        name = tag.get("name") or tag.get("value")
        raise LabelConfigError(
            Message(
                "model_score_threshold={text!r} of {name!r} is not a probability.",
                text=text,
                name=name,
            ),
            Message('Write a number from 0 to 1, e.g. model_score_threshold="0.4".'),
        )
    return value


def why_hidden(tag: Element, choices: Choices) -> str:
    """Which choices of a control nobody can select, in a sentence."""
    shown = ", ".join(choices.hidden[:NAMED]) + ", ..." * (len(choices.hidden) > NAMED)
    return Message(
        "<{tag} name={name!r}>: nobody can select {shown}: Label Studio does not show them, or "
        "lets nobody change them (a tree of choices needs a <Taxonomy>).",
        tag=tag.tag,
        name=tag.get("name"),
        shown=shown,
    )


def why_names_differ(tag: Element) -> str:
    """Why Label Studio's editor has other names for the choices than its import."""
    for choice in tag.iter():
        if tag_of(choice) is not Tag.CHOICE:
            continue
        if attribute(choice, "alias") and not choice.get("alias"):
            return Message(
                "Label Studio's import reads an alias only if it is written in lower case"
            )
        if len(choice) == 0 and (choice.text or "").strip():
            return Message(
                "Label Studio's editor takes the text inside a <Choice> for its value; write "
                "<Choice value=.../> without a text inside"
            )
    return ""


class _Reader:
    def __init__(self, control: Element, screen: Screen, visibility: Visibility) -> None:
        self._control = control
        self._is_tree = tag_of(control) is Tag.TAXONOMY
        self._leaves_only = self._is_tree and is_on(control, "leafsOnly")
        self._screen = screen
        self._visibility = visibility
        # A drop-down list has all of them, whatever would hide or lock their boxes.
        self._is_list = not self._is_tree and attribute(control, "layout") == "select"
        self._hidden: list[str] = []
        self._skipped: list[str] = []

    def read(self) -> Choices:
        found = [*self._below(self._control, ())]
        labels = unique_labels(label for label in found if not label.skipped)
        keys = {label.key for label in labels}
        hidden = (key for key in dict.fromkeys(self._hidden) if key not in keys)
        asked = unique_labels(found)
        return Choices(tuple(labels), tuple(hidden), tuple(self._skipped), tuple(asked))

    def _below(self, tag: Element, above: tuple[str, ...]) -> Iterator[Label]:
        seen: set[str] = set()
        for choice in _choices_in(tag):
            value = choice.get("value", "")
            if self._is_tree and value in seen:
                # Label Studio shows the first of equal branches only.
                continue
            seen.add(value)
            path = (*above, choice.get("alias") or value)
            label = self._label(choice, path if self._is_tree else path[-1:], nested=bool(above))
            if label is not None:
                yield label
            yield from self._below(choice, path)

    def _label(self, choice: Element, path: tuple[str, ...], *, nested: bool) -> Label | None:
        value = choice.get("value", "")
        if not value:
            return None
        skipped = is_true(choice.get("model_skip"))
        if skipped:
            self._skipped.append(label_key(path))
        conditions = () if self._is_list else self._visibility.within(choice, self._control)
        is_branch = self._leaves_only and next(_choices_in(choice), None) is not None
        if isinstance(conditions, Fixed) or is_branch or self._is_hidden(choice, nested=nested):
            if not skipped:
                self._hidden.append(label_key(path))
            return None
        if skipped:
            return Label(path=path, text=value, conditions=conditions, skipped=True)
        return Label(
            path=path,
            text=value,
            prompts=prompts_of(choice.get("model_prompt", "")),
            threshold=threshold_of(choice),
            conditions=conditions,
            preselected=is_on(choice, "selected"),
        )

    def _is_hidden(self, choice: Element, *, nested: bool) -> bool:
        if self._is_tree or self._is_list:
            return nested and self._is_list
        return (
            nested
            or attribute(choice, "visible") == "false"
            or is_on(choice, "readonly")
            or bool(self._screen.why_hidden(choice, self._control))
        )


def _choices_in(tag: Element) -> Iterator[Element]:
    """The choices in a tag, those in other tags within it too, but not those in a choice."""
    for child in tag:
        if tag_of(child) is Tag.CHOICE:
            yield child
        else:
            yield from _choices_in(child)
