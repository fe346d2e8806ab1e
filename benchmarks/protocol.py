"""The experiments of benchmarks/spml.py. Each returns the rows of a table.

They follow `backend.evaluation.protocol`; the measures of pseudo-labels read test labels, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from backend.encoders.table import OFFLINE
from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import (
    REVIEWED,
    SEEDS,
    Row,
    Scene,
    final_map,
    naive,
    observe,
    softmax_scores,
    spread,
)
from backend.vlpl import pseudo_labels, selection, training
from backend.vlpl.correction import correct
from backend.vlpl.decisions import POSITIVE
from backend.vlpl.fitting import POSITIVES_FROM
from backend.vlpl.head import Head
from backend.vlpl.metrics import bootstrap_interval
from backend.vlpl.pseudo_labels import Rule
from backend.vlpl.training import OBJECTIVES, Objective, Training
from benchmarks.presets import PAPER, RELEASED, Preset, Score, quality

SCRATCH = ("scratch", "scikit-learn")
TABLE = OFFLINE
"""Where the zero-shot probability comes from; the photos are embedded with the offline encoder."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3)
FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
"""The values that VLPL's released code lists for its two constants, and a fraction of 0.6."""


def training_of(scene: Scene, codes: Tensor, scratch: bool = False) -> Training:
    """Prepare a fit on the training rows with an observed label; ``scratch``: without an anchor."""
    rows = (codes.abs() == POSITIVE).any(1)
    known, index = codes[rows], scene.train[rows]
    assert scene.data.image is not None
    a0, b0 = TABLE.with_statistics.slope, TABLE.with_statistics.offset
    reviewed = training.reviewed_rows(known)
    if int((known[reviewed] == POSITIVE).sum()) >= POSITIVES_FROM:
        corrected = correct(scene.z[index][reviewed], known[reviewed] == POSITIVE, TABLE.prior)
        a0, b0 = corrected.slope, corrected.offset
    z = scene.z[index]
    if scratch:
        z, a0, b0 = torch.zeros_like(z), 0.0, 0.0
    return Training.of(scene.data.image[index], z, known, a0=a0, b0=b0)


def objective(name: str) -> Objective:
    """The training objective of that name; raises KeyError for another name."""
    return {candidate.name: candidate for candidate in OBJECTIVES}[name]


def head_of(scene: Scene, codes: Tensor) -> Head:
    """Choose objective and penalty by cross-validation on the reviewed training rows, then fit."""
    prepared = training_of(scene, codes)
    return selection.fit_selected(prepared, selection.select(prepared), scene.card())


def scratch_heads(scene: Scene, codes: Tensor) -> tuple[Head, Tensor]:
    """Logistic regression without an anchor, its penalty cross-validated in the same way.

    Returns:
        Our head, and the test scores (n_test, C) of scikit-learn's one-vs-rest with that penalty.
    """
    prepared = training_of(scene, codes, scratch=True)
    chosen = selection.select(prepared)
    l2 = training.DEFAULT_L2 if chosen.l2 is None else chosen.l2
    head = training.fit(prepared, scene.card(), training.BCE, l2)
    assert scene.data.image is not None
    basis, test = prepared.basis, scene.data.image[scene.test].half().float()
    model = OneVsRestClassifier(LogisticRegression(C=1 / l2, max_iter=1000))
    truth = (prepared.labels == POSITIVE).numpy()
    with warnings.catch_warnings():
        # A label without any training positive gets the same score for all photos.
        warnings.filterwarnings("ignore", message="Label not .* is present in all training")
        model.fit(basis.x.numpy(), truth)
    rotated = (test - basis.mean) / basis.scale @ basis.rotation
    return head, torch.from_numpy(model.decision_function(rotated.numpy()))


def evaluate(scene: Scene, head: Head) -> float:
    """Test mAP of a head, in percent."""
    assert scene.data.image is not None
    return final_map(scene, head.logits(scene.data.image[scene.test], scene.z[scene.test]).float())


def small_label_sets(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP with few labels, with per-image standardisation as it stands and shrunk."""
    rows = []
    for count in (1, 2, 3, 5, 10, 20, 80):
        if count > len(data.classes):
            continue
        plain, shrunk = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            common = (data.truth.sum(0) >= 10).nonzero().squeeze(1)
            picked = common[torch.randperm(len(common), generator=generator)[:count]]
            scene = Scene.of(data.select(picked), seed)
            plain.append(final_map(scene, naive(scene)[scene.test]))
            shrunk.append(final_map(scene, scene.z[scene.test]))
        rows.append({"labels": count, "naive": spread(plain), "shrunk": spread(shrunk)})
    return rows


def pseudo_label_presets(data: Dataset, seeds: Sequence[int], reviewed: int | None) -> list[Row]:
    """Quality of each preset's pseudo-labels on the test half; `fitted` sees reviewed rows only."""
    results: dict[str, list[Row]] = {}
    for seed in seeds:
        scene = Scene.of(data, seed)
        count = len(scene.train) if reviewed is None else reviewed
        codes = observe(scene, count, single=False)[:count]
        rule = pseudo_labels.fit_threshold(scene.z[scene.train[:count]], codes)
        truth = data.truth[scene.test]
        for preset in (PAPER, RELEASED, Preset("fitted", Score.Z, rule)):
            scores = preset_scores(scene, scene.test, preset)
            pseudo = pseudo_labels.assign(scores, torch.zeros_like(truth), preset.rule)
            results.setdefault(preset.name, []).append(vars(quality(pseudo, truth)))
    return [
        {"preset": name, "splits": len(rows)}
        | {"refused": sum(row["positives_per_image"] == 0 for row in rows)}
        | {
            key: (
                float(torch.tensor([row[key] for row in rows]).nanmean()) if rows else float("nan")
            )
            for key in rows[0]
        }
        | {"worst_precision": min((row["positive_precision"] for row in rows), key=_nan_last)}
        for name, rows in results.items()
    ]


def preset_scores(scene: Scene, rows: Tensor, preset: Preset) -> Tensor:
    """The scores (n, C) of these rows that the preset's threshold is compared with."""
    if preset.score == Score.SOFTMAX:
        return softmax_scores(scene.data.whole[rows])
    return scene.z[rows]


def _nan_last(value: float) -> float:
    return 2.0 if math.isnan(value) else value


def threshold_ablation(data: Dataset, seed: int = 0) -> list[Row]:
    """The paper's ablation of threshold and negative fraction, on the pseudo-labels alone."""
    scene = Scene.of(data, seed)
    unknown = torch.zeros_like(data.truth[scene.test])
    soft = softmax_scores(data.whole[scene.test])
    truth = data.truth[scene.test]
    rows: list[Row] = []
    for rule in [Rule(threshold, 0.0) for threshold in THRESHOLDS] + [
        Rule(None, fraction) for fraction in FRACTIONS[1:]
    ]:
        pseudo = pseudo_labels.assign(soft, unknown, rule)
        positive = rule.threshold is not None
        low, high = bootstrap_interval(
            partial(_precision, sign=1 if positive else -1), pseudo, truth
        )
        rows.append(
            {"threshold": rule.threshold, "negatives": rule.negative_fraction}
            | vars(quality(pseudo, truth))
            | {"precision, 95 % interval": f"{low:.3f} to {high:.3f}"}
        )
    return rows


def _precision(pseudo: Tensor, truth: Tensor, sign: int) -> float:
    measured = quality(pseudo, truth)
    return measured.positive_precision if sign > 0 else measured.negative_precision


def learning_curve(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP by number of reviewed photos: anchored, from scratch, and scikit-learn's."""
    scenes = [Scene.of(data, seed) for seed in seeds]
    size = min(len(scene.train) for scene in scenes)
    rows: list[Row] = []
    for count in [n for n in REVIEWED if n < size] + [size]:
        if count == 0:
            zero = [final_map(scene, scene.z[scene.test]) for scene in scenes]
            rows.append({"reviewed": 0, "anchored": spread(zero)} | dict.fromkeys(SCRATCH))
            continue
        anchored, scratch, reference = [], [], []
        for scene in scenes:
            codes = observe(scene, count, single=False)
            anchored.append(evaluate(scene, head_of(scene, codes)))
            head, scores = scratch_heads(scene, codes)
            scratch.append(evaluate(scene, head))
            reference.append(final_map(scene, scores))
        columns = (anchored, scratch, reference)
        names = ("anchored", *SCRATCH)
        rows.append(
            {"reviewed": count}
            | {name: spread(part) for name, part in zip(names, columns, strict=True)}
        )
    return rows
