"""One positive per photo, and labels that the encoder cannot read."""

from __future__ import annotations

import torch

from backend.evaluation.simulated_project import Project
from benchmarks import single_positive, unreadable
from benchmarks.single_positive import WITH, WITHOUT
from tests.support.toy_dataset import COUNT, toy


def test_unreadable_labels_are_learned_from_images_alone():
    data = toy()
    assert data.image is not None
    project = Project.of_unreadable_labels(data, torch.arange(COUNT))
    assert not bool(project.z.any())
    rows = unreadable.unreadable_labels(data, seeds=(0,))
    few, many = rows[0], rows[-1]
    assert many["mAP, unreadable"]["mean"] > few["mAP, unreadable"]["mean"] + 5


def test_every_objective_is_measured_with_votes_and_without():
    rows = single_positive.single_positive(toy(), 30, seeds=(0,))
    assert {row["objective"] for row in rows} >= {"an", "vlpl, fitted", "auto"}
    assert all(row[WITH] != row[WITHOUT] for row in rows)
