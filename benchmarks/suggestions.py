"""What an annotator would see: calibrated probabilities, thresholds, bands and clicks.

A part of benchmarks/spml.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import SEEDS, Row, Scene, observe
from backend.vlpl import selection
from backend.vlpl.correction import AS_IT_IS, correct
from backend.vlpl.decisions import POSITIVE, UNKNOWN
from backend.vlpl.metrics import expected_calibration_error, expected_clicks, micro
from benchmarks.bands import Bands, conformal_threshold, fit_bands
from benchmarks.protocol import training_of

CASES = ((100, 0), (400, 0), (400, 100))
"""Numbers of reviewed photos, and of those among them that are held out for the maybe band."""


def suggestion_quality(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Calibration and thresholds fitted on held-out folds of the training rows, used on test rows.

    The goal is precision 0.9 for suggested labels, and a maybe band such that at most a tenth of
    the true labels is missed in expectation (conformal). The guarantee of the band needs photos
    that neither head nor calibration was fitted on, so it is also measured with some held out.
    ``narrowest`` is the number of shown labels at the highest threshold that misses a tenth on the
    test photos themselves: no single threshold could do better with this head.
    """
    assert data.image is not None
    rows: list[Row] = []
    for count, aside in CASES:
        seen: dict[str, list[float]] = {}
        for seed in seeds:
            for name, value in _measure(Scene.of(data, seed), count, aside).items():
                seen.setdefault(name, []).append(value)
        rows.append(
            {"reviewed": count, "held out": aside or "folds"}
            | {name: sum(part) / len(part) for name, part in seen.items()}
        )
    return rows


def _measure(scene: Scene, count: int, aside: int) -> dict[str, float]:
    """One row of the table, for one split."""
    data = scene.data
    assert data.image is not None
    codes = observe(scene, count, single=False)
    kept = codes[count - aside : count] == POSITIVE
    codes[count - aside :] = UNKNOWN
    prepared = training_of(scene, codes)
    chosen = selection.select(prepared)
    truth = prepared.labels[chosen.rows] == POSITIVE
    scale = correct(chosen.held_out, truth, AS_IT_IS)
    held_out = torch.sigmoid(chosen.held_out * scale.slope + scale.offset)
    bands = fit_bands(held_out, truth)
    head = selection.fit_selected(prepared, chosen, scene.card())
    final = head.rescaled(scale.slope, scale.offset)
    if aside:
        index = scene.train[count - aside : count]
        fresh = final.probabilities(data.image[index], scene.z[index])
        maybe_from = conformal_threshold(fresh, kept)
        bands = Bands(bands.suggest, bands.suggest.clamp_max(maybe_from))
    image, z = data.image[scene.test], scene.z[scene.test]
    raw, calibrated = head.probabilities(image, z), final.probabilities(image, z)
    suggested, maybe = bands.of(calibrated)
    test = data.truth[scene.test]
    rates = micro(suggested, test)
    with_help, from_nothing = expected_clicks(suggested, test)
    # The highest threshold that misses a tenth of an image's true labels, known in hindsight.
    steps = calibrated.flatten().sort().values[:: calibrated.numel() // 500]
    within = [float(step) for step in steps if _missed(calibrated >= step, test) <= 0.1]
    narrowest = (calibrated >= within[-1]).sum(1).double().mean()
    return {
        "ECE before": expected_calibration_error(raw, test),
        "ECE after": expected_calibration_error(calibrated, test),
        "precision": rates.precision,
        "recall": rates.recall,
        "missed in both bands": _missed(suggested | maybe, test),
        "shown labels per image": float((suggested | maybe).sum(1).double().mean()),
        "narrowest": float(narrowest),
        "clicks": with_help,
        "clicks from nothing": from_nothing,
    }


def _missed(shown: Tensor, truth: Tensor) -> float:
    """Mean over images of the share of true labels not shown; 0 for an image without any."""
    recall = (shown & truth.bool()).sum(1) / truth.sum(1).clamp_min(1)
    return float((1 - recall)[truth.any(1)].sum() / len(truth))
