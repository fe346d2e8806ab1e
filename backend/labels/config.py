"""Parsing the labeling config into controls, labels, prompts and thresholds.

Reads what Label Studio sends with each request (https://labelstud.io/tags/choices and
https://labelstud.io/tags/taxonomy). Attributes of our own: ``model_score_threshold`` and
``model_skip`` on a control or a choice, ``model_prompt`` on a choice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError
from backend.labels.attributes import (
    CONTROL_TAGS,
    Tag,
    attribute,
    is_on,
    is_true,
    reason_to_leave_out,
    tag_of,
)
from backend.labels.choices import Choices, read_choices, threshold_of, why_hidden, why_names_differ
from backend.labels.controls import Control, ControlKind, content_of
from backend.labels.label import Label
from backend.labels.screen import Screen, why_not_shown
from backend.labels.task_values import has_reference, is_reference
from backend.labels.visibility import Condition, Fixed, Ticks, Visibility, ticks_of
from backend.messages.message import Message, in_sequence

EVIDENCE_NAME = "clip_evidence"
"""Name of the TextArea that shows the probabilities; other TextAreas are ignored."""

CONFIG_FIX = Message(
    'Add <Choices name="tags" toName="image" choice="multiple"> with a <Choice value="..."/> for '
    'each label, on an <Image name="image" value="$image"/>; plugin_config/ has ready ones.'
)


@dataclass(frozen=True)
class LabelConfig:
    """What a labeling config lets us predict.

    Attributes:
        controls: in document order.
        evidence: (name, to_name) of the read-only TextArea for probabilities, or None.
        skipped: why other Choices and Taxonomies were skipped, one sentence each.
        names: of all Choices and Taxonomies, skipped ones included.
        preselected: those of the skipped ones in which Label Studio preselects labels, with these:
            it does so only where there is no prediction, so that a prediction has to repeat them.
        asked: all that people answer about images: ``controls`` with the labels that are never
            predicted (``model_skip``), and controls that are not.
        unread: the other controls by name, and those with choices that nobody can select, each with
            the sentence that says why no answer is read there.
    """

    controls: tuple[Control, ...]
    evidence: tuple[str, str] | None
    skipped: tuple[str, ...]
    names: frozenset[str] = frozenset()
    preselected: tuple[Control, ...] = ()
    asked: tuple[Control, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    @cached_property
    def digest(self) -> str:
        """16 hex digits over all that decides predictions; stable across processes and machines."""
        content: dict[str, Any] = {
            "controls": [content_of(control) for control in self.controls],
            "evidence": self.evidence,
        }
        if self.preselected:
            content["preselected"] = [content_of(control) for control in self.preselected]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def label_keys(self) -> dict[str, list[str]]:
        """Control name -> keys of its labels, skipped ones included, in the order of the config."""
        controls = self.with_skipped().controls
        return {control.name: [label.key for label in control.labels] for control in controls}

    def conditions(self) -> dict[str, str]:
        """Control name -> a text that differs where it is shown under another condition."""
        return {
            control.name: json.dumps([asdict(condition) for condition in control.conditions])
            for control in self.with_skipped().controls
            if control.conditions
        }

    def ticks(self, result: Sequence[Any]) -> Ticks:
        """What an annotation's result selects, under former and under present names."""
        ticks = dict(ticks_of(result))
        for control in self.controls:
            if control.former and control.name in ticks:
                last = {label.key: label.stored for label in control.labels}
                keys = control.chosen(result, any_image=True) or []
                ticks[control.name] |= {last[key] for key in keys if key in last}
        return ticks

    def with_former(self, former: Mapping[str, Mapping[str, str]]) -> LabelConfig:
        """The same config, in which former names of labels are understood.

        Args:
            former: control name -> former key of a label -> the key that replaced it.
        """
        if not former:
            return self
        controls, asked = (
            tuple(
                replace(control, former=tuple(former.get(control.name, {}).items()))
                for control in these
            )
            for these in (self.controls, self.asked)
        )
        return replace(self, controls=controls, asked=asked)

    def with_skipped(self) -> LabelConfig:
        """The same config with all that people are asked for, predicted or not."""
        return replace(self, controls=self.asked or self.controls)

    def require_controls(self) -> None:
        """Raise if there is nothing to predict.

        Raises:
            LabelConfigError: with the reason why each control was skipped.
        """
        if not self.controls:
            reasons = self.skipped or (Message("It has no Choices and no Taxonomy."),)
            raise LabelConfigError(
                in_sequence(
                    Message("The labeling config has no control that can be predicted."), *reasons
                ),
                CONFIG_FIX,
            )


def config_of_labels(
    labels: Sequence[str],
    required: bool = False,
    prompts: Mapping[str, tuple[str, ...]] | None = None,
) -> LabelConfig:
    """A config with one control that has these labels, for images that belong to no project.

    Args:
        labels: their names.
        required: whether each image is known to have one of them.
        prompts: label -> texts that the encoder reads in place of its name.
    """
    given = prompts or {}
    control = Control(
        name="labels",
        to_name="image",
        kind=ControlKind.CHOICES,
        multiple=True,
        paths=False,
        image_field="image",
        labels=tuple(
            Label(path=(label,), text=label, prompts=given.get(label, ())) for label in labels
        ),
        required=required,
    )
    return LabelConfig(controls=(control,), evidence=None, skipped=())


@lru_cache(maxsize=256)
def parse_config(xml: str) -> LabelConfig:
    """Parse a labeling config.

    Raises:
        LabelConfigError: not XML, an XML attack, nested too deeply, or an attribute of ours with
            a bad value.
    """
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelConfigError(
            Message("The labeling config is not valid XML: {error}.", error=error),
            Message("Open Settings > Labeling Interface > Code in Label Studio and correct it."),
        ) from error
    try:
        return _parsed(root)
    except RecursionError as error:
        raise LabelConfigError(
            Message("The labeling config is nested too deeply."),
            Message("Nest its choices less deeply."),
        ) from error


def _parsed(root: Element) -> LabelConfig:
    broken = why_not_shown(root)
    visibility = Visibility(root)
    screen = Screen(root, visibility)
    images = {tag.get("name", ""): tag for tag in root.iter() if tag_of(tag) is Tag.IMAGE}
    controls: list[Control] = []
    skipped: list[str] = []
    names: set[str] = set()
    preselected: list[Control] = []
    asked: list[Control] = []
    unread: dict[str, str] = {}
    evidence = None
    for tag in root.iter():
        if tag_of(tag) in CONTROL_TAGS:
            names.add(tag.get("name", ""))
            found = visibility.of(tag)
            conditions = () if isinstance(found, Fixed) else found
            is_skipped = is_true(tag.get("model_skip"))
            unseen = broken or screen.why_hidden(tag)
            other = _why_left_out(tag) or visibility.why_not_submitted(tag)
            if isinstance(found, Fixed):
                other = other or found.reason
            other = other or _why_no_image(tag, images)
            reason = unseen or (Message("model_skip is set") if is_skipped else other)
            choices = read_choices(tag, screen, visibility)
            if not reason and not choices.labels and not _options_field(tag):
                reason = (
                    Message("it has no choices that can be selected")
                    if choices.hidden
                    else Message("it has no choices")
                )
            is_asked = not (unseen or other) and bool(choices.asked or _options_field(tag))
            if is_asked:
                labels = tuple(
                    replace(label, skipped=is_skipped or label.skipped) for label in choices.asked
                )
                asked.append(_control(tag, images, conditions, labels, choices.hidden))
                if choices.hidden:
                    unread[tag.get("name", "")] = why_hidden(tag, choices)
            if reason:
                skipped.append(_sentence(tag, reason))
                if not is_asked:
                    unread[tag.get("name", "")] = _sentence(tag, unseen or other or reason)
                if not broken:
                    preselected += _preselected(tag, choices)
            else:
                hidden = (*choices.hidden, *choices.skipped)
                controls.append(_control(tag, images, conditions, choices.labels, hidden))
                skipped += _remarks(tag, choices)
        elif tag_of(tag) is Tag.TEXT_AREA and tag.get("name") == EVIDENCE_NAME:
            evidence = (EVIDENCE_NAME, tag.get("toName", "").split(",")[0].strip())
    skipped += screen.remarks if controls else []
    return LabelConfig(
        tuple(controls),
        evidence,
        tuple(skipped),
        frozenset(names),
        tuple(preselected),
        tuple(asked),
        tuple(unread.items()),
    )


def _sentence(tag: Element, reason: str) -> str:
    return Message(
        "<{tag} name={name!r}>: {reason}.", tag=tag.tag, name=tag.get("name"), reason=reason
    )


def _remarks(tag: Element, choices: Choices) -> list[str]:
    """What is left out of a control that is predicted."""
    remarks = []
    if choices.hidden and not is_on(tag, "leafsOnly"):
        remarks.append(why_hidden(tag, choices))
    if is_reference(tag.get("value", "")) and _is_written_out(tag):
        told = Message(
            '<{tag} name={name!r}>: value="{value}" is without effect: Label Studio\'s tree shows '
            "only the choices of the config where there are some; remove them, or the value.",
            tag=tag.tag,
            name=tag.get("name"),
            value=tag.get("value"),
        )
        remarks.append(told)
    return remarks


def _why_left_out(tag: Element) -> str:
    if reason := reason_to_leave_out(tag):
        return reason
    if not tag.get("name"):
        return Message("it has no name")
    return why_names_differ(tag)


def _why_no_image(tag: Element, images: Mapping[str, Element]) -> str:
    values = [_image_value(images[name]) for name in _targets(tag) if name in images]
    if any(map(_reads_data, values)):
        return ""
    unread = next((value for value in values if value.startswith("$")), "")
    if unread:
        return Message(
            "Label Studio shows no image for {unread!r}: after $ it reads letters from A to Z, "
            "digits and _ only; rename the field in the tasks' data",
            unread=unread,
        )
    return Message("it does not point at an <Image> whose value is a $field")


def _reads_data(value: str) -> bool:
    """Whether an image's address comes from the task's data in a way that Label Studio reads.

    ``$my-image`` is ``$my`` followed by a text to it, and no address.
    """
    return has_reference(value) and (is_reference(value) or "/" in value or value != value.strip())


def _image_value(image: Element) -> str:
    return attribute(image, "valueList") or attribute(image, "value")


def _targets(tag: Element) -> list[str]:
    return [name.strip() for name in tag.get("toName", "").split(",")]


def _options_field(tag: Element) -> str | None:
    """The field with this task's labels; a value that is no reference defines none."""
    value = tag.get("value", "")
    return value[1:] if is_reference(value) and not _is_written_out(tag) else None


def _is_written_out(tag: Element) -> bool:
    """Whether it is a tree with choices in the config: Label Studio shows no others in it then."""
    is_tree = tag_of(tag) is Tag.TAXONOMY
    return is_tree and any(tag_of(inner) is Tag.CHOICE for inner in tag.iter())


def _control(
    tag: Element,
    images: Mapping[str, Element],
    conditions: tuple[Condition, ...],
    labels: tuple[Label, ...],
    hidden: tuple[str, ...],
) -> Control:
    targets = _targets(tag)
    usable = [
        name for name in targets if name in images and _reads_data(_image_value(images[name]))
    ]
    values = tuple(dict.fromkeys(_image_value(images[name]) for name in usable))
    is_plain = is_reference(values[0]) and not attribute(images[usable[0]], "valueList")
    is_tree = tag_of(tag) is Tag.TAXONOMY
    return Control(
        name=tag.get("name", ""),
        to_name=usable[0],
        kind=ControlKind.TAXONOMY if is_tree else ControlKind.CHOICES,
        multiple=is_tree or attribute(tag, "choice") == "multiple",
        paths=is_tree,
        image_field=values[0][1:] if is_reference(values[0]) else values[0],
        labels=labels,
        threshold=threshold_of(tag),
        options_field=_options_field(tag),
        conditions=conditions,
        targets=tuple(targets),
        # What is not shown need not be answered.
        required=is_on(tag, "required") and not conditions,
        image_values=() if is_plain and len(values) == 1 else values,
        limit=_limit(tag) if is_tree else None,
        leaves_only=is_tree and is_on(tag, "leafsOnly"),
        hidden=hidden,
    )


def _limit(tag: Element) -> int | None:
    """``maxUsages`` as Label Studio reads it: what is no number limits nothing."""
    try:
        return max(0, math.floor(float(attribute(tag, "maxUsages") or "nan")))
    except (ValueError, OverflowError):
        return None


def _preselected(tag: Element, choices: Choices) -> list[Control]:
    """A control that is left out, if Label Studio would preselect labels in it.

    Not one for regions or items, where a prediction has no place for it, nor one with paths that
    the bulk import does not take.
    """
    labels = tuple(label for label in choices.labels if label.preselected)
    if not labels or not tag.get("name") or reason_to_leave_out(tag):
        return []
    is_tree = tag_of(tag) is Tag.TAXONOMY
    multiple = is_tree or attribute(tag, "choice") == "multiple"
    return [
        Control(
            name=tag.get("name", ""),
            to_name=_targets(tag)[0],
            kind=ControlKind.TAXONOMY if is_tree else ControlKind.CHOICES,
            multiple=multiple,
            paths=is_tree,
            image_field="",
            labels=labels if multiple else labels[:1],
        )
    ]
