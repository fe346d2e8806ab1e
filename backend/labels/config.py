"""Parsing the labeling config into controls, labels, prompts and thresholds.

Reads what Label Studio sends with each request (https://labelstud.io/tags/choices and
https://labelstud.io/tags/taxonomy). Attributes of our own: ``model_score_threshold`` and
``model_skip`` on a control or a choice, ``model_prompt`` on a choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError
from backend.labels.controls import Control, ControlKind, Label, content_of, unique_labels
from backend.labels.visibility import (
    Condition,
    Fixed,
    Ticks,
    Visibility,
    attribute,
    is_true,
    ticks_of,
)

EVIDENCE_NAME = "clip_evidence"
"""Name of the TextArea that shows the probabilities; other TextAreas are ignored."""

CONFIG_FIX = (
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
    """

    controls: tuple[Control, ...]
    evidence: tuple[str, str] | None
    skipped: tuple[str, ...]
    names: frozenset[str] = frozenset()

    @cached_property
    def digest(self) -> str:
        """16 hex digits over all that decides predictions; stable across processes and machines."""
        content = {
            "controls": [content_of(control) for control in self.controls],
            "evidence": self.evidence,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def label_keys(self) -> dict[str, list[str]]:
        """Control name -> keys of its labels, in the order of the config."""
        return {control.name: [label.key for label in control.labels] for control in self.controls}

    def conditions(self) -> dict[str, str]:
        """Control name -> a text that differs where it is shown under another condition."""
        return {
            control.name: json.dumps([asdict(condition) for condition in control.conditions])
            for control in self.controls
            if control.conditions
        }

    def ticks(self, result: Sequence[Any]) -> Ticks:
        """What an annotation's result selects, under former and under present names."""
        ticks = dict(ticks_of(result))
        for control in self.controls:
            if control.former and control.name in ticks:
                last = {label.key: label.path[-1] for label in control.labels}
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
        controls = tuple(
            replace(control, former=tuple(former.get(control.name, {}).items()))
            for control in self.controls
        )
        return replace(self, controls=controls)

    def require_controls(self) -> None:
        """Raise if there is nothing to predict.

        Raises:
            LabelConfigError: with the reason why each control was skipped.
        """
        if not self.controls:
            reasons = " ".join(self.skipped) or "It has no Choices and no Taxonomy."
            raise LabelConfigError(
                f"The labeling config has no control that can be predicted. {reasons}", CONFIG_FIX
            )


def prompts_of(text: str) -> tuple[str, ...]:
    """The prompts in a ``model_prompt``: texts with ``|`` between them."""
    return tuple(prompt for part in text.split("|") if (prompt := part.strip()))


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
            f"The labeling config is not valid XML: {error}.",
            "Open Settings > Labeling Interface > Code in Label Studio and correct it.",
        ) from error
    try:
        return _parsed(root)
    except RecursionError as error:
        raise LabelConfigError(
            "The labeling config is nested too deeply.", "Nest its choices less deeply."
        ) from error


def _parsed(root: Element) -> LabelConfig:
    images = {
        tag.get("name", ""): (tag.get("value") or "") for tag in root.iter() if tag.tag == "Image"
    }
    controls: list[Control] = []
    skipped: list[str] = []
    names: set[str] = set()
    evidence = None
    visibility = Visibility(root)
    for tag in root.iter():
        if tag.tag in {"Choices", "Taxonomy"}:
            names.add(tag.get("name", ""))
            conditions = visibility.of(tag)
            reason = _why_skipped(tag, images)
            if isinstance(conditions, Fixed):
                reason = reason or conditions
            if reason or isinstance(conditions, Fixed):
                skipped.append(f"<{tag.tag} name={tag.get('name')!r}>: {reason}.")
            else:
                controls.append(_control(tag, images, conditions))
        elif tag.tag == "TextArea" and tag.get("name") == EVIDENCE_NAME:
            evidence = (EVIDENCE_NAME, tag.get("toName", "").split(",")[0].strip())
    return LabelConfig(tuple(controls), evidence, tuple(skipped), frozenset(names))


def _why_skipped(tag: Element, images: Mapping[str, str]) -> str:
    if is_true(tag.get("model_skip")):
        return "model_skip is set"
    if is_true(attribute(tag, "perRegion")):
        return "it labels regions, not the image"
    if is_true(attribute(tag, "perItem")):
        return "it labels the pages of a list of images, not the task"
    if not tag.get("name"):
        return "it has no name"
    targets = [name.strip() for name in tag.get("toName", "").split(",")]
    if not any(images.get(name, "").startswith("$") for name in targets):
        return "it does not point at an <Image> whose value is a $field"
    if tag.tag == "Choices" and is_true(tag.get("allowNested")):
        # Measured on Label Studio 1.23.2: bulk import drops such predictions, and the label stream
        # selects only the last element of each path.
        return (
            "Label Studio loses predictions of nested paths; remove allowNested (choices may be "
            "nested without it) or use a <Taxonomy>"
        )
    if tag.get("apiUrl"):
        return "its labels come from a URL"
    dynamic = tag.get("value", "").startswith("$")
    if not dynamic and not any(child.tag == "Choice" for child in tag.iter()):
        return "it has no choices"
    return ""


def _control(tag: Element, images: Mapping[str, str], conditions: tuple[Condition, ...]) -> Control:
    targets = [name.strip() for name in tag.get("toName", "").split(",")]
    to_name = next(name for name in targets if images.get(name, "").startswith("$"))
    taxonomy = tag.tag == "Taxonomy"
    value = tag.get("value", "")
    return Control(
        name=tag.get("name", ""),
        to_name=to_name,
        kind=ControlKind.TAXONOMY if taxonomy else ControlKind.CHOICES,
        multiple=taxonomy or tag.get("choice") == "multiple",
        paths=taxonomy,
        image_field=images[to_name].removeprefix("$"),
        labels=tuple(unique_labels(_static_labels(tag, (), taxonomy))),
        threshold=_threshold(tag),
        options_field=value.removeprefix("$") if value.startswith("$") else None,
        conditions=conditions,
        targets=tuple(targets),
        # What is not shown need not be answered.
        required=is_true(tag.get("required")) and not conditions,
    )


def _static_labels(tag: Element, above: tuple[str, ...], paths: bool) -> list[Label]:
    labels = []
    for child in tag:
        if child.tag != "Choice":
            labels += _static_labels(child, above, paths)
            continue
        value = child.get("value", "")
        stored = child.get("alias") or value
        path = (*above, stored)
        nested = _static_labels(child, path, paths)
        if value and not is_true(child.get("model_skip")):
            labels.append(
                Label(
                    path=path if paths else (stored,),
                    text=value,
                    prompts=prompts_of(child.get("model_prompt", "")),
                    threshold=_threshold(child),
                )
            )
        labels += nested
    return labels


def _threshold(tag: Element) -> float | None:
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
            f"model_score_threshold={text!r} of {name!r} is not a probability.",
            'Write a number from 0 to 1, e.g. model_score_threshold="0.4".',
        )
    return value
