"""What is suggested for image files that belong to no project."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from backend.errors import ClipError
from backend.messages.message import Message


@dataclass(frozen=True)
class Suggestion:
    """The suggestion for one file.

    Attributes:
        file: what a person calls it, see `FoundImages.names`.
        suggested: labels over the threshold, most probable first.
        scores: label -> probability; None: the encoder cannot read the label.
        error: why there is no suggestion.
        thumbnail: a small JPEG of the image, where one was asked for.
    """

    file: str
    suggested: list[str] = field(default_factory=list)
    scores: dict[str, float | None] = field(default_factory=dict)
    error: ClipError | None = None
    thumbnail: bytes = b""

    @property
    def likeliest(self) -> list[tuple[str, float]]:
        """Labels that the encoder can read, with their probabilities, most probable first."""
        read = [(label, p) for label, p in self.scores.items() if p is not None]
        return sorted(read, key=lambda item: -item[1])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``file``, ``suggested``, ``scores``, and ``error`` where there is an error."""
        content: dict[str, Any] = {
            "file": self.file,
            "suggested": self.suggested,
            "scores": self.scores,
        }
        if self.error is not None:
            content["error"] = self.error.as_dict()
        return content


@dataclass(frozen=True)
class Suggestions:
    """The suggestions for some files.

    Attributes:
        of_files: one per file, in order.
        labels: their names, in order; each probability is one among all of these.
        threshold: labels were suggested from this probability on; None: the encoder can read none.
        encoder: its name, as in LS_CLIP_ENCODER.
        unreadable: those of the labels that the encoder cannot read.
        threshold_reason: why it is this threshold, in a sentence with it.
        in_project: how a project with these labels differs, in a sentence.
    """

    of_files: list[Suggestion]
    labels: tuple[str, ...]
    threshold: float | None
    encoder: str
    unreadable: tuple[str, ...] = ()
    threshold_reason: Message | None = None
    in_project: Message | None = None

    @property
    def failed(self) -> list[Suggestion]:
        """Of the files that could not be used."""
        return [suggestion for suggestion in self.of_files if suggestion.error is not None]

    @property
    def scored(self) -> list[Suggestion]:
        """Of the other files."""
        return [suggestion for suggestion in self.of_files if suggestion.error is None]


def printable(file: str) -> str:
    """A path as text; bytes of it that are no text in UTF-8 are written as ``\\xNN``."""
    return os.fsencode(file).decode(errors="backslashreplace")
