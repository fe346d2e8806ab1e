"""Measures suggestions on a labelled folder, with store, statistics and scores as for tasks.

The labels are read for the final measures only (and for the table, where that is asked for).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from backend.encoders.registry import get_encoder
from backend.encoders.table import Row, Table, fitted_prior, voted_row
from backend.evaluation.cosines import CosineParts, Cosines
from backend.evaluation.labelled_folder import FolderFiles, LabelledFolder
from backend.evaluation.measures import finite, measure, version_of
from backend.inference.embedder import Embedder
from backend.inference.model_version import ModelVersion
from backend.inference.versions import ModelVersions
from backend.logs import Progress
from backend.settings import Settings
from backend.storage.installations import open_store

CHUNK = 256


def evaluate(settings: Settings, path: Path, fit: bool, progress: Progress) -> dict[str, Any]:
    """Measure on a folder that holds ``images/`` and ``labels.json``.

    Args:
        settings: encoder, store, image limits.
        path: ``labels.json`` is ``{"classes": [...], "images": {file: [label, ...]}}``.
        fit: fit the encoder's probability table to these labels and keep it in the store.
        progress: called with the step, and how much of it is done.

    Returns:
        The values of `Measured`, None where one is undefined, and ``encoder``, ``images``,
        ``labels``, ``failed`` (file -> reason), ``clicks`` (`Clicks` as a dict) and its
        ``clicks_interval``.

    Raises:
        SettingsError: the folder is not of this form.
    """
    folder = LabelledFolder.read(path)
    store = open_store(settings)
    encoder = get_encoder(settings, store.vectors.has_any)
    embedder = Embedder(settings, encoder, store, FolderFiles(settings.max_image_bytes))
    versions = ModelVersions(settings, encoder, store)
    version = version_of(settings, encoder, folder.config, versions.table())
    cosines, failed = _cosines(version, embedder, folder, progress)
    if not cosines.files:
        raise folder.no_image()
    truth = folder.truth(cosines.files)
    if fit:
        version = replace(version, table=_fit_table(version, cosines, truth))
        versions.save_table(version.table)
    measured = measure(version, cosines, truth)
    return {
        "encoder": encoder.id,
        "images": len(cosines.files),
        "labels": len(folder.classes),
        **finite(measured.values),
        "clicks_interval": list(measured.clicks.interval),
        "clicks": measured.clicks.as_dict(),
        "failed": failed,
    }


def _cosines(
    version: ModelVersion, embedder: Embedder, folder: LabelledFolder, progress: Progress
) -> tuple[Cosines, dict[str, str]]:
    """Cosines of the images that can be read, and name -> reason of the others.

    Only so many are in memory at once.
    """
    names, parts = folder.names, CosineParts(version)
    failed: dict[str, str] = {}
    for start in range(0, len(names), CHUNK):
        progress("embedding images", start, len(names))
        values = {name: folder.address(name) for name in names[start : start + CHUNK]}
        embeddings, failures = embedder.embed(list(values.values()))
        failed |= {name: str(failures[v]) for name, v in values.items() if v in failures}
        present = [name for name, value in values.items() if value in embeddings]
        parts.add(present, [embeddings[values[name]] for name in present])
    progress("embedding images", len(names), len(names))
    return parts.joined(), failed


def _fit_table(version: ModelVersion, cosines: Cosines, truth: torch.Tensor) -> Table:
    """Logistic regression of the labels on z."""
    # The spread is a property of the encoder's cosines, so it comes first.
    table = replace(version.table, spread=float(cosines.whole.std(1).mean()))
    without = replace(version, table=table)
    fitted = _fit_row(cosines.with_statistics(without), cosines, truth)
    return replace(
        table,
        with_statistics=fitted,
        voted=voted_row(fitted),
        without_statistics=_fit_row(without, cosines, truth),
        prior=fitted_prior(fitted),
        labels=truth.shape[1],
        labels_per_image=float(truth.sum(1).float().mean()),
    )


def _fit_row(version: ModelVersion, cosines: Cosines, truth: torch.Tensor) -> Row:
    from sklearn.linear_model import LogisticRegression

    (control,) = version.config.controls
    z = version.fused(control, cosines.whole, cosines.best)
    model = LogisticRegression(C=1e6).fit(z.reshape(-1, 1).numpy(), truth.reshape(-1).numpy())
    return Row(float(model.coef_[0, 0]), float(model.intercept_[0]))
