"""The page that ``ls-clip suggest --html`` writes: small images with their labels, in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from backend.errors import counted
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message

if TYPE_CHECKING:
    from backend.inference.suggestion import Suggestion, Suggestions

PAGE_IMAGES = 500
"""Images on a page, at most: about 6 MB."""
PAGE_ERRORS = 100
"""Files that could not be used and are named on a page, at most."""
SHOWN_LABELS = 6
"""Labels that are shown of each image, at least those that are suggested."""


def percent(probability: float) -> str:
    """``7 %``; what is not quite nothing, or not quite certain, is not said to be."""
    if 0 < probability < 0.005:
        return "< 1 %"
    if 0.995 <= probability < 1:
        return "> 99 %"
    return f"{100 * probability:.0f} %"


def explained(found: Suggestions) -> Iterator[Message]:
    """What a reader has to know of the probabilities, in sentences."""
    if found.threshold_reason is not None:
        yield found.threshold_reason
    labels = counted(len(found.labels), "label")
    if len(found.unreadable) == len(found.labels):
        yield Message("The encoder can read none of the labels: none gets a probability.")
        return
    if found.unreadable:
        yield Message(
            "{readable} of {labels} can be read by the encoder: the others get no probability.",
            readable=len(found.labels) - len(found.unreadable),
            labels=labels,
        )
        yield Message(
            "Each probability is one among all labels that are listed: the more labels are "
            "listed, the less likely is each."
        )
    else:
        yield Message(
            "Each probability is one among the {labels} that are listed: the more labels are "
            "listed, the less likely is each.",
            labels=labels,
        )
    if found.in_project is not None:
        yield found.in_project


def contact_sheet(found: Suggestions, language: Language) -> str:
    """The page: one file that loads nothing, whatever the names of files and labels hold.

    It is for people who did not call the command, so that no option is named.

    Args:
        found: the first `PAGE_IMAGES` of its images have thumbnails.
        language: of the page.
    """
    from jinja2 import Environment, StrictUndefined

    def say(text: str) -> str:
        return localized(text, language)

    more = len(found.scored) - PAGE_IMAGES
    more_failed = len(found.failed) - PAGE_ERRORS
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = files("backend.cli").joinpath("contact_sheet.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        language=language.value,
        title=say(Message("Suggestions for {images}", images=counted(len(found.scored), "image"))),
        notes=[
            *map(say, explained(found)),
            say(Message("Encoder: {encoder}.", encoder=found.encoder)),
        ],
        images=[_image(suggestion) for suggestion in found.scored[:PAGE_IMAGES]],
        nothing=say(Message("nothing suggested")),
        more=say(Message("Images that are not on this page: {images}.", images=more))
        if more > 0
        else "",
        without=say(Message("Without suggestions")),
        failed=[_failure(suggestion, language) for suggestion in found.failed[:PAGE_ERRORS]],
        more_failed=say(Message("... and {files} more.", files=more_failed))
        if more_failed > 0
        else "",
    )


def _failure(suggestion: Suggestion, language: Language) -> str:
    """What is wrong with a file; its name stands in front, unless it is told already."""
    assert suggestion.error is not None
    told = suggestion.error.in_words(language)
    return told if suggestion.file in told else f"{suggestion.file}: {told}"


def _image(suggestion: Suggestion) -> dict[str, Any]:
    ticked = set(suggestion.suggested)
    shown = max(SHOWN_LABELS, len(ticked))
    first = sorted(suggestion.likeliest, key=lambda item: item[0] not in ticked)
    return {
        "file": suggestion.file,
        "address": f"data:image/jpeg;base64,{b64encode(suggestion.thumbnail).decode()}",
        "labels": [(name, percent(p), name in ticked) for name, p in first[:shown]],
        "nothing": not ticked,
    }
