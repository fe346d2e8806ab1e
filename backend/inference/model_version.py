"""One model version: from embeddings to probabilities and thresholds.

A version is encoder, frozen statistics, heads (or the zero-shot table), thresholds and labels, and
its name carries a hash of them all: same version, same scores, to the byte.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from backend.encoders.base import Encoder
from backend.encoders.table import Row, Scores, Table
from backend.inference.bank_cache import BankCache, LoadedBank
from backend.inference.label_embeddings import LabelEmbeddings, is_unreadable
from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.messages.catalogue import Language
from backend.messages.message import Message
from backend.storage import region_codes
from backend.storage.head_set import FittedControl
from backend.storage.vectors import Embedding
from backend.vlpl import exact, zero_shot
from backend.vlpl.calibration import NEVER
from backend.vlpl.confidences import Confidences
from backend.vlpl.head import Card, zero_shot_head
from backend.vlpl.neighbours import Votes
from backend.vlpl.zero_shot import Statistics

UNREADABLE_STRENGTH = 1.0
"""Strength of the votes on a label that the encoder cannot read, see `neighbours`."""
ZERO_SHOT_SOURCE = Message("zero-shot, not calibrated yet")
"""`ModelVersion.source` of a version without heads."""


@dataclass(frozen=True, eq=False)
class ModelVersion:
    """All that decides the predictions of one project; immutable. Built by `ModelVersions.get`.

    Its methods take controls of ``config``, or those controls with a task's own labels. They load
    the encoder's text tower when a control's labels are first seen.

    Attributes:
        name: what Label Studio calls ``model_version``; empty for a version of no project.
        config: the labeling config.
        label_embeddings: embeddings of the labels, shared by all versions of an encoder.
        table: zero-shot probabilities and thresholds of controls without a head.
        statistics: control name -> frozen statistics, where there are any.
        banks: control name -> digest of the bank of images that vote, where there is one.
        bank_cache: loads these banks.
        heads: control name -> head and thresholds.
        learned: control name -> labels that its head knows from enough reviewed images.
        threshold: the setting that replaces fitted thresholds, in [0, 1]; None: none does.
        project: ``<id>.<unix time of creation>``, or empty.
        known_field: the task-data field with labels known beforehand, or empty.
        blind_share: share of tasks, in [0, 1], that are shown without suggestions.
        content: a hash of all that decides the scores of tasks that are not blind.
        confidences: how the project's confidences are spread, for the scores of blind tasks; None
            until they are frozen.
        source: where the probabilities come from, for a person.
        language: of what stands beside a prediction.
    """

    name: str
    config: LabelConfig
    label_embeddings: LabelEmbeddings
    table: Table
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    banks: Mapping[str, str] = field(default_factory=dict)
    bank_cache: BankCache | None = None
    heads: Mapping[str, FittedControl] = field(default_factory=dict)
    learned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threshold: float | None = None
    project: str = ""
    known_field: str = ""
    blind_share: float = 0.0
    content: str = ""
    confidences: Confidences | None = None
    source: str = ZERO_SHOT_SOURCE
    language: Language = Language.ENGLISH
    _limits: dict[str, tuple[list[float], frozenset[int]]] = field(
        default_factory=dict, init=False, repr=False
    )
    _unreadable: dict[str, frozenset[int]] = field(default_factory=dict, init=False, repr=False)

    @property
    def encoder(self) -> Encoder:
        """The encoder whose embeddings this version scores."""
        return self.label_embeddings.encoder

    @property
    def is_settled(self) -> bool:
        """Whether `freeze_confidences` has nothing left to measure, so that the version stays."""
        return self.confidences is not None or not self.blind_share or not self.project

    def raw(
        self, control: Control, embeddings: Sequence[Embedding], deadline: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cosines (N, C) of whole images and of their best regions, see `zero_shot.raw_scores`.

        Raises:
            LabelsLateError: see `LabelEmbeddings.of`.
        """
        return raw_scores(self.label_embeddings, control, embeddings, deadline)

    def z(
        self, control: Control, embeddings: Sequence[Embedding], deadline: float | None = None
    ) -> torch.Tensor:
        """Zero-shot scores (N, C) float32, see `zero_shot.fuse` and `region_classifier`.

        Raises:
            LabelsLateError: see `LabelEmbeddings.of`.
            StoreError: the control's bank cannot be read.
        """
        z = self.fused(control, *self.raw(control, embeddings, deadline))
        bank = self.bank(control)
        if bank is None or bank.classifier is None:
            return z
        regions = regions_of(embeddings)
        assert regions is not None
        return bank.classifier.added(z, images_of(embeddings), regions)

    def bank(self, control: Control) -> LoadedBank | None:
        """The images that vote on a control's scores; None for none.

        Raises:
            StoreError: the bank cannot be read.
        """
        digest = self.banks.get(control.name)
        if digest is None or self.bank_cache is None:
            return None
        return self.bank_cache.get(self.project, digest)

    def votes(self, control: Control, images: torch.Tensor) -> Votes | None:
        """The votes of similar images on (N, D) embeddings; None where there is no bank.

        Raises:
            StoreError: the bank cannot be read.
        """
        bank = self.bank(control)
        if bank is None:
            return None
        neighbours = bank.bank.neighbours(images)
        return Votes(neighbours, bank.image, bank.z, self._strength(control, bank))

    def _strength(self, control: Control, bank: LoadedBank) -> torch.Tensor:
        strength = torch.full((len(control.labels),), bank.bank.strength, dtype=torch.float64)
        if bank.bank.strength:
            # Of a label without a text, similar images tell relatively more.
            strength[list(self.unreadable(control))] = UNREADABLE_STRENGTH
        return strength

    def fused(
        self, control: Control, whole: torch.Tensor, best: torch.Tensor | None
    ) -> torch.Tensor:
        """Zero-shot scores (N, C) float32 from the cosines that `raw` gives.

        The cosines of labels that the encoder cannot read mean nothing: their score is 0.
        """
        statistics, unreadable = self.statistics.get(control.name), self.unreadable(control)
        if not unreadable:
            return zero_shot.fuse(whole, best, statistics, self.table.spread)
        read = [place for place in range(whole.shape[1]) if place not in unreadable]
        z = torch.zeros(whole.shape)
        z[:, read] = zero_shot.fuse(
            whole[:, read],
            None if best is None else best[:, read],
            None if statistics is None else statistics.of(read),
            self.table.spread,
        )
        return z

    def zero_shot_probabilities(self, control: Control, z: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, C) of scores from `z`, by the table alone."""
        row = self.row(control)
        return zero_shot.probabilities(z, row.slope, row.offset)

    def probabilities(
        self, control: Control, embeddings: Sequence[Embedding], deadline: float | None = None
    ) -> NDArray[np.float32]:
        """Probabilities (N, C) of a control's labels.

        Args:
            control: see the class.
            embeddings: of N images.
            deadline: for the embeddings of labels that are new, see `LabelEmbeddings.of`.

        Raises:
            LabelsLateError: see `LabelEmbeddings.of`.
            StoreError: the control's bank cannot be read.
        """
        z, images = self.z(control, embeddings, deadline), images_of(embeddings)
        score = partial(self._logits, control)
        logits, bank = score(images, z), self.bank(control)
        if bank is not None:
            head = self.heads.get(control.name)
            scored_by = str(self.row(control)) if head is None else head.digest
            voters = bank.logits(scored_by, score)
            neighbours = bank.bank.neighbours(images)
            logits = neighbours.vote(logits, voters, self._strength(control, bank))
        probabilities: NDArray[np.float32] = exact.sigmoid(logits).float().numpy()
        return probabilities

    def _logits(self, control: Control, images: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Logits (N, C) float64 before any votes."""
        if control.name in self.heads:
            return self.heads[control.name].head.logits(images, z)
        row = self.row(control)
        return row.slope * z.double() + row.offset

    def thresholds(self, control: Control) -> list[float]:
        """Per label: suggest from this probability on.

        The labeling config goes before the setting, and that before what was fitted. A label that
        the text tower cannot read and no head has learned is never suggested, unless the labeling
        config gives that very label a threshold.
        """
        thresholds = [self.table.tick_from(len(control.labels))] * len(control.labels)
        if control.name in self.heads:
            thresholds = list(self.heads[control.name].thresholds)
        if self.threshold is not None:
            thresholds = [self.threshold] * len(thresholds)
        if control.threshold is not None:
            thresholds = [control.threshold] * len(thresholds)
        for place in self.unlearned(control):
            thresholds[place] = NEVER
        return [
            default if label.threshold is None else label.threshold
            for label, default in zip(control.labels, thresholds, strict=True)
        ]

    def unlearned(self, control: Control) -> frozenset[int]:
        """Places of the labels that the encoder cannot read, and that the head has not learned."""
        learned = self.learned.get(control.name, ())
        return frozenset(
            place for place in self.unreadable(control) if control.labels[place].key not in learned
        )

    def unreadable(self, control: Control) -> frozenset[int]:
        """Places of the labels that the encoder cannot read, learned or not.

        For controls of ``config`` they are computed once.
        """
        known = self._unreadable.get(control.name) if self._is_own(control) else None
        if known is None:
            known = frozenset(
                place
                for place, label in enumerate(control.labels)
                if is_unreadable(self.encoder, label)
            )
            if self._is_own(control):
                self._unreadable[control.name] = known
        return known

    def limits(self, control: Control) -> tuple[list[float], frozenset[int]]:
        """`thresholds` and `unlearned`; for controls of ``config`` they are computed once."""
        if not self._is_own(control):
            return self.thresholds(control), self.unlearned(control)
        if control.name not in self._limits:
            self._limits[control.name] = self.thresholds(control), self.unlearned(control)
        return self._limits[control.name]

    def scores(self, control: Control) -> Scores:
        """How a control's scores are made."""
        return scores_of(control.name, self.statistics, self.banks)

    def _is_own(self, control: Control) -> bool:
        """Whether it is one of ``config``, with the labels that it has there."""
        return any(control is own for own in self.config.controls)

    def row(self, control: Control) -> Row:
        """The table's row for a control."""
        return self.table.row(self.scores(control), len(control.labels), control.required)

    def head(self, control: Control) -> FittedControl:
        """The control's head; the zero-shot one where it has none."""
        if control.name in self.heads:
            return self.heads[control.name]
        row = self.row(control)
        card = Card(tuple(label.key for label in control.labels), self.encoder.id, "")
        head = zero_shot_head(card, self.encoder.dim, row.slope, row.offset)
        return FittedControl(head, tuple(self.thresholds(control)))


def raw_scores(
    label_embeddings: LabelEmbeddings,
    control: Control,
    embeddings: Sequence[Embedding],
    deadline: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cosines (N, C) of whole images and of their best regions with a control's labels.

    The second is None for an encoder without regions. See `zero_shot.raw_scores`.

    Raises:
        LabelsLateError: see `LabelEmbeddings.of`.
    """
    labels = label_embeddings.of(control.labels, deadline)
    return zero_shot.raw_scores(images_of(embeddings), regions_of(embeddings), labels)


def scores_of(control: str, statistics: Container[str], banks: Container[str]) -> Scores:
    """How scores are made for a control with this name."""
    if control in banks:
        return Scores.VOTED
    return Scores.STANDARDISED if control in statistics else Scores.BARE


def images_of(embeddings: Sequence[Embedding]) -> torch.Tensor:
    """Embeddings (N, D) float16 of whole images."""
    return torch.from_numpy(np.stack([embedding.image for embedding in embeddings]))


def regions_of(embeddings: Sequence[Embedding]) -> torch.Tensor | None:
    """Embeddings (N, 9, D) of regions; None for an encoder without regions."""
    codes = [embedding.regions for embedding in embeddings if embedding.regions is not None]
    return torch.from_numpy(region_codes.decode(np.stack(codes))) if codes else None
