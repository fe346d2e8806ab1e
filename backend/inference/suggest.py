"""Suggestions for image files, without Label Studio: a first try in ten seconds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as RichTable

from backend.encoders.label_texts import (
    label_embeddings,
    label_texts,
    unreadable_message,
    unreadable_texts,
)
from backend.encoders.registry import get_encoder
from backend.encoders.table import shipped_table
from backend.errors import ClipError, ImageError, ImageReason, SettingsError
from backend.images.decode import decode
from backend.settings import Settings
from backend.vlpl import zero_shot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suggestion:
    """What is suggested for one file.

    Attributes:
        file: as it was given.
        suggested: labels over the threshold, most probable first.
        scores: label -> probability.
        error: why there is nothing.
        unread: labels that the encoder cannot read, whose probabilities mean nothing.
    """

    file: str
    suggested: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    error: ClipError | None = None
    unread: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: file, suggested, scores, and error where there is one."""
        content: dict[str, Any] = {
            "file": self.file,
            "suggested": self.suggested,
            "scores": self.scores,
        }
        if self.error is not None:
            content["error"] = self.error.as_dict()
        return content


def suggest(settings: Settings, labels: Sequence[str], files: Sequence[Path]) -> list[Suggestion]:
    """Suggest labels for files, one suggestion a file, in order.

    Raises:
        SettingsError: no labels.
        EncoderError: the encoder cannot be had.
    """
    names = list(dict.fromkeys(labels))
    if not names:
        raise SettingsError("No labels are given.", 'Add --labels "dog,cat,bicycle".')
    missing = {
        file: Suggestion(str(file), error=_not_there(file)) for file in files if not file.is_file()
    }
    if len(missing) == len(set(files)):
        return [missing[file] for file in files]
    encoder = get_encoder(settings)
    unreadable = unreadable_texts(encoder, names)
    if unreadable:
        log.warning("%s %s", *unreadable_message(encoder, unreadable))
    text = torch.from_numpy(
        label_embeddings(encoder, [label_texts(encoder, name) for name in names])
    )
    table = shipped_table(encoder.short)
    row = table.row(False, len(names))
    threshold = row.threshold if settings.threshold is None else settings.threshold
    suggestions = []
    for file in files:
        if file in missing:
            suggestions.append(missing[file])
            continue
        try:
            image = decode(_read(file, settings.max_image_bytes), settings.max_image_pixels)
        except ImageError as error:
            suggestions.append(Suggestion(str(file), error=error))
            continue
        encoded = encoder.encode_images([image])
        regions = None if encoded.regions is None else torch.from_numpy(encoded.regions)
        whole, best = zero_shot.raw_scores(torch.from_numpy(encoded.image), regions, text)
        z = zero_shot.fuse(whole, best, spread=table.spread)
        probabilities = zero_shot.probabilities(z, row.slope, row.offset).numpy()[0]
        order = np.argsort(-probabilities, kind="stable")
        suggestions.append(
            Suggestion(
                str(file),
                [
                    names[index]
                    for index in order
                    if probabilities[index] >= threshold and names[index] not in unreadable
                ],
                {name: float(p) for name, p in zip(names, probabilities, strict=True)},
                unread=tuple(unreadable),
            )
        )
    return suggestions


def print_suggestions(suggestions: Sequence[Suggestion], console: Console) -> None:
    """One row a file."""
    table = RichTable("file", "suggested", "most probable")
    for one in suggestions:
        if one.error is not None:
            continue
        read = [item for item in one.scores.items() if item[0] not in one.unread]
        best = sorted(read, key=lambda item: -item[1])[:5]
        shown = ", ".join(f"{name} {100 * p:.0f} %" for name, p in best)
        table.add_row(Path(one.file).name, ", ".join(one.suggested) or "nothing", shown)
    if table.row_count:
        console.print(table)
    for one in suggestions:
        if one.error is not None:
            message = one.error.message
            where = "" if one.file in message else f"{one.file}: "
            console.print(f"Error: {where}{message}", style="red", markup=False, soft_wrap=True)
            console.print(f"Fix: {one.error.fix}", markup=False, soft_wrap=True)


def _not_there(file: Path) -> ImageError:
    return ImageError(ImageReason.NOT_FOUND, f"{file} is not a file.", "Check the path.")


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        if file.stat().st_size > max_bytes:
            raise ImageError(
                ImageReason.TOO_LARGE,
                f"{file} is larger than {max_bytes} bytes.",
                "Raise LS_CLIP_MAX_IMAGE_BYTES.",
            )
        return file.read_bytes()
    except OSError as error:
        raise ImageError(
            ImageReason.NOT_FOUND, f"{file} cannot be read: {error.strerror}.", "Check the path."
        ) from error
