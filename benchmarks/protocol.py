"""The experiments of benchmarks/spml.py. Each returns the rows of a table.

Only `final_map` and the measures of pseudo-labels read test labels. Training gets its labels from
`observe`, which reads training rows only: permuting the test labels changes no head and no
threshold.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from backend.encoders.table import OFFLINE
from backend.vlpl import pseudo_labels, selection, training, zero_shot
from backend.vlpl.correction import correct
from backend.vlpl.fitting import POSITIVES_FROM
from backend.vlpl.head import Card, Head, statistics_hash
from backend.vlpl.metrics import bootstrap_interval, mean_average_precision
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN
from backend.vlpl.pseudo_labels import Rule
from backend.vlpl.training import OBJECTIVES, Objective, Training
from benchmarks.data import Dataset
from benchmarks.presets import PAPER, RELEASED, Preset, Score, quality, softmax_scores

Row = dict[str, Any]
MIN_TEST_POSITIVES = 5
SEEDS = tuple(range(5))
CURVE = (0, 25, 50, 100, 200, 400)
SCRATCH = ("scratch", "scikit-learn")
TABLE = OFFLINE
"""Where the zero-shot probability comes from; the photos are embedded with the offline encoder."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3)
FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
"""The values that VLPL's released code lists for its two constants, and a fraction of 0.6."""


@dataclass(frozen=True)
class Scene:
    """A split of a data set, with scores whose statistics come from its training half.

    Attributes:
        data: the data set.
        seed: of the split.
        train: (n_train,) indices of the training images.
        test: (n_test,) indices of the test images.
        z: (N, C) zero-shot scores of all images.
        statistics: hash of the statistics.
    """

    data: Dataset
    seed: int
    train: Tensor
    test: Tensor
    z: Tensor
    statistics: str

    @classmethod
    def of(cls, data: Dataset, seed: int) -> Scene:
        """Split, and freeze the statistics on the training images."""
        train, test = data.split(seed)
        statistics = zero_shot.fit_statistics(data.whole[train], data.best[train])
        z = zero_shot.fuse(data.whole, data.best, statistics)
        return cls(data, seed, train, test, z, statistics_hash(statistics))

    def card(self) -> Card:
        """A card without any fit."""
        return Card(self.data.classes, self.data.encoder, self.statistics)


def final_map(scene: Scene, scores: Tensor) -> float:
    """mAP in percent of (n_test, C) scores, over the labels with enough test positives."""
    truth = scene.data.truth[scene.test]
    return 100 * mean_average_precision(scores, truth, MIN_TEST_POSITIVES)


def observe(scene: Scene, reviewed: int, single: bool) -> Tensor:
    """Label codes (n_train, C), see `objectives`.

    Args:
        scene: the split.
        reviewed: number of rows, from the first on, whose labels are all observed.
        single: whether the other rows have one random positive observed, or nothing.
    """
    truth = scene.data.truth[scene.train]
    codes = torch.full_like(truth, UNKNOWN)
    if single:
        generator = torch.Generator().manual_seed(1000 + scene.seed)
        draw = torch.rand(truth.shape, generator=generator) * truth
        has_any = truth.any(1)
        codes[has_any.nonzero().squeeze(1), draw[has_any].argmax(1)] = POSITIVE
    codes[:reviewed] = torch.where(truth[:reviewed] > 0, POSITIVE, NEGATIVE)
    return codes


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


def spread(values: Sequence[float]) -> Row:
    """Mean, standard deviation and single values, as columns of a table."""
    series = torch.tensor(list(values), dtype=torch.float64)
    return {
        "mean": float(series.mean()),
        "sd": float(series.std(correction=0)),
        "values": [round(value, 2) for value in series.tolist()],
    }


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(1, keepdim=True)


def _naive(scene: Scene) -> Tensor:
    """Both scores standardised per label, summed, standardised per image without shrinkage."""
    train, data = scene.train, scene.data
    total = torch.zeros_like(data.whole)
    for scores in (data.whole, data.best):
        total = total + (scores - scores[train].mean(0)) / scores[train].std(0).clamp_min(1e-6)
    return _centred(total) / total.std(1, keepdim=True, correction=0).clamp_min(1e-6)


VARIANTS: dict[str, Callable[[Scene], Tensor]] = {
    "cosine of the whole image": lambda s: s.data.whole,
    "the same, centred per image": lambda s: _centred(s.data.whole),
    "softmax(cos / 0.01)": lambda s: softmax_scores(s.data.whole),
    "best cell or tile, centred": lambda s: _centred(s.data.best),
    "whole + best, centred": lambda s: _centred(s.data.whole + s.data.best),
    "standardised per label and per image": _naive,
    "default: the same, shrunk": lambda s: s.z,
}


def zero_shot_variants(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP of every way to compute a zero-shot score."""
    scenes = [Scene.of(data, seed) for seed in seeds]
    return [
        {
            "variant": name,
            **spread([final_map(scene, score(scene)[scene.test]) for scene in scenes]),
        }
        for name, score in VARIANTS.items()
    ]


def small_label_sets(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP with few labels, with per-image standardisation as it stands and shrunk."""
    rows = []
    for count in (1, 2, 3, 5, 10, 20, 80):
        if count > len(data.classes):
            continue
        naive, shrunk = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            common = (data.truth.sum(0) >= 10).nonzero().squeeze(1)
            picked = common[torch.randperm(len(common), generator=generator)[:count]]
            scene = Scene.of(data.select(picked), seed)
            naive.append(final_map(scene, _naive(scene)[scene.test]))
            shrunk.append(final_map(scene, scene.z[scene.test]))
        rows.append({"labels": count, "naive": spread(naive), "shrunk": spread(shrunk)})
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
    for count in [n for n in CURVE if n < size] + [size]:
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
