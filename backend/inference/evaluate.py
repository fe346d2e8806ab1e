"""Measures suggestions on a labelled folder, with store, statistics and scores as for tasks.

The labels are read for the final measures only (and for the table, where that is asked for).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.encoders.registry import get_encoder
from backend.encoders.table import Row, Table
from backend.errors import ImageError, ImageReason, SettingsError
from backend.images.validators import FetchedFile, Validators
from backend.inference.embedder import Embedder
from backend.inference.label_embeddings import LabelEmbeddings
from backend.inference.model_version import ModelVersion
from backend.inference.versions import STATISTICS_FROM, STATISTICS_UP_TO, ModelVersions
from backend.labels.config import config_of_labels
from backend.logs import Progress
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.vlpl import metrics, zero_shot

MIN_POSITIVES = 10
CHUNK = 256


class _Files:
    """Reads ``file:PATH#SIZE-TIME`` addresses: a changed file has another address."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        path = Path(value.removeprefix("file:").rpartition("#")[0])
        try:
            if path.stat().st_size > self._max_bytes:
                raise ImageError(
                    ImageReason.TOO_LARGE, f"{path} is too large.", "LS_CLIP_MAX_IMAGE_BYTES."
                )
            return FetchedFile(path.read_bytes())
        except OSError as error:
            raise ImageError(
                ImageReason.NOT_FOUND,
                f"{path} cannot be read: {error.strerror}.",
                "Check labels.json.",
            ) from error


def evaluate(settings: Settings, folder: Path, fit: bool, progress: Progress) -> dict[str, Any]:
    """Measure on a folder that holds ``images/`` and ``labels.json``.

    Args:
        settings: encoder, store, image limits.
        folder: ``labels.json`` is ``{"classes": [...], "images": {file: [label, ...]}}``.
        fit: fit the encoder's probability table to these labels and keep it in the store.
        progress: called with the step, and how much of it is done.

    Returns:
        Percentages: ``map`` over labels with 10 positives or more, ``map_all`` over all that
        occur, precision, recall and F1 at the threshold (``micro_*``, ``macro_*``); the numbers
        ``labels_per_image`` (suggested) and ``true_labels_per_image``; ``encoder``, ``images``,
        ``labels``, ``threshold``, ``failed`` (file -> reason).

    Raises:
        SettingsError: the folder is not of this form.
    """
    classes, truth_of = _read_labels(folder)
    store = open_store(settings)
    encoder = get_encoder(settings, store.vectors.has_any)
    embedder = Embedder(settings, encoder, store, _Files(settings.max_image_bytes))
    versions = ModelVersions(settings, encoder, store)
    version = ModelVersion(
        name="",
        config=config_of_labels(classes),
        label_embeddings=LabelEmbeddings(encoder),
        table=versions.table(),
        threshold=settings.threshold,
    )
    (control,) = version.config.controls
    cosines = _cosines(version, embedder, folder, sorted(truth_of), progress)
    used = cosines.files
    if not used:
        raise SettingsError(f"No image of {folder} can be read.", "See images/ and labels.json.")
    truth = torch.tensor([[name in truth_of[file] for name in classes] for file in used])
    if fit:
        version = replace(version, table=_fit_table(version, cosines, truth))
        versions.save_table(version.table)
    if len(used) >= STATISTICS_FROM:
        version = cosines.with_statistics(version)
    z = version.fused(control, cosines.whole, cosines.best)
    probabilities = version.zero_shot_probabilities(control, z)
    chosen = probabilities >= torch.tensor(version.thresholds(control))
    threshold = version.row(control).threshold
    result: dict[str, Any] = {
        "encoder": encoder.id,
        "images": len(used),
        "labels": len(classes),
        "map": 100 * metrics.mean_average_precision(probabilities, truth, MIN_POSITIVES),
        "map_all": 100 * metrics.mean_average_precision(probabilities, truth),
        "threshold": threshold if settings.threshold is None else settings.threshold,
        "labels_per_image": float(chosen.sum(1).float().mean()),
        "true_labels_per_image": float(truth.sum(1).float().mean()),
        "failed": cosines.failed,
    }
    for kind, rates in (
        ("micro", metrics.micro(chosen, truth)),
        ("macro", metrics.macro(chosen, truth)),
    ):
        result[f"{kind}_precision"] = 100 * rates.precision
        result[f"{kind}_recall"] = 100 * rates.recall
        result[f"{kind}_f1"] = 100 * rates.f1
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in result.items()
    }


def _read_labels(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    try:
        content = json.loads((folder / "labels.json").read_text())
        classes, images = list(content["classes"]), dict(content["images"])
        words = [*classes, *(label for labels in images.values() for label in labels)]
        if not all(isinstance(word, str) for word in words) or len(set(classes)) < len(classes):
            raise ValueError("labels must be strings, and each class listed once")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{folder / 'labels.json'} cannot be used: {error}.",
            'Write {"classes": [label, ...], "images": {file: [label, ...]}}, photos in images/.',
        ) from error
    unknown = {label for labels in images.values() for label in labels} - set(classes)
    if unknown or not classes or not images:
        raise SettingsError(
            f"{folder / 'labels.json'} has no images, or labels that are not among its classes: "
            f"{', '.join(sorted(unknown)[:5])}.",
            "List every label under classes.",
        )
    return classes, images


@dataclass(frozen=True)
class _Cosines:
    """`ModelVersion.raw` of all images that can be read.

    Attributes:
        files: their names, in order.
        whole: (N, C) float32.
        best: (N, C) float32, or None for an encoder without regions.
        failed: name -> reason, of the other images.
    """

    files: list[str]
    whole: torch.Tensor
    best: torch.Tensor | None
    failed: dict[str, str]

    def with_statistics(self, version: ModelVersion) -> ModelVersion:
        """The version with statistics of these images, frozen as those of a project are."""
        (control,) = version.config.controls
        best = None if self.best is None else self.best[:STATISTICS_UP_TO]
        statistics = zero_shot.fit_statistics(self.whole[:STATISTICS_UP_TO], best)
        return replace(version, statistics={control.name: statistics})


def _cosines(
    version: ModelVersion, embedder: Embedder, folder: Path, names: list[str], progress: Progress
) -> _Cosines:
    """Embed the images and compare them with the labels; only so many are in memory at once."""
    (control,) = version.config.controls
    whole_parts, best_parts = [torch.zeros(0, len(control.labels))], []
    files: list[str] = []
    failed: dict[str, str] = {}
    for start in range(0, len(names), CHUNK):
        progress("embedding images", start, len(names))
        values = {name: _address(folder / "images" / name) for name in names[start : start + CHUNK]}
        embeddings, failures = embedder.embed(list(values.values()))
        failed |= {name: str(failures[v]) for name, v in values.items() if v in failures}
        present = [name for name, value in values.items() if value in embeddings]
        if not present:
            continue
        files += present
        whole, best = version.raw(control, [embeddings[values[name]] for name in present])
        whole_parts.append(whole)
        if best is not None:
            best_parts.append(best)
    progress("embedding images", len(names), len(names))
    best = torch.cat(best_parts) if best_parts else None
    return _Cosines(files, torch.cat(whole_parts), best, failed)


def _address(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return f"file:{path.absolute()}#missing"
    return f"file:{path.absolute()}#{stat.st_size}-{stat.st_mtime_ns}"


def _fit_table(version: ModelVersion, cosines: _Cosines, truth: torch.Tensor) -> Table:
    """Logistic regression of the labels on z, and the threshold with the best F1."""
    # The spread is a property of the encoder's cosines, so it comes first.
    table = replace(version.table, spread=float(cosines.whole.std(1).mean()))
    without = replace(version, table=table)
    return replace(
        table,
        with_statistics=_fit_row(cosines.with_statistics(without), cosines, truth),
        without_statistics=_fit_row(without, cosines, truth),
        labels=truth.shape[1],
        labels_per_image=float(truth.sum(1).float().mean()),
    )


def _fit_row(version: ModelVersion, cosines: _Cosines, truth: torch.Tensor) -> Row:
    from sklearn.linear_model import LogisticRegression

    (control,) = version.config.controls
    z = version.fused(control, cosines.whole, cosines.best)
    model = LogisticRegression(C=1e6).fit(z.reshape(-1, 1).numpy(), truth.reshape(-1).numpy())
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    probabilities = zero_shot.probabilities(z, slope, offset)
    steps = [step / 100 for step in range(5, 91)]
    threshold = max(steps, key=lambda step: metrics.micro(probabilities >= step, truth).f1)
    return Row(slope, offset, threshold)
