"""The benchmark's own honesty: test labels reach nothing but the final metric."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import normalize

from backend.cli import markdown
from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import Scene, final_map, observe, spread
from backend.vlpl import pseudo_labels
from benchmarks import paper, protocol, single_positive, zero_shot_table


def _dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    image = normalize(torch.randn(160, 16, generator=generator), dim=1)
    signal = image @ torch.randn(16, 5, generator=generator)
    truth = (signal > 0.9).long()
    noise = torch.randn(160, 5, generator=generator)
    whole = 0.2 + 0.02 * (signal + noise)
    names = tuple("abcde")
    return Dataset("toy", names, truth, image, whole, whole + 0.01, None, "toy-encoder")


def _artifacts(data: Dataset, seed: int) -> list[object]:
    scene = Scene.of(data, seed)
    full = observe(scene, 60, single=False)
    single = single_positive.fitted_codes(scene, 30)
    fitted = pseudo_labels.fit_threshold(scene.z[scene.train], full)
    return [
        protocol.head_of(scene, full).to_bytes(),
        protocol.scratch_heads(scene, full)[0].to_bytes(),
        protocol.head_of(scene, single).to_bytes(),
        fitted,
        single.tolist(),
    ]


def test_permuting_the_test_labels_leaves_every_head_identical() -> None:
    data = _dataset()
    _, test = data.split(3)
    shuffled = data.truth.clone()
    shuffled[test] = data.truth[test][torch.randperm(len(test))]
    assert not torch.equal(shuffled, data.truth)
    changed = replace(data, truth=shuffled)
    assert _artifacts(data, 3) == _artifacts(changed, 3)
    scene, other = Scene.of(data, 3), Scene.of(changed, 3)
    assert final_map(scene, scene.z[test]) != final_map(other, scene.z[test])


def test_statistics_come_from_training_images_only() -> None:
    data = _dataset()
    train, test = data.split(0)
    whole = data.whole.clone()
    whole[test] += 1.0
    moved = Scene.of(replace(data, whole=whole), 0)
    assert torch.equal(moved.z[train], Scene.of(data, 0).z[train])


def test_a_single_positive_is_a_true_one_and_the_only_one() -> None:
    data = _dataset()
    scene = Scene.of(data, 1)
    codes = observe(scene, 10, single=True)
    truth = data.truth[scene.train]
    assert bool((codes[10:].sum(1) == truth[10:].any(1).long()).all())
    assert bool((truth[codes == 1] == 1).all())
    assert bool((codes[:10].abs() == 1).all())


def test_an_official_test_set_is_kept() -> None:
    data = replace(_dataset(), test=torch.tensor([3, 5, 8]))
    train, test = data.split(0)
    assert test.tolist() == [3, 5, 8]
    assert len(train) == 157 and not set(train.tolist()) & {3, 5, 8}


def test_tables_show_spreads_and_gaps() -> None:
    rows = [{"name": "a", **spread([1.0, 3.0])}, {"name": "b", "mean": 2.0, "sd": 0.0}]
    text = markdown.table(rows)
    assert "| a | 2.0 ± 1.0 |" in text and "| name | mAP |" in text
    assert markdown.cell(float("nan")) == "–" and markdown.cell(None) == "–"


def test_the_papers_protocol_runs_on_any_dataset() -> None:
    rows = paper.paper_protocol(_dataset(), seed=0)
    grid = len(protocol.THRESHOLDS) * len(protocol.FRACTIONS)
    assert len(rows) == 1 + len(paper.METHODS) + grid + 1
    assert all(0 < float(row["mAP"]) <= 100 for row in rows)


def test_the_papers_protocol_trains_on_single_positives_only() -> None:
    """What is known about the photos held out reaches the choice of the penalty, not the fit."""
    data = _dataset()
    scene = Scene.of(data, 2)
    codes = observe(scene, 0, single=True)
    rows, aside = paper._rows(scene)
    assert not set(rows.tolist()) & set(aside.tolist())
    changed = codes.clone()
    changed[aside] = -1
    assert torch.equal(
        paper.test_scores(scene, codes, "an"), paper.test_scores(scene, changed, "an")
    )


def test_scikit_learns_reference_solves_the_same_problem() -> None:
    scene = Scene.of(_dataset(), 0)
    head, scores = protocol.scratch_heads(scene, observe(scene, 80, single=False))
    assert scene.data.image is not None
    ours = head.logits(scene.data.image[scene.test], scene.z[scene.test])
    for label in range(5):
        pair = torch.stack([ours[:, label], scores[:, label].double()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.97


def test_the_rows_shipped_for_clip_are_fitted_as_the_script_says() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 3, generator=generator)
    truth = (torch.rand(4000, 3, generator=generator) < torch.sigmoid(1.5 * z - 2)).long()
    slope, offset = zero_shot_table.row(z, truth)
    assert abs(slope - 1.5) < 0.1 and abs(offset + 2) < 0.1
