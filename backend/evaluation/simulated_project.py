"""What a project gains from its own images: reviews, and the votes of similar images.

The bank is either the whole project, whose images are all there before anything is reviewed, or the
training half, so that test photos are like photos that are uploaded later. Nothing of the bank is
labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from backend.encoders.table import Scores, Table
from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import (
    REVIEWED,
    SEEDS,
    Row,
    Scene,
    final_map,
    observe,
    spread,
)
from backend.inference.model_version import UNREADABLE_STRENGTH
from backend.vlpl import region_classifier
from backend.vlpl.decisions import POSITIVE
from backend.vlpl.fitting import Aim, Rows, Start, fit, fit_correction
from backend.vlpl.head import Card, Head, zero_shot_head
from backend.vlpl.metrics import expected_clicks
from backend.vlpl.neighbours import Bank, Votes


class Of(StrEnum):
    """Which images vote."""

    NOBODY = "no bank"
    PROJECT = "whole project"
    HALF = "training half"


class Suggesting(NamedTuple):
    """What suggests: a head, and the thresholds (C,) from which on it ticks."""

    head: Head
    thresholds: Tensor


@dataclass(frozen=True)
class Project:
    """A project that is simulated: all of its images with scores, and the votes on each.

    Attributes:
        data: the images.
        z: (N, C) scores, with the classifier of regions where the bank suffices.
        votes: on all N images; None: there is no bank.
    """

    data: Dataset
    z: Tensor
    votes: Votes | None

    @classmethod
    def of(cls, data: Dataset, z: Tensor, bank: Tensor | None) -> Project:
        """With a bank of these images (indices), as a run would freeze it."""
        assert data.image is not None
        frozen = None if bank is None else Bank(data.image[bank])
        if bank is None or frozen is None or frozen.strength == 0.0:
            return cls(data, z, None)
        regions, labels = data.regions, data.labels
        if regions is not None and labels is not None and len(bank) >= region_classifier.FROM:
            classifier = region_classifier.fit(data.image[bank], regions[bank], labels)
            z = classifier.added(z, data.image, regions)
        return cls(data, z, _votes(data.image, z, bank, frozen, frozen.strength))

    @classmethod
    def of_unreadable_labels(cls, data: Dataset, bank: Tensor) -> Project:
        """The same where the encoder can read none of the labels: their scores are 0."""
        assert data.image is not None
        z = torch.zeros(data.truth.shape)
        frozen = Bank(data.image[bank])
        return cls(data, z, _votes(data.image, z, bank, frozen, UNREADABLE_STRENGTH))

    @property
    def scores(self) -> Scores:
        """Which row of the table they take."""
        return Scores.STANDARDISED if self.votes is None else Scores.VOTED

    def rows(self, images: Tensor, codes: Tensor, *, is_random: bool = True) -> Rows:
        """Rows of a training on these images (indices).

        Args:
            images: (n,) indices.
            codes: (n, C) what is known of them, see `objectives`.
            is_random: whether they were reviewed in random order.
        """
        assert self.data.image is not None
        some = torch.ones(len(images), dtype=torch.bool)
        votes = None if self.votes is None else self.votes.of(images)
        image, random = self.data.image[images], some if is_random else ~some
        return Rows(image, self.z[images], codes, some.float(), ~some, random, votes)

    def fitted(
        self, images: Tensor, codes: Tensor, table: Table, *, is_random: bool = True
    ) -> Suggesting:
        """What a project makes of these reviews: nothing, a correction, or a head; see `rows`."""
        count = len(self.data.classes)
        card, aim = Card(self.data.classes, self.data.encoder, ""), Aim(table.tick_from(count))
        rows = self.rows(images, codes, is_random=is_random)
        if rows.suffice_for_head(len(images)):
            made = fit(rows, card, _start(table, Scores.STANDARDISED), aim)
            return Suggesting(made.head, made.thresholds)
        corrected = fit_correction(rows, card, _start(table, self.scores), aim)
        if corrected is not None:
            return Suggesting(corrected.head, corrected.thresholds)
        row = table.row(self.scores, count)
        head = zero_shot_head(card, rows.image.shape[1], row.slope, row.offset)
        return Suggesting(head, torch.full((count,), aim.threshold, dtype=torch.float64))

    def probabilities(self, head: Head, images: Tensor) -> Tensor:
        """Probabilities (n, C) of these images (indices) by a head, after the votes."""
        rows = self.rows(images, torch.zeros_like(self.z[images], dtype=torch.int64))
        return rows.probabilities(head, torch.ones(len(images), dtype=torch.bool))


def _votes(image: Tensor, z: Tensor, bank: Tensor, frozen: Bank, strength: float) -> Votes:
    per_label = torch.full((z.shape[1],), strength, dtype=torch.float64)
    return Votes(frozen.neighbours(image), image[bank], z[bank], per_label)


def _start(table: Table, scores: Scores) -> Start:
    row = table.row(scores, table.labels)
    return Start(row.slope, row.offset, table.prior_of(scores, table.labels))


def of_scene(scene: Scene, bank: Of) -> Project:
    """The scene as a project."""
    images = {Of.NOBODY: None, Of.PROJECT: torch.arange(len(scene.z)), Of.HALF: scene.train}[bank]
    return Project.of(scene.data, scene.z, images)


def learning_curve(data: Dataset, table: Table, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP and clicks by number of reviewed images, with each bank, as a project does it.

    Args:
        data: with embeddings.
        table: zero-shot probabilities of its encoder.
        seeds: of the splits.
    """
    scenes = [Scene.of(data, seed) for seed in seeds]
    projects = {bank: [of_scene(scene, bank) for scene in scenes] for bank in Of}
    size = min(len(scene.train) for scene in scenes)
    rows: list[Row] = []
    for count in [count for count in REVIEWED if count <= size]:
        row: Row = {"reviewed": count}
        for bank in Of:
            measured = [
                _measured(scene, project, count, table)
                for scene, project in zip(scenes, projects[bank], strict=True)
            ]
            row[f"mAP, {bank}"] = spread([one[0] for one in measured])
            row[f"clicks, {bank}"] = sum(one[1] for one in measured) / len(measured)
        row["clicks, commonest label only"] = sum(
            _commonest_clicks(scene, count) for scene in scenes
        ) / len(scenes)
        row["clicks from nothing"] = sum(_nothing(scene) for scene in scenes) / len(scenes)
        rows.append(row)
    return rows


def commonest_only(codes: Tensor, images: int) -> Tensor:
    """Ticking nothing but the commonest label, if most of the reviewed images have it.

    Args:
        codes: (n, C) of the reviewed images.
        images: number N of other images.

    Returns:
        (N, C) boolean.
    """
    ticked = torch.zeros((images, codes.shape[1]), dtype=torch.bool)
    positives = (codes == POSITIVE).sum(0)
    ticked[:, positives.argmax()] = 2 * int(positives.max()) > len(codes)
    return ticked


def _measured(scene: Scene, project: Project, count: int, table: Table) -> tuple[float, float]:
    codes = observe(scene, count, single=False)[:count]
    fitted = project.fitted(scene.train[:count], codes, table)
    p = project.probabilities(fitted.head, scene.test)
    clicks, _ = expected_clicks(p >= fitted.thresholds, scene.data.truth[scene.test])
    return final_map(scene, p), clicks


def _commonest_clicks(scene: Scene, count: int) -> float:
    ticked = commonest_only(observe(scene, count, single=False)[:count], len(scene.test))
    return expected_clicks(ticked, scene.data.truth[scene.test])[0]


def _nothing(scene: Scene) -> float:
    return float(scene.data.truth[scene.test].sum(1).double().mean())
