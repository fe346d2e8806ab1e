"""The page that ``ls-clip suggest --html`` writes: small images with their labels, in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from backend.errors import counted

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


def explained(found: Suggestions) -> Iterator[str]:
    """What a reader has to know of the probabilities, in sentences."""
    if found.threshold is not None:
        yield (
            f"Suggested: from a probability of {100 * found.threshold:.1f} % on "
            "(--threshold changes that)."
        )
    readable = len(found.labels) - len(found.unreadable)
    among = f"one among the {counted(len(found.labels), 'label')} that are listed"
    if found.unreadable:
        labels = counted(len(found.labels), "label")
        yield (
            f"{readable} of {labels} can be read by the encoder: the others get no probability."
            if readable
            else f"The encoder can read none of {labels}: none gets a probability."
        )
        among = "one among all labels that are listed"
    if readable:
        yield (
            f"Each probability is {among}: the more labels are listed, the less likely is each. "
            "In a project, people's decisions correct them."
        )


def contact_sheet(found: Suggestions) -> str:
    """The page: one file that loads nothing, whatever the names of files and labels hold.

    Args:
        found: the first `PAGE_IMAGES` of its images have thumbnails.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = files("backend.cli").joinpath("contact_sheet.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=f"Suggestions for {counted(len(found.of_files), 'image')}",
        notes=[*explained(found), f"Encoder: {found.encoder}."],
        images=[_image(suggestion) for suggestion in found.scored[:PAGE_IMAGES]],
        more=max(0, len(found.scored) - PAGE_IMAGES),
        failed=found.failed[:PAGE_ERRORS],
        more_failed=max(0, len(found.failed) - PAGE_ERRORS),
    )


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
