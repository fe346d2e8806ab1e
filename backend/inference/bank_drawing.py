"""Draws the bank of images that vote on a project's images, and draws it again when it has grown.

A bank is drawn from all images of the project that are in the store, whether anybody has labelled
them or not, and is frozen: it is a part of the version. `jobs.publish` calls this while nothing
else gives the project a version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from backend.encoders.base import Encoder
from backend.inference.model_version import ModelVersion, images_of, regions_of
from backend.inference.versions import ModelVersions
from backend.labels.controls import Control
from backend.storage.banks import StoredBank
from backend.storage.prediction_log import PredictionLog
from backend.storage.store import Store
from backend.storage.tables import chunks
from backend.storage.vectors import Embedding
from backend.vlpl import region_classifier
from backend.vlpl.neighbours import MAX_BANK, WEAK_FROM
from backend.vlpl.zero_shot import LabelVectors

GROWTH = 1.5
"""A bank is drawn again when the project has so many times as many images as it was drawn from."""
CHUNK = 1000


def draw_banks(versions: ModelVersions, version: ModelVersion, log: PredictionLog) -> bool:
    """Draw the banks that are missing, or that their project has outgrown.

    Afterwards `ModelVersions.get` gives another version.

    Args:
        versions: of this process.
        version: the project's, with frozen statistics where there can be any.
        log: knows the project's images.

    Returns:
        Whether one was drawn.

    Raises:
        StoreError: the store cannot be read or written.
    """
    controls = [
        control for control in version.config.controls if control.name in version.statistics
    ]
    store, drawn = versions.store, False
    addresses = log.addresses(version.project) if controls else set()
    if len(addresses) < WEAK_FROM:
        return False

    def there() -> set[str]:
        # An image that several tasks have votes once.
        return set(store.vectors.keys_of(log.addresses(version.project)).values())

    # The order is that of a hash of their content.
    keys = sorted(there())
    for control in controls:
        record = versions.bank(control, version.project)
        if record is not None and len(keys) < GROWTH * record.drawn_from:
            continue
        bank = _drawn(store, version, control, keys[:MAX_BANK])
        if bank is not None:
            versions.save_bank(control, version.project, bank, len(keys), there)
            drawn = True
    return drawn


def _drawn(
    store: Store, version: ModelVersion, control: Control, keys: Sequence[str]
) -> StoredBank | None:
    """A bank of these images; None if fewer than `WEAK_FROM` of them are embedded."""
    first: dict[str, Embedding] = {}
    rest = _distinct(_embedded(store, version.encoder, keys))
    for key, embedding in rest:
        first[key] = embedding
        if len(first) == region_classifier.UP_TO:
            break
    if len(first) < WEAK_FROM:
        return None
    classifier = None
    if len(first) >= region_classifier.FROM:
        embeddings = list(first.values())
        regions = regions_of(embeddings)
        if regions is not None:
            labels = _texts(version, control)
            classifier = region_classifier.fit(images_of(embeddings).float(), regions, labels)
    names: list[str] = []
    images: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for part in chunks((*first.items(), *rest), CHUNK):
        embeddings = [embedding for _, embedding in part]
        image, regions = images_of(embeddings), regions_of(embeddings)
        z = version.fused(control, *version.raw(control, embeddings))
        if classifier is not None and regions is not None:
            z = classifier.added(z, image, regions)
        names += [key for key, _ in part]
        images.append(image)
        scores.append(z.half())
    return StoredBank(tuple(names), torch.cat(images), torch.cat(scores), classifier)


def _texts(version: ModelVersion, control: Control) -> LabelVectors:
    """The labels' texts; of length 0 for those that the encoder cannot read."""
    labels = version.label_embeddings.of(control.labels)
    unreadable = list(version.unreadable(control))
    weights, norms = labels.weights.clone(), labels.norms.clone()
    weights[unreadable], norms[unreadable] = 0.0, 0.0
    return LabelVectors(weights, norms)


def _embedded(
    store: Store, encoder: Encoder, keys: Sequence[str]
) -> Iterator[tuple[str, Embedding]]:
    for part in chunks(keys, CHUNK):
        found = store.vectors.embeddings(encoder.id, encoder.dim, part)
        yield from ((key, found[key]) for key in part if key in found)


def _distinct(embedded: Iterator[tuple[str, Embedding]]) -> Iterator[tuple[str, Embedding]]:
    """Without images that have the embedding of another one: they would vote for each other."""
    seen: set[bytes] = set()
    for key, embedding in embedded:
        content = embedding.image.tobytes()
        if content not in seen:
            seen.add(content)
            yield key, embedding
