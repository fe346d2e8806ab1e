"""Measure suggestions on a labelled folder, on the path that tasks take: store, statistics, scores.

The labels are read for the final measures only (and for the table, where that is asked for).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as RichTable

from backend.encoders.label_texts import label_embeddings, label_texts
from backend.encoders.registry import get_encoder
from backend.encoders.table import Row, Table
from backend.errors import ImageError, ImageReason, SettingsError
from backend.inference.embedder import Embedder
from backend.inference.versions import STATISTICS_FROM, STATISTICS_UP_TO, ModelVersions
from backend.settings import Settings
from backend.storage.store import Store
from backend.vlpl import metrics, zero_shot

Progress = Callable[[str, int, int], None]
MIN_POSITIVES = 10
CHUNK = 256


class _Files:
    """Reads ``file:PATH#SIZE-TIME`` addresses: a changed file has another address."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def fetch(self, value: str) -> bytes:
        path = Path(value.removeprefix("file:").rpartition("#")[0])
        try:
            if path.stat().st_size > self._max_bytes:
                raise ImageError(
                    ImageReason.TOO_LARGE, f"{path} is too large.", "LS_CLIP_MAX_IMAGE_BYTES."
                )
            return path.read_bytes()
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
        progress: told how far it is.

    Returns:
        Percentages: ``map`` over labels with 10 positives or more, ``map_all`` over all that
        occur, precision, recall and F1 at the threshold (``micro_*``, ``macro_*``); the numbers
        ``labels_per_image`` (suggested) and ``true_labels_per_image``; ``encoder``, ``images``,
        ``labels``, ``threshold``, ``failed`` (file -> reason).

    Raises:
        SettingsError: the folder is not of this form.
    """
    classes, truth_of = _read_labels(folder)
    encoder = get_encoder(settings)
    store = Store(settings.store_uri)
    embedder = Embedder(settings, encoder, store, _Files(settings.max_image_bytes))
    versions = ModelVersions(settings, encoder, store)
    names = sorted(truth_of)
    text = torch.from_numpy(
        label_embeddings(encoder, [label_texts(encoder, name) for name in classes])
    )
    whole, best, used, failed = _scores(embedder, folder, names, text, progress)
    if not used:
        raise SettingsError(f"No image of {folder} can be read.", "See images/ and labels.json.")
    truth = torch.tensor([[name in truth_of[file] for name in classes] for file in used])
    table = versions.table()
    if fit:
        table = _fit_table(whole, best, truth, table)
        versions.save_table(table)
    enough = len(used) >= STATISTICS_FROM
    row = table.row(enough, len(classes))
    z = _fuse(whole, best, table, enough)
    threshold = row.threshold if settings.threshold is None else settings.threshold
    probabilities = zero_shot.probabilities(z, row.slope, row.offset)
    chosen = probabilities >= threshold
    result: dict[str, Any] = {
        "encoder": encoder.id,
        "images": len(used),
        "labels": len(classes),
        "map": 100 * metrics.mean_average_precision(probabilities, truth, MIN_POSITIVES),
        "map_all": 100 * metrics.mean_average_precision(probabilities, truth),
        "threshold": threshold,
        "labels_per_image": float(chosen.sum(1).float().mean()),
        "true_labels_per_image": float(truth.sum(1).float().mean()),
        "failed": failed,
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


def print_evaluation(result: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = RichTable("measure", "value", title=f"{result['images']} images, {result['encoder']}")
    for key, value in result.items():
        if isinstance(value, float):
            table.add_row(key, f"{value:.2f}")
    console.print(table)
    for file, reason in list(result["failed"].items())[:10]:
        console.print(f"{file}: {reason}", markup=False)


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


def _scores(
    embedder: Embedder, folder: Path, names: list[str], text: torch.Tensor, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor | None, list[str], dict[str, str]]:
    whole_parts, best_parts = [], []
    used: list[str] = []
    failed: dict[str, str] = {}
    for start in range(0, len(names), CHUNK):
        progress("embedding images", start, len(names))
        values = {name: _address(folder / "images" / name) for name in names[start : start + CHUNK]}
        embeddings, failures = embedder.embed(list(values.values()))
        failed |= {name: str(failures[v]) for name, v in values.items() if v in failures}
        present = [name for name, value in values.items() if value in embeddings]
        if not present:
            continue
        used += present
        rows = [embeddings[values[name]] for name in present]
        regions = [row.regions for row in rows if row.regions is not None]
        whole, best = zero_shot.raw_scores(
            torch.from_numpy(np.stack([row.image for row in rows])),
            torch.from_numpy(np.stack(regions)) if regions else None,
            text,
        )
        whole_parts.append(whole)
        if best is not None:
            best_parts.append(best)
    progress("embedding images", len(names), len(names))
    if not used:
        return torch.zeros(0, len(text)), None, [], failed
    return torch.cat(whole_parts), torch.cat(best_parts) if best_parts else None, used, failed


def _address(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return f"file:{path.absolute()}#missing"
    return f"file:{path.absolute()}#{stat.st_size}-{stat.st_mtime_ns}"


def _fuse(
    whole: torch.Tensor, best: torch.Tensor | None, table: Table, with_statistics: bool
) -> torch.Tensor:
    statistics = None
    if with_statistics:
        first = None if best is None else best[:STATISTICS_UP_TO]
        statistics = zero_shot.fit_statistics(whole[:STATISTICS_UP_TO], first)
    return zero_shot.fuse(whole, best, statistics, table.spread)


def _fit_table(
    whole: torch.Tensor, best: torch.Tensor | None, truth: torch.Tensor, table: Table
) -> Table:
    """Logistic regression of the labels on z, and the threshold with the best F1."""
    # The spread is a property of the encoder's cosines, so it comes first.
    table = replace(table, spread=float(whole.std(1).mean()))
    return replace(
        table,
        with_statistics=_fit_row(_fuse(whole, best, table, True), truth),
        without_statistics=_fit_row(_fuse(whole, best, table, False), truth),
        labels=truth.shape[1],
        labels_per_image=float(truth.sum(1).float().mean()),
    )


def _fit_row(z: torch.Tensor, truth: torch.Tensor) -> Row:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(z.reshape(-1, 1).numpy(), truth.reshape(-1).numpy())
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    probabilities = zero_shot.probabilities(z, slope, offset)
    steps = [step / 100 for step in range(5, 91)]
    threshold = max(steps, key=lambda step: metrics.micro(probabilities >= step, truth).f1)
    return Row(slope, offset, threshold)
