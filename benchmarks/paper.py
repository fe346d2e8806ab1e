"""The paper's protocol on any folder of photos, with a head instead of a network.

As in the papers: one random positive per training photo and nothing else known; a fifth of the
training photos is held out, fully labelled, to choose by (there the epoch, here the penalty), and
is not trained on; the test set is the official one if the folder names it; mAP over all labels that
occur in it.

Unlike them: the image encoder is frozen and a linear head, anchored at its zero-shot scores, is
trained on top, where the papers fine-tune an ImageNet ResNet-50 at 448 px for ten epochs;
pseudo-labels come from that same encoder, not from CLIP ViT-L/14 at 336 px. So methods can be
compared with one another here, not with the published figures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import Row, Scene, observe
from backend.vlpl import selection, training
from backend.vlpl.decisions import POSITIVE, UNKNOWN
from backend.vlpl.metrics import bootstrap_interval, mean_average_precision
from backend.vlpl.pseudo_labels import Rule
from backend.vlpl.training import Training
from benchmarks.presets import Preset, Score
from benchmarks.protocol import FRACTIONS, TABLE, THRESHOLDS, objective
from benchmarks.single_positive import preset_codes

METHODS = ("an", "wan", "em", "em-apl", "ll-r")
VALIDATION = 5
"""One of so many training photos is held out."""


def _rows(scene: Scene) -> tuple[Tensor, Tensor]:
    """Positions in ``scene.train`` of the photos to train on, and of those held out."""
    count = len(scene.train) // VALIDATION
    return torch.arange(count, len(scene.train)), torch.arange(count)


def test_scores(scene: Scene, codes: Tensor, goal: str) -> Tensor:
    """Test logits (n_test, C) of the head whose penalty has the best mAP on the photos held out.

    Args:
        scene: the split.
        codes: (n_train, C) label codes; those of the photos held out are not read.
        goal: name of the objective.
    """
    data = scene.data
    assert data.image is not None
    rows, aside = _rows(scene)
    index, chooses = scene.train[rows], scene.train[aside]
    known = codes[rows]
    kept = (known.abs() == POSITIVE).any(1)
    row = TABLE.with_statistics
    prepared = Training.of(
        data.image[index[kept]], scene.z[index[kept]], known[kept], a0=row.slope, b0=row.offset
    )
    truth = data.truth[chooses]
    best, chosen = -1.0, None
    for l2 in selection.L2_GRID:
        head = training.fit(prepared, scene.card(), objective(goal), l2)
        value = mean_average_precision(
            head.logits(data.image[chooses], scene.z[chooses]).float(), truth
        )
        if value > best:
            best, chosen = value, head
    assert chosen is not None
    return chosen.logits(data.image[scene.test], scene.z[scene.test]).float()


def paper_protocol(data: Dataset, seed: int) -> list[Row]:
    """Every method, and VLPL over the paper's two constants; one split, so mAP has an interval."""
    scene = Scene.of(data, seed)
    truth = data.truth[scene.test]
    occurs = truth.any(0)

    def row(method: str, scores: Tensor) -> Row:
        value = mean_average_precision(scores[:, occurs], truth[:, occurs])
        low, high = bootstrap_interval(
            mean_average_precision, scores[:, occurs], truth[:, occurs], resamples=50
        )
        return {
            "method": method,
            "mAP": f"{100 * value:.1f}",
            "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
        }

    rows = [row("zero-shot", scene.z[scene.test])]
    single = observe(scene, 0, single=True)
    rows += [row(goal, test_scores(scene, single, goal)) for goal in METHODS]
    for threshold in THRESHOLDS:
        for fraction in FRACTIONS:
            name = f"vlpl, threshold {threshold:g}, negatives {fraction:g}"
            preset = Preset(name, Score.SOFTMAX, Rule(threshold, fraction))
            rows.append(row(name, test_scores(scene, preset_codes(scene, 0, preset), "vlpl")))
    full = observe(scene, len(scene.train), single=False)
    # Every label is known, as for the upper bound in the papers.
    assert bool((full != UNKNOWN).all())
    return [*rows, row("fully labelled, bce", test_scores(scene, full, "bce"))]
