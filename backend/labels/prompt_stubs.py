"""Adds an empty ``model_prompt`` to choices of a labeling config, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat

from backend.labels.attributes import CONTROL_TAGS, Tag, is_true
from backend.labels.config import parse_config

STUB = ' model_prompt=""'
_CONTROLS = frozenset(tag.lower() for tag in CONTROL_TAGS)


def with_prompt_stubs(xml: str, wants_one: Callable[[str], bool]) -> tuple[str, list[str]]:
    """The labeling config with a ``model_prompt`` to fill in for some of its choices.

    Comments, indentation and the order of attributes stay: only the stubs are inserted.

    Args:
        xml: the labeling config.
        wants_one: whether a choice with this value gets a stub; not asked of choices that have a
            ``model_prompt`` or are skipped.

    Returns:
        The config, and the values of the choices that got a stub, in order, each once.

    Raises:
        LabelConfigError: see `parse_config`.
    """
    # It refuses what must not be given to a parser that resolves entities.
    parse_config(xml)
    data = xml.encode()
    places: list[int] = []
    values: list[str] = []
    skipped: list[bool] = []
    parser = expat.ParserCreate("utf-8")

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag.lower() in _CONTROLS:
            skipped.append(is_true(attributes.get("model_skip")))
        if (
            tag.lower() != Tag.CHOICE.lower()
            or not skipped
            or skipped[-1]
            or is_true(attributes.get("model_skip"))
        ):
            return
        value = attributes.get("value", "")
        if value and not attributes.get("model_prompt", "").strip() and wants_one(value):
            values.append(value)
            if "model_prompt" not in attributes:
                places.append(parser.CurrentByteIndex + len(f"<{Tag.CHOICE}"))

    def end(tag: str) -> None:
        if tag.lower() in _CONTROLS:
            skipped.pop()

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(data, True)
    for place in reversed(places):
        data = data[:place] + STUB.encode() + data[place:]
    return data.decode(), list(dict.fromkeys(values))
