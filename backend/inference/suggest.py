"""Suggestions for image files, without Label Studio: a first try in ten seconds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.encoders.base import Encoder
from backend.encoders.label_texts import unreadable_message
from backend.encoders.registry import get_encoder
from backend.encoders.table import shipped_table
from backend.errors import ClipError, ImageError, ImageReason, SettingsError
from backend.images.decoder import Decoder
from backend.inference.evidence import ScoredControl
from backend.inference.label_embeddings import LabelEmbeddings, unreadable_labels
from backend.inference.model_version import ModelVersion
from backend.labels.config import config_of_labels
from backend.logs import Progress
from backend.settings import Settings
from backend.storage.vectors import Embedding

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suggestion:
    """The suggestion for one file.

    Attributes:
        file: its path as it was given.
        suggested: labels over the threshold, most probable first.
        scores: label -> probability.
        error: why there is no suggestion.
        unreadable: labels that the encoder cannot read, whose probabilities mean nothing.
    """

    file: str
    suggested: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    error: ClipError | None = None
    unreadable: tuple[str, ...] = ()

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


def suggest(
    settings: Settings, labels: Sequence[str], files: Sequence[Path], progress: Progress
) -> list[Suggestion]:
    """Suggest labels for files, one suggestion per file, in order.

    Scores as tasks of a new project are scored: without statistics and heads. Needs no store. Who
    names a few labels for a photo expects one of them on it, so that is what is assumed.

    Args:
        settings: encoder, threshold, image limits.
        labels: names; repeated ones count once.
        files: image files.
        progress: called with the step, and how much of it is done.

    Raises:
        SettingsError: no labels.
        EncoderError: the encoder cannot be loaded.
    """
    names = list(dict.fromkeys(labels))
    if not names:
        raise SettingsError("No labels are given.", 'Add --labels "dog,cat,bicycle".')
    missing = {
        file: Suggestion(str(file), error=_not_there(file)) for file in files if not file.is_file()
    }
    if len(missing) == len(set(files)):
        return [missing[file] for file in files]
    progress("loading the encoder", 0, 1)
    encoder = get_encoder(settings)
    encoder.load()
    progress("loading the encoder", 1, 1)
    config = config_of_labels(names, required=True)
    unreadable = unreadable_labels(encoder, config)
    if unreadable:
        log.warning("%s %s", *unreadable_message(encoder, unreadable))
    version = ModelVersion(
        name="",
        config=config,
        label_embeddings=LabelEmbeddings(encoder),
        table=shipped_table(encoder.short),
        threshold=settings.threshold,
    )
    decoder = Decoder(settings)
    max_bytes = settings.max_image_bytes
    suggestions: list[Suggestion] = []
    for file in files:
        progress("suggesting", len(suggestions), len(files))
        suggestions.append(missing.get(file) or _suggestion(version, decoder, max_bytes, file))
    progress("suggesting", len(files), len(files))
    return suggestions


def _suggestion(version: ModelVersion, decoder: Decoder, max_bytes: int, file: Path) -> Suggestion:
    """The suggestion for an existing file."""
    (control,) = version.config.controls
    try:
        data = _read(file, max_bytes)
        embedding = _embedding(version.encoder, decoder, data)
    except ImageError as error:
        return Suggestion(str(file), error=error)
    (probabilities,) = version.probabilities(control, [embedding])
    thresholds, unreadable = version.limits(control)
    scored = ScoredControl(control, probabilities, thresholds, unreadable=unreadable)
    return Suggestion(
        str(file),
        [label.key for label, _ in scored.ticked],
        {label.key: float(p) for label, p in zip(control.labels, probabilities, strict=True)},
        unreadable=tuple(control.labels[place].key for place in sorted(unreadable)),
    )


def _embedding(encoder: Encoder, decoder: Decoder, data: bytes) -> Embedding:
    """An image file's embedding, as the store would keep it."""
    encoded = decoder.decoded(
        data, lambda image: encoder.encode_images([image]), encoder.draft_size
    )
    return Embedding.of(encoded.image[0], None if encoded.regions is None else encoded.regions[0])


def _not_there(file: Path) -> ImageError:
    if file.is_dir():
        return ImageError(
            ImageReason.NOT_FOUND, f"{file} is a folder.", f"Name its files: {file}/*"
        )
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
