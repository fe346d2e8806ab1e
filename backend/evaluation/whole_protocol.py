"""The whole protocol on one encoder: zero-shot variants, votes, reviews, and small projects."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from backend.encoders.table import Table
from backend.evaluation.choices import Choice
from backend.evaluation.dataset import Dataset
from backend.evaluation.encoding_pass import Encoded
from backend.evaluation.label_sets import label_sets
from backend.evaluation.labelled_folder import LabelledFolder
from backend.evaluation.protocol import MIN_TEST_POSITIVES, SEEDS, Row, zero_shot_variants
from backend.evaluation.simulated_project import learning_curve
from backend.inference.model_version import images_of, regions_of

log = logging.getLogger(__name__)

UP_TO = 5000
"""Images that take part, which bounds memory: their embeddings are kept."""
FROM = 100
"""Fewest images: half of them are measured on."""
SETS = 20
"""Label sets of each size; with 80 labels they take about two minutes."""


@dataclass(frozen=True)
class Section:
    """One experiment.

    Attributes:
        title: what it is about.
        note: how it was done.
        rows: of its table; empty where there are too few images or labels.
        error: why it failed; empty if it did not.
    """

    title: str
    note: str
    rows: list[Row]
    error: str = ""


@dataclass(frozen=True)
class Protocol:
    """The protocol's outcome for one choice.

    Attributes:
        label: the choice, for a person.
        name: the encoder as it was named.
        encoder: id of the encoder.
        table: ``fitted`` or ``shipped``, the zero-shot probabilities that were used.
        images: that took part.
        labels: that took part: those that the encoder can read.
        sections: the experiments.
    """

    label: str
    name: str
    encoder: str
    table: str
    images: int
    labels: int
    sections: list[Section]


def sample(names: Sequence[str]) -> frozenset[str]:
    """The images that take part: all, or `UP_TO` at random, the same each time."""
    if len(names) <= UP_TO:
        return frozenset(names)
    return frozenset(random.Random(0).sample(list(names), UP_TO))


def dataset_of(
    choice: Choice, encoded: Encoded, folder: LabelledFolder, names: Sequence[str]
) -> Dataset:
    """What the protocol computes from, without labels that the encoder cannot read.

    Args:
        choice: the encoder.
        encoded: what it has made of the images.
        folder: with the labels.
        names: files whose embeddings were kept, in the folder's order.
    """
    embeddings = [encoded.embeddings[name] for name in names]
    cosines = encoded.cosines.without(set(encoded.cosines.files) - set(names))
    regions = regions_of(embeddings)
    read = [place for place, name in enumerate(folder.classes) if name not in choice.unreadable]
    data = Dataset(
        name="",
        classes=tuple(folder.classes),
        truth=folder.truth(names).long(),
        image=images_of(embeddings).float(),
        whole=cosines.whole,
        best=cosines.whole if cosines.best is None else cosines.best,
        test=None,
        encoder=choice.encoder.id,
        labels=encoded.labels,
        regions=None if regions is None else regions.float(),
    )
    return data.select(torch.tensor(read, dtype=torch.int64))


def run_protocol(choice: Choice, data: Dataset, step: Callable[[int, int], None]) -> Protocol:
    """Run all experiments.

    Args:
        choice: the encoder.
        data: see `dataset_of`.
        step: called with the number of experiments that are done, and of all.
    """
    half = (
        f"Half of the images to review, half to measure on, {len(SEEDS)} seeds, mean ± standard "
        f"deviation. mAP in percent, over labels with {MIN_TEST_POSITIVES} test positives or more."
    )
    experiments: list[tuple[str, str, Callable[[Dataset, Table], list[Row]]]] = [
        (
            "Zero-shot",
            f"{half} Statistics from the first half.",
            lambda data, _: zero_shot_variants(data),
        ),
        (
            "What a project gains from its own images",
            f"mAP and clicks an image by number of images reviewed in random order. {half} A bank: "
            "similar images vote, none of them labelled; it needs 100 images. Commonest label "
            "only: ticking nothing but the label that most of the reviewed images have.",
            learning_curve,
        ),
        (
            "Small projects",
            f"{SETS} random label sets of each size, each as if it were a project: clicks with "
            "suggestions divided by clicks from nothing. Images: all, or its own, which have one "
            "of its labels at least. Sets: those with 60 such images or more. Commonest label "
            "only: as above, after the most reviews.",
            lambda data, table: label_sets(data, table, SETS),
        ),
    ]
    sections = []
    for number, (title, note, run) in enumerate(experiments):
        step(number, len(experiments))
        is_enough = len(data.truth) >= FROM and bool(data.classes)
        try:
            rows = run(data, choice.table) if is_enough else []
            sections.append(Section(title, note, rows))
        except Exception as error:
            # The others, and what was measured before them, have taken long.
            log.exception("%s: %s", choice.label, title)
            sections.append(Section(title, note, [], f"{type(error).__name__}: {error}"))
    step(len(experiments), len(experiments))
    table = "fitted" if choice.is_fitted else "shipped"
    return Protocol(
        choice.label,
        choice.name,
        choice.encoder.id,
        table,
        len(data.truth),
        len(data.classes),
        sections,
    )
