"""Labeling config -> controls, labels, prompts and thresholds.

Reads what Label Studio sends with each request (https://labelstud.io/tags/choices and
https://labelstud.io/tags/taxonomy). Attributes of our own: ``model_score_threshold`` and
``model_skip`` on a control or a choice, ``model_prompt`` on a choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from backend.errors import LabelConfigError

EVIDENCE_NAME = "clip_evidence"
"""The TextArea of this name shows the probabilities; other TextAreas are left alone."""

MAX_OPTIONS = 1000
"""Labels that one task may bring along; each has to be embedded while its annotator waits."""
CONFIG_FIX = (
    'Add <Choices name="tags" toName="image" choice="multiple"> with a <Choice value="..."/> for '
    'each label, on an <Image name="image" value="$image"/>; plugin_config/ has ready ones.'
)


def key_of(stored: Any) -> str:
    """The key of a label as Label Studio stores it: a value, or the way down a tree."""
    return " / ".join(map(str, stored)) if isinstance(stored, list | tuple) else str(stored)


@dataclass(frozen=True)
class Label:
    """One choice of a control.

    Attributes:
        path: what Label Studio stores: ``(value,)``, or the way down a tree.
        text: what the text tower reads unless there are prompts.
        prompts: complete texts to use instead.
        threshold: suggest from this probability on; None: the control's.
    """

    path: tuple[str, ...]
    text: str
    prompts: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def key(self) -> str:
        """The path as one string, unique within its control."""
        return key_of(self.path)


@dataclass(frozen=True)
class Control:
    """A ``<Choices>`` or ``<Taxonomy>`` on an image.

    Attributes:
        name: ``from_name`` of its results.
        to_name: the image tag it labels.
        kind: ``choices`` or ``taxonomy``.
        multiple: whether more than one label may be suggested.
        paths: whether Label Studio stores each label as a list of path elements.
        image_field: the task-data field that holds the image, dots for nesting.
        labels: in the order of the config; empty while ``options_field`` is unread.
        threshold: suggest from this probability on; None: the encoder's own.
        options_field: the task-data field with this task's labels (``value="$options"``).
    """

    name: str
    to_name: str
    kind: str
    multiple: bool
    paths: bool
    image_field: str
    labels: tuple[Label, ...]
    threshold: float | None = None
    options_field: str | None = None

    def for_task(self, data: Mapping[str, Any]) -> Control:
        """The control with this task's own labels, if they come from the task's data."""
        if self.options_field is None:
            return self
        options = field_value(data, self.options_field)
        if not isinstance(options, list):
            return self
        labels = _unique(_dynamic_labels(options, (), self.paths))
        return replace(self, labels=tuple(labels[:MAX_OPTIONS]))

    def chosen(self, result: Iterable[Any]) -> list[str] | None:
        """Keys of the labels that result items select in this control, known to it or not.

        None if an item of this control holds something else: it was of another kind once.
        """
        found: list[str] = []
        for item in result:
            if isinstance(item, Mapping) and item.get("from_name") == self.name:
                value = item.get("value")
                stored = value.get(self.kind) if isinstance(value, Mapping) else None
                if not isinstance(stored, list):
                    return None
                found += map(key_of, stored)
        return found

    def result_value(self, labels: list[Label]) -> dict[str, Any]:
        """The ``value`` of a Label Studio result item that selects these labels."""
        stored = [list(label.path) if self.paths else label.path[-1] for label in labels]
        return {self.kind: stored}


@dataclass(frozen=True)
class LabelConfig:
    """What a labeling config holds for us.

    Attributes:
        controls: in document order.
        evidence: (name, to_name) of the read-only TextArea for probabilities, or None.
        skipped: why other Choices and Taxonomies were left out, one sentence each.
    """

    controls: tuple[Control, ...]
    evidence: tuple[str, str] | None
    skipped: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A hash over all that decides predictions; stable across processes and machines."""
        content = {
            "controls": [asdict(control) for control in self.controls],
            "evidence": self.evidence,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def require_controls(self) -> None:
        """Raise if there is nothing to predict.

        Raises:
            LabelConfigError: with the reasons why each control was skipped.
        """
        if not self.controls:
            reasons = " ".join(self.skipped) or "It has no Choices and no Taxonomy."
            raise LabelConfigError(f"The labeling config has nothing for us. {reasons}", CONFIG_FIX)


@lru_cache(maxsize=256)
def parse_config(xml: str) -> LabelConfig:
    """Parse a labeling config.

    Raises:
        LabelConfigError: not XML, an XML attack, or an attribute of ours with a bad value.
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
    evidence = None
    for tag in root.iter():
        if tag.tag in {"Choices", "Taxonomy"}:
            reason = _why_skipped(tag, images)
            if reason:
                skipped.append(f"<{tag.tag} name={tag.get('name')!r}>: {reason}.")
            else:
                controls.append(_control(tag, images))
        elif tag.tag == "TextArea" and tag.get("name") == EVIDENCE_NAME:
            evidence = (EVIDENCE_NAME, tag.get("toName", "").split(",")[0].strip())
    return LabelConfig(tuple(controls), evidence, tuple(skipped))


def field_value(data: Mapping[str, Any], field: str) -> Any:
    """What stands in the task's data at ``a`` or ``a.b``; None if nothing does."""
    if field in data:
        return data[field]
    value: Any = data
    for part in field.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _why_skipped(tag: Element, images: Mapping[str, str]) -> str:
    if _is_true(tag.get("model_skip")):
        return "model_skip is set"
    if _is_true(tag.get("perRegion")):
        return "it labels regions, not the image"
    if not tag.get("name"):
        return "it has no name"
    targets = [name.strip() for name in tag.get("toName", "").split(",")]
    if not any(images.get(name, "").startswith("$") for name in targets):
        return "it does not point at an <Image> whose value is a $field"
    if tag.tag == "Choices" and _is_true(tag.get("allowNested")):
        # Measured on 1.23.2: bulk import drops such predictions, the label stream ticks the last.
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


def _control(tag: Element, images: Mapping[str, str]) -> Control:
    targets = [name.strip() for name in tag.get("toName", "").split(",")]
    to_name = next(name for name in targets if images.get(name, "").startswith("$"))
    taxonomy = tag.tag == "Taxonomy"
    value = tag.get("value", "")
    return Control(
        name=tag.get("name", ""),
        to_name=to_name,
        kind="taxonomy" if taxonomy else "choices",
        multiple=taxonomy or tag.get("choice") == "multiple",
        paths=taxonomy,
        image_field=images[to_name].removeprefix("$"),
        labels=tuple(_unique(_static_labels(tag, (), taxonomy))),
        threshold=_threshold(tag),
        options_field=value.removeprefix("$") if value.startswith("$") else None,
    )


def _static_labels(tag: Element, above: tuple[str, ...], paths: bool) -> list[Label]:
    found = []
    for child in tag:
        if child.tag != "Choice":
            found += _static_labels(child, above, paths)
            continue
        value = child.get("value", "")
        stored = child.get("alias") or value
        path = (*above, stored)
        nested = _static_labels(child, path, paths)
        if value and not _is_true(child.get("model_skip")):
            prompts = [text.strip() for text in child.get("model_prompt", "").split("|")]
            found.append(
                Label(
                    path=path if paths else (stored,),
                    text=value,
                    prompts=tuple(text for text in prompts if text),
                    threshold=_threshold(child),
                )
            )
        found += nested
    return found


def _dynamic_labels(options: list[Any], above: tuple[str, ...], paths: bool) -> list[Label]:
    found = []
    for option in options:
        entry = option if isinstance(option, Mapping) else {"value": option}
        value = entry.get("value")
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            continue
        text = str(value)
        alias = entry.get("alias")
        stored = alias if isinstance(alias, str) and alias else text
        path = (*above, stored)
        if text.strip() and _is_whole(text + stored):
            found.append(Label(path=path if paths else (stored,), text=text))
        children = entry.get("children")
        if isinstance(children, list):
            found += _dynamic_labels(children, path, paths)
    return found


def _is_whole(text: str) -> bool:
    """False for half a character ("\\ud800" in JSON), which can neither be read nor stored."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _unique(labels: list[Label]) -> list[Label]:
    """Label Studio keeps the first of two equal values; so do we."""
    first: dict[tuple[str, ...], Label] = {}
    for label in labels:
        first.setdefault(label.path, label)
    return list(first.values())


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


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in {"true", "1", "yes"}
