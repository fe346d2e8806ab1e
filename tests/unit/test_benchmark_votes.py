"""Votes, the classifier of regions and small projects: no step reads a label of the test photos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backend.vlpl import region_classifier, zero_shot
from benchmarks import label_sets, single_positive, unreadable, votes
from benchmarks.data import Dataset
from benchmarks.label_sets import Photos
from benchmarks.protocol import TABLE, Scene, observe
from benchmarks.single_positive import WITH, WITHOUT
from benchmarks.votes import Of

COUNT, DIM, LABELS = 240, 24, 6


def toy() -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    truth = (torch.rand(COUNT, LABELS, generator=generator) < 0.3).long()
    looks = random(LABELS, DIM)
    regions = random(COUNT, 9, DIM) + (truth.float() @ looks)[:, None]
    image = torch.nn.functional.normalize(regions.mean(1), dim=1).half().float()
    regions = torch.nn.functional.normalize(regions, dim=2)
    labels = zero_shot.label_vectors(torch.nn.functional.normalize(looks + random(6, DIM), dim=1))
    whole, best = zero_shot.raw_scores(image, regions, labels)
    assert best is not None
    names = tuple("abcdef")
    return Dataset("toy", names, truth, image, whole, best, None, "toy", labels, regions)


@pytest.mark.parametrize("bank", Of)
def test_permuting_the_test_labels_leaves_every_project_identical(
    bank: Of, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(region_classifier, "FROM", 100)
    data = toy()
    _, test = data.split(3)
    shuffled = data.truth.clone()
    shuffled[test] = data.truth[test][torch.randperm(len(test))]
    assert not torch.equal(shuffled, data.truth)

    def made(given: Dataset) -> list[object]:
        scene = Scene.of(given, 3)
        project = votes.of_scene(scene, bank)
        found: list[object] = [project.z.tolist()]
        for count in (0, 8, 60):
            codes = observe(scene, count, single=False)[:count]
            fitted = project.fitted(scene.train[:count], codes, TABLE)
            found += [fitted.head.to_bytes(), fitted.thresholds.tolist()]
            found.append(project.probabilities(fitted.head, test).tolist())
        return found

    assert made(data) == made(replace(data, truth=shuffled))


def test_a_bank_changes_scores_and_a_bank_of_the_project_more_than_half_of_it():
    scene = Scene.of(toy(), 0)
    codes = observe(scene, 60, single=False)[:60]
    probabilities = {}
    for bank in Of:
        project = votes.of_scene(scene, bank)
        fitted = project.fitted(scene.train[:60], codes, TABLE)
        probabilities[bank] = project.probabilities(fitted.head, scene.test)
    assert not torch.equal(probabilities[Of.NOBODY], probabilities[Of.HALF])
    assert not torch.equal(probabilities[Of.HALF], probabilities[Of.PROJECT])


def test_small_projects_are_drawn_alike_each_time_and_their_own_photos_have_a_label():
    data = toy()
    drawn = [
        [project.classes for _, project in label_sets.projects(data, 2, Photos.ALL, 5)]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 1
    for _, project in label_sets.projects(data, 2, Photos.OWN, 5):
        assert bool(project.truth.any(1).all())


def test_clicks_of_a_small_project_are_those_of_photos_that_were_not_reviewed():
    data = toy()
    ratios = label_sets.clicks_ratios(data, TABLE, seed=1)
    assert set(ratios) == {0, 15, 100}
    train, _ = data.split(1)
    later = data.truth.clone()
    later[train[100:]] = 0
    assert label_sets.clicks_ratios(replace(data, truth=later), TABLE, seed=1) == ratios
    assert set(label_sets.clicks_ratios(replace(data, image=None), TABLE, seed=1)) == {0}


def test_of_the_reviewed_photos_labels_only_one_that_most_have_is_ticked():
    codes = torch.tensor([[1, 1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert votes.commonest_only(codes, 4).tolist() == [[False, True, False]] * 4
    assert not bool(votes.commonest_only(codes[1:], 4).any())
    assert not bool(votes.commonest_only(codes[:0], 4).any())


def test_unreadable_labels_are_learned_from_images_alone():
    data = toy()
    assert data.image is not None
    project = votes.Project.of_unreadable_labels(data, torch.arange(COUNT))
    assert not bool(project.z.any())
    rows = unreadable.unreadable_labels(data, seeds=(0,))
    few, many = rows[0], rows[-1]
    assert many["mAP, unreadable"]["mean"] > few["mAP, unreadable"]["mean"] + 5


def test_every_objective_is_measured_with_votes_and_without():
    rows = single_positive.single_positive(toy(), 30, seeds=(0,))
    assert {row["objective"] for row in rows} >= {"an", "vlpl, fitted", "auto"}
    assert all(row[WITH] != row[WITHOUT] for row in rows)
