"""What suggestions are worth: mAP, precision, recall, and the clicks that they save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from backend.encoders.base import Encoder
from backend.encoders.table import Table
from backend.evaluation.cosines import Cosines
from backend.inference.frozen_statistics import FROM as STATISTICS_FROM
from backend.inference.label_embeddings import LabelEmbeddings
from backend.inference.model_version import ModelVersion
from backend.labels.config import LabelConfig
from backend.settings import Settings
from backend.vlpl import metrics
from backend.vlpl.clicks import Clicks, harmless_threshold, task_clicks

MIN_POSITIVES = 10
"""Images that a label must be on to count in ``map``: the average precision of fewer is chance."""


@dataclass(frozen=True)
class Measured:
    """The outcome of `measure`.

    Attributes:
        values: name -> value. Percentages: ``map`` over labels with `MIN_POSITIVES` images or more,
            ``map_all`` over all that occur, precision, recall and F1 of what is ticked
            (``micro_*``, ``macro_*``). Numbers an image: ``labels_per_image`` (ticked),
            ``true_labels_per_image``, ``clicks_per_image`` (labels to add and to remove) and
            ``clicks_from_nothing`` (labels to add where none is ticked). NaN where undefined.
        probabilities: (N, C) float32.
        clicks: with their intervals.
    """

    values: dict[str, float]
    probabilities: torch.Tensor
    clicks: Clicks


def version_of(
    settings: Settings, encoder: Encoder, config: LabelConfig, table: Table
) -> ModelVersion:
    """A version of no project: zero-shot, without statistics."""
    return ModelVersion(
        name="",
        config=config,
        label_embeddings=LabelEmbeddings(encoder),
        table=table,
        threshold=settings.threshold,
    )


def measure(version: ModelVersion, cosines: Cosines, truth: torch.Tensor) -> Measured:
    """Score images as tasks are scored, and compare with the truth.

    Args:
        version: without statistics; they are made from these images where those suffice.
        cosines: of N images.
        truth: (N, C) boolean.
    """
    if len(cosines.files) >= STATISTICS_FROM:
        version = cosines.with_statistics(version)
    (control,) = version.config.controls
    z = version.fused(control, cosines.whole, cosines.best)
    probabilities = version.zero_shot_probabilities(control, z)
    chosen = probabilities >= torch.tensor(version.thresholds(control))
    threshold = (
        version.table.tick_from(len(control.labels))
        if version.threshold is None
        else version.threshold
    )
    clicks = _clicks(probabilities, chosen, truth)
    values = {
        "map": 100 * metrics.mean_average_precision(probabilities, truth, MIN_POSITIVES),
        "map_all": 100 * metrics.mean_average_precision(probabilities, truth),
        "threshold": threshold,
        "labels_per_image": float(chosen.sum(1).float().mean()),
        "true_labels_per_image": float(truth.sum(1).float().mean()),
        "clicks_per_image": clicks.per_task,
        "clicks_from_nothing": clicks.from_nothing,
    }
    for kind, rates in (
        ("micro", metrics.micro(chosen, truth)),
        ("macro", metrics.macro(chosen, truth)),
    ):
        values[f"{kind}_precision"] = 100 * rates.precision
        values[f"{kind}_recall"] = 100 * rates.recall
        values[f"{kind}_f1"] = 100 * rates.f1
    return Measured(values, probabilities, clicks)


def _clicks(probabilities: torch.Tensor, chosen: torch.Tensor, truth: torch.Tensor) -> Clicks:
    present = truth.bool().numpy()
    clicks = Clicks.of(
        task_clicks(chosen.numpy(), present), task_clicks(np.zeros_like(present), present)
    )
    assert clicks is not None, "there are images"

    def at(threshold: float) -> float:
        return float(task_clicks((probabilities >= threshold).numpy(), present).mean())

    return replace(clicks, threshold=harmless_threshold(clicks, at))


def finite(value: Any) -> Any:
    """For JSON, which has no NaN: the same with None in its place, however deep."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
