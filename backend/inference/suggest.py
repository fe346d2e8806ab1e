"""Suggestions for image files, without Label Studio: a first try in ten seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from backend.encoders.base import Encoder, ImageEmbeddings
from backend.encoders.label_texts import unreadable_sentence
from backend.encoders.registry import get_encoder
from backend.encoders.table import TICK_FROM, Scores, Table, shipped_table
from backend.errors import ImageError, ImageReason, counted
from backend.images.decoder import Decoder
from backend.images.image_files import FoundImages
from backend.inference.evidence import ScoredControl
from backend.inference.frozen_statistics import FROM
from backend.inference.label_embeddings import LabelEmbeddings, unreadable_labels
from backend.inference.model_version import ModelVersion
from backend.inference.suggestion import Suggestion, Suggestions, printable
from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.logs import Progress
from backend.messages.message import Message, in_sequence
from backend.settings import Settings
from backend.storage.vectors import Embedding

THUMBNAIL = 200
"""Pixels in width and height, at most: a JPEG of about 8 kB."""


def suggest(
    settings: Settings,
    config: LabelConfig,
    images: FoundImages,
    progress: Progress,
    *,
    warn: Callable[[str, str], None],
    thumbnails: int = 0,
) -> Suggestions:
    """Suggest labels for files, one suggestion per file, in order.

    Scores as tasks of a new project are scored: without statistics and heads. Needs no store.

    Args:
        settings: encoder, threshold, image limits.
        config: with one control.
        images: which there are, of which there is one at least.
        progress: called with the step, and how much of it is done.
        warn: called with a problem and its fix, before the images are read.
        thumbnails: make thumbnails of this many images, the first ones.

    Raises:
        EncoderError: the encoder cannot be loaded.
    """
    progress("loading the encoder", 0, 1)
    encoder = get_encoder(settings)
    encoder.load()
    progress("loading the encoder", 1, 1)
    unreadable = unreadable_labels(encoder, config)
    if unreadable:
        warn(*_unreadable_message(encoder, unreadable))
    version = ModelVersion(
        name="",
        config=config,
        label_embeddings=LabelEmbeddings(encoder),
        table=shipped_table(encoder.short),
        threshold=settings.threshold,
    )
    reader = _Reader(settings, encoder)
    suggestions: list[Suggestion] = []
    with_thumbnail = 0
    for path, missing in images.files.items():
        progress("suggesting", len(suggestions), len(images.files))
        name = printable(images.names[path])
        if missing is not None:
            suggestions.append(Suggestion(name, error=missing))
            continue
        suggestion = _suggestion(version, reader, path, name, with_thumbnail < thumbnails)
        with_thumbnail += suggestion.error is None
        suggestions.append(suggestion)
    progress("suggesting", len(suggestions), len(suggestions))
    (control,) = config.controls
    thresholds, unread = version.limits(control)
    used = [limit for place, limit in enumerate(thresholds) if place not in unread]
    limit = min(used, default=None)
    return Suggestions(
        suggestions,
        tuple(label.key for label in control.labels),
        limit,
        settings.encoder,
        unreadable=tuple(unreadable),
        threshold_reason=None if limit is None else _threshold_reason(version, limit),
        in_project=_in_project(version.table, control),
    )


def _threshold_reason(version: ModelVersion, threshold: float) -> Message:
    """Why labels are suggested from this probability on."""
    percentage = 100 * threshold
    if version.threshold is not None:
        return Message(
            "Suggested: from a probability of {threshold:.1f} % on, as was asked for.",
            threshold=percentage,
        )
    if threshold == TICK_FROM:
        return Message(
            "Suggested: from a probability of {threshold:.1f} % on, from where ticking a label is "
            "expected to save a click.",
            threshold=percentage,
        )
    return Message(
        "Suggested: from a probability of {threshold:.1f} % on, because with fewer than {labels} "
        "probabilities are furthest off ({usual:.1f} % with more).",
        threshold=percentage,
        labels=counted(version.table.few_labels, "label"),
        usual=100 * TICK_FROM,
    )


def _in_project(table: Table, control: Control) -> Message:
    """How the suggestions of a project with these labels differ from these, before any review."""
    labels = len(control.labels)
    images = counted(FROM, "image")
    assumed, plain = (table.row(Scores.BARE, labels, required) for required in (True, False))
    if assumed.offset == plain.offset:
        # With many labels, few of them are expected on an image anyway.
        return Message(
            "A project with these labels suggests the same for its first images; from {images} on "
            "it also compares them with each other, and people's decisions correct the "
            "probabilities.",
            images=images,
        )
    return Message(
        "A project with these labels suggests fewer at first, unless its labeling config says "
        'required="true" (each image has at least one label), which is assumed here; from '
        "{images} on it also compares them with each other, and people's decisions correct the "
        "probabilities.",
        images=images,
    )


def _unreadable_message(encoder: Encoder, labels: Sequence[str]) -> tuple[str, str]:
    """A warning about labels that the text tower cannot read, and its fix; the first are named."""
    return (
        in_sequence(
            unreadable_sentence(encoder, labels),
            Message("Without a probability, none is suggested."),
        ),
        Message(
            "Say each in English, in a CSV file with the columns label and prompt (--prompts "
            "FILE), or take a multilingual model, e.g. "
            "--encoder open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k."
        ),
    )


def _suggestion(
    version: ModelVersion, reader: _Reader, path: str, name: str, with_thumbnail: bool
) -> Suggestion:
    """The suggestion for an existing file."""
    (control,) = version.config.controls
    try:
        embedding, thumbnail = reader.read(Path(path), name, with_thumbnail)
    except ImageError as error:
        return Suggestion(name, error=error)
    (probabilities,) = version.probabilities(control, [embedding])
    thresholds, unreadable = version.limits(control)
    scored = ScoredControl(control, probabilities, thresholds, unreadable=unreadable)
    return Suggestion(
        name,
        [label.key for label, _ in scored.ticked],
        {
            label.key: None if place in unreadable else float(probabilities[place])
            for place, label in enumerate(control.labels)
        },
        thumbnail=thumbnail,
    )


class _Reader:
    """Reads image files: what the store would keep of each, and what a person sees of it."""

    def __init__(self, settings: Settings, encoder: Encoder) -> None:
        self._encoder = encoder
        self._decoder = Decoder(settings)
        self._max_bytes = settings.max_image_bytes

    def read(self, file: Path, name: str, with_thumbnail: bool) -> tuple[Embedding, bytes]:
        """The embedding of an image file, and a small JPEG of it, if asked for.

        Args:
            file: its path.
            name: what an error calls it.
            with_thumbnail: whether to make the JPEG.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        data = _read(file, name, self._max_bytes)

        def use(image: Image.Image) -> tuple[ImageEmbeddings, bytes]:
            encoded = self._encoder.encode_images([image])
            return encoded, _thumbnail(image) if with_thumbnail else b""

        encoded, thumbnail = self._decoder.decoded(data, use, self._encoder.draft_size)
        regions = None if encoded.regions is None else encoded.regions[0]
        return Embedding.of(encoded.image[0], regions), thumbnail


def _thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most `THUMBNAIL` pixels in width and height."""
    out = BytesIO()
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(out, "JPEG", quality=75)
    return out.getvalue()


def _read(file: Path, name: str, max_bytes: int) -> bytes:
    try:
        if file.stat().st_size > max_bytes:
            raise ImageError(
                ImageReason.TOO_LARGE,
                Message("{name} is larger than {max_bytes} bytes.", name=name, max_bytes=max_bytes),
                Message("Scale the image down, or raise LS_CLIP_MAX_IMAGE_BYTES."),
            )
        return file.read_bytes()
    except OSError as error:
        raise ImageError(
            ImageReason.NOT_FOUND,
            Message("{name} cannot be read: {error}.", name=name, error=error.strerror),
            Message("Check the path."),
        ) from error
