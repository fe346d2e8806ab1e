"""Freezes how the confidences of a version's tasks are spread, once, when there are enough tasks.

Blind tasks get a random confidence out of that spread (`backend.inference.holdout`), so that a
project's order does not tell them from the others. It is a part of the version: the same version
gives the same score, live or in bulk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.inference.embedder import Embedder
from backend.inference.frozen_statistics import FROM, UP_TO
from backend.inference.model_version import ModelVersion
from backend.inference.predictor import Predictor
from backend.inference.versions import ModelVersions
from backend.vlpl.confidences import Confidences


def freeze_confidences(
    versions: ModelVersions,
    version: ModelVersion,
    tasks: Sequence[Mapping[str, Any]],
    embedder: Embedder,
) -> bool:
    """Measure the confidences of a project's first tasks, unless the version has them already.

    Afterwards `ModelVersions.get` gives another version, which has them.

    Args:
        versions: of this process.
        version: whose confidences; with frozen statistics where there can be any.
        tasks: the project's first tasks; their images should be in the store by now.
        embedder: gets embeddings from the store.

    Returns:
        Whether the version needs none, or they are in the store now.

    Raises:
        StoreError: the store cannot be read or written.
    """
    if version.is_settled:
        return True
    # What a blind task would have counts like any other.
    open_eyed = Predictor(replace(version, blind_share=0.0), embedder)
    confidences = [
        prediction.score
        for prediction in open_eyed.predict_stored(tasks[:UP_TO])
        if prediction.score is not None and prediction.failure is None
    ]
    if len(confidences) < FROM:
        return False
    versions.save_confidences(version, Confidences.of(confidences))
    return True
