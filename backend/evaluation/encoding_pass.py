"""One pass over labelled images, with encoders that need the same pixels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from backend.encoders.base import Encoder
from backend.encoders.registry import free_memory, new_encoder
from backend.errors import ClipError
from backend.evaluation.choices import Choice, as_clip_error
from backend.evaluation.cosines import CosineParts, Cosines
from backend.evaluation.labelled_folder import FolderFiles, LabelledFolder
from backend.evaluation.measures import version_of
from backend.heap import give_back
from backend.inference.batch_encoding import encode_batch
from backend.inference.image_failures import Failures, as_image_error
from backend.inference.preparer import Prepared, Preparer
from backend.storage.vectors import Embedding
from backend.vlpl.zero_shot import LabelVectors

MOST_LOST = 0.1
"""The share of the images that one encoder may fail to encode. An image that it cannot encode is
left out for all, and one broken model must not take the images from the others."""


@dataclass(frozen=True)
class Encoded:
    """What a pass has measured of one choice.

    Attributes:
        cosines: of the images that it could encode.
        failures: file -> why it could not.
        seconds_encoding: an image, in full batches.
        bytes_per_image: of an image's vectors in the store.
        labels: embeddings of the labels.
        embeddings: file -> its embedding, of those that were to be kept.
    """

    cosines: Cosines
    failures: Failures
    seconds_encoding: float
    bytes_per_image: int
    labels: LabelVectors
    embeddings: Mapping[str, Embedding]


@dataclass(frozen=True)
class PassResult:
    """The outcome of a pass.

    Attributes:
        outcomes: of each choice, in order: what was measured, or why it could not be.
        failures: file -> why it could not be read or decoded.
        seconds_preparing: an image, to read, decode and resize it on all cores.
    """

    outcomes: list[Encoded | ClipError]
    failures: Failures
    seconds_preparing: float


def run_pass(
    folder: LabelledFolder,
    choices: Sequence[Choice],
    step: Callable[[int, int], None],
    kept: Collection[str] = (),
) -> PassResult:
    """Encode all images with each of the choices; the weights are freed at the end.

    Reading and encoding take turns, so that neither slows the other down while it is timed. Only
    one batch of images is in memory.

    Args:
        folder: the images.
        choices: of one group of `in_passes`.
        step: called with the number of images that are done, and of all.
        kept: files whose embeddings are kept.
    """
    try:
        return _Pass(folder, choices, kept).run(step)
    finally:
        free_memory()
        give_back()


@dataclass
class _Model:
    """A choice whose weights are in memory."""

    encoder: Encoder
    parts: CosineParts
    labels: LabelVectors
    limit: float
    kept: Collection[str]
    failures: Failures = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    bytes_per_image: int = 0
    embeddings: dict[str, Embedding] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: LabelledFolder, choice: Choice, kept: Collection[str]) -> _Model:
        """Read the weights and do everything that is done once."""
        encoder = new_encoder(choice.settings)
        version = version_of(choice.settings, encoder, folder.config, choice.table)
        encoder.load()
        (control,) = version.config.controls
        labels = version.label_embeddings.of(control.labels)
        # The first call to a device is slow, and shows whether it has the memory.
        encoder.encode_images([Image.new("RGB", (64, 64))])
        limit = max(1.0, MOST_LOST * len(folder.names))
        return cls(encoder, CosineParts(version), labels, limit, kept)

    def encode(self, names: Sequence[str], images: Sequence[Prepared]) -> None:
        """Add a batch.

        Raises:
            ImageError: by now too many images have failed.
        """
        began = time.perf_counter()
        rows, broken = encode_batch(self.encoder, images)
        self.seconds.append((time.perf_counter() - began) / len(images))
        embeddings = {row.key: row.embedding for row in rows}
        pairs = list(zip(names, images, strict=True))
        made = [(name, embeddings[image.key]) for name, image in pairs if image.key in embeddings]
        self.parts.add([name for name, _ in made], [embedding for _, embedding in made])
        self.embeddings |= {name: embedding for name, embedding in made if name in self.kept}
        self.failures |= {name: broken[image.key] for name, image in pairs if image.key in broken}
        if len(self.failures) > self.limit:
            raise next(iter(self.failures.values()))
        for _, embedding in made[:1]:
            self.bytes_per_image = embedding.nbytes

    def encoded(self) -> Encoded:
        """What was measured."""
        seconds = statistics.median(self.seconds) if self.seconds else 0.0
        return Encoded(
            self.parts.joined(),
            self.failures,
            seconds,
            self.bytes_per_image,
            self.labels,
            self.embeddings,
        )


class _Pass:
    def __init__(
        self, folder: LabelledFolder, choices: Sequence[Choice], kept: Collection[str]
    ) -> None:
        self._folder = folder
        self._settings = choices[0].settings
        self._models: list[_Model | ClipError] = []
        for choice in choices:
            try:
                self._models.append(_Model.of(folder, choice, kept))
            except Exception as error:
                self._models.append(as_clip_error(error))
        self._failures: Failures = {}
        self._seconds: list[float] = []

    def run(self, step: Callable[[int, int], None]) -> PassResult:
        """See `run_pass`."""
        names = self._folder.names
        models = [model for model in self._models if isinstance(model, _Model)]
        if models:
            size = max(model.encoder.batch_size for model in models)
            files = FolderFiles(self._settings.max_image_bytes)
            preparer = Preparer(self._settings, models[0].encoder, files)
            try:
                for start in range(0, len(names), size):
                    step(start, len(names))
                    self._take(preparer, names[start : start + size])
            finally:
                preparer.close()
            step(len(names), len(names))
        outcomes = [
            model.encoded() if isinstance(model, _Model) else model for model in self._models
        ]
        seconds = statistics.median(self._seconds) if self._seconds else 0.0
        return PassResult(outcomes, self._failures, seconds)

    def _take(self, preparer: Preparer, batch: Sequence[str]) -> None:
        began = time.perf_counter()
        addresses = [self._folder.address(name) for name in batch]
        jobs = [preparer.submit(address, address) for address in addresses]
        ready: list[tuple[str, Prepared]] = []
        for name, job in zip(batch, jobs, strict=True):
            try:
                ready.append((name, job.result()))
            except Exception as error:
                self._failures[name] = as_image_error(error)
        self._seconds.append((time.perf_counter() - began) / len(batch))
        if not ready:
            return
        for place, model in enumerate(self._models):
            if isinstance(model, _Model):
                try:
                    model.encode([name for name, _ in ready], [image for _, image in ready])
                except Exception as error:
                    self._models[place] = as_clip_error(error)
