"""Clicks on small projects: random label sets of a data set, as if each were a project of its own.

People pay in clicks, and most projects have a handful of labels, most of whose photos have none of
them. So many sets are drawn, and for each of them the clicks with suggestions are divided by those
from nothing: on all photos, and on those with one of the labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import torch
from torch import Tensor

from backend.encoders.table import Scores, Table
from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import Row
from backend.evaluation.simulated_project import Project, commonest_only
from backend.vlpl import zero_shot
from backend.vlpl.decisions import NEGATIVE, POSITIVE
from backend.vlpl.metrics import expected_clicks

SETS = 50
SIZES = (3, 5, 10, 20, 40)
REVIEWED = (0, 15, 100)
MIN_POSITIVES = 10
"""Photos that a label must be on to be drawn."""
MIN_PHOTOS = 60
"""Fewest photos of a set's project."""
MEASURED_UP_TO = 400
"""Photos that statistics are frozen on."""


class Photos(StrEnum):
    """Which photos a project has."""

    ALL = "all"
    OWN = "own"


def label_sets(data: Dataset, table: Table, sets: int = SETS) -> list[Row]:
    """Clicks with suggestions over clicks from nothing: mean and worst of the sets.

    Half of a project's photos are reviewed in random order, as many as a row says, and the clicks
    are counted on the other half. Nothing reads labels of that half before. Sizes of more than half
    of the labels that are on `MIN_POSITIVES` photos are left out. "Commonest label only"
    is what ticking that label would cost, where more than half of the reviewed photos have it,
    after the most reviews of these.
    """
    rows: list[Row] = []
    for photos in Photos:
        for size in SIZES:
            if size > len(common_labels(data)) // 2:
                continue
            ratios: dict[int, list[float]] = {count: [] for count in REVIEWED}
            commonest: list[float] = []
            for seed, project in projects(data, size, photos, sets):
                for count, ratio in clicks_ratios(project, table, seed).items():
                    ratios[count].append(ratio)
                if project.image is not None:
                    commonest.append(commonest_ratio(project, seed))
            row: Row = {"photos": photos, "labels": size, "sets": len(ratios[0])}
            for count, values in ratios.items():
                if values:
                    row[f"{count} reviewed: mean"] = sum(values) / len(values)
                    row[f"{count} reviewed: worst"] = max(values)
            if commonest:
                row["commonest label only"] = sum(commonest) / len(commonest)
            rows.append(row)
    return rows


def common_labels(data: Dataset) -> Tensor:
    """Places of the labels that may be drawn."""
    return (data.truth.sum(0) >= MIN_POSITIVES).nonzero().squeeze(1)


def projects(data: Dataset, size: int, photos: Photos, sets: int) -> Iterator[tuple[int, Dataset]]:
    """The sets, with the seed of each; those with too few photos are left out."""
    common = common_labels(data)
    for seed in range(sets):
        generator = torch.Generator().manual_seed(seed)
        project = data.select(common[torch.randperm(len(common), generator=generator)[:size]])
        if photos == Photos.OWN:
            project = project.of_images(project.truth.any(1).nonzero().squeeze(1))
        if len(project.truth) >= MIN_PHOTOS:
            yield seed, project


def clicks_ratios(project: Dataset, table: Table, seed: int) -> dict[int, float]:
    """Clicks with suggestions over clicks from nothing, on the half that is not reviewed.

    Returns:
        Number of reviewed photos -> ratio; only of those that there are, and without embeddings,
        which nothing can be trained with, only of 0.
    """
    train, test = project.split(seed)
    truth = project.truth[test]
    measured = train[:MEASURED_UP_TO]
    statistics = zero_shot.fit_statistics(project.whole[measured], project.best[measured])
    z = zero_shot.fuse(project.whole, project.best, statistics)
    suggested: dict[int, Tensor] = {}
    if project.image is None:
        row = table.row(Scores.STANDARDISED, len(project.classes))
        p = zero_shot.probabilities(z[test], row.slope, row.offset)
        suggested[0] = p >= table.tick_from(len(project.classes))
    else:
        whole = Project.of(project, z, torch.arange(len(z)))
        for count in REVIEWED:
            if count <= len(train):
                known = project.truth[train[:count]]
                codes = torch.where(known > 0, POSITIVE, NEGATIVE)
                fitted = whole.fitted(train[:count], codes, table)
                suggested[count] = whole.probabilities(fitted.head, test) >= fitted.thresholds
    ratios = {}
    for count, chosen in suggested.items():
        with_help, from_nothing = expected_clicks(chosen, truth)
        if from_nothing:
            ratios[count] = with_help / from_nothing
    return ratios


def commonest_ratio(project: Dataset, seed: int) -> float:
    """The same where only the commonest label of the most reviewed photos is ticked."""
    train, test = project.split(seed)
    known, truth = project.truth[train[: max(REVIEWED)]], project.truth[test]
    ticked = commonest_only(torch.where(known > 0, POSITIVE, NEGATIVE), len(test))
    with_help, from_nothing = expected_clicks(ticked, truth)
    return with_help / from_nothing if from_nothing else 1.0
