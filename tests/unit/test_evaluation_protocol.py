"""Votes, the classifier of regions and small projects: no step reads a label of the test photos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backend.encoders.table import OFFLINE as TABLE
from backend.evaluation import label_sets
from backend.evaluation.dataset import Dataset
from backend.evaluation.label_sets import Photos
from backend.evaluation.protocol import Scene, observe
from backend.evaluation.simulated_project import Of, commonest_only, of_scene
from backend.vlpl import region_classifier
from tests.support.toy_dataset import toy


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
        project = of_scene(scene, bank)
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
        project = of_scene(scene, bank)
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
    assert commonest_only(codes, 4).tolist() == [[False, True, False]] * 4
    assert not bool(commonest_only(codes[1:], 4).any())
    assert not bool(commonest_only(codes[:0], 4).any())
