"""From embeddings to probabilities: what one version is made of, and what it gives an image.

A version is encoder, frozen statistics, heads (or the zero-shot table), thresholds and labels, and
its name carries a hash of them all: same version, same scores, to the byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from backend.encoders.base import Encoder
from backend.encoders.label_texts import label_embeddings, label_texts, unreadable_labels
from backend.encoders.table import Row, Table, shipped_table
from backend.errors import StoreError
from backend.labels.config import LabelConfig
from backend.labels.controls import Control, Label
from backend.settings import Settings
from backend.storage.artifacts import safe_name
from backend.storage.head_registry import ZERO_SHOT, FittedControl, HeadRegistry, HeadSet
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from backend.storage.vectors import Embedding
from backend.vlpl import zero_shot
from backend.vlpl.calibration import NEVER
from backend.vlpl.head import Card, zero_shot_head
from backend.vlpl.zero_shot import Statistics

log = logging.getLogger(__name__)

METHOD = 3
"""Part of every version; raised when the same inputs would give other scores than before."""

LEARNED_FROM = 5
"""Reviewed images with a label from which a head knows it, though the encoder cannot read it."""


@dataclass(frozen=True)
class Scorer:
    """All that one version is made of.

    Attributes:
        config: the labeling config.
        statistics: control name -> frozen statistics, where there are any.
        table: probabilities of controls without a head.
        model_version: its name.
        heads: control name -> head and thresholds.
        learned: control name -> labels of which its head has seen `LEARNED_FROM` images.
        project: ``<id>.<unix time of creation>``, or empty.
        known_field: the task-data field with labels known beforehand, or empty.
        blind_share: of tasks that are shown without suggestions.
        source: where the probabilities come from, for a person.
    """

    config: LabelConfig
    statistics: dict[str, Statistics]
    table: Table
    model_version: str
    heads: Mapping[str, FittedControl] = field(default_factory=dict)
    learned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    project: str = ""
    known_field: str = ""
    blind_share: float = 0.0
    source: str = "zero-shot, not calibrated yet"


class Scoring:
    """See the module. Thread-safe.

    Args:
        settings: of this process.
        encoder: images and texts to embeddings.
        store: where statistics, tables and heads live.
    """

    def __init__(self, settings: Settings, encoder: Encoder, store: Store) -> None:
        self.settings = settings
        self.encoder = encoder
        self.store = store
        self.heads = HeadRegistry(store)
        self._texts: dict[tuple[tuple[str, ...], ...], torch.Tensor] = {}
        self._lock = threading.Lock()
        self._encoder_digest = hashlib.sha256(encoder.id.encode()).hexdigest()[:12]

    def scorer(self, config: LabelConfig, project: str, head: str | None = None) -> Scorer:
        """What predicts for this config in this project; loads no model.

        Args:
            config: the project's labeling config.
            project: ``<id>.<unix time of creation>``, as Label Studio writes it.
            head: name of a set of heads, or `heads.ZERO_SHOT`; None: the one that serves.

        Raises:
            StoreError: the store cannot be read, or has no such set.
        """
        content = {}
        for control in config.controls:
            found = self.store.artifacts.read(self.statistics_name(control, project))
            if found is not None:
                content[control.name] = found
        try:
            statistics = {name: Statistics.from_dict(data) for name, data in content.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise damaged("statistics", error) from error
        table = self.table()
        name = self.heads.serving(project) if head is None else head
        fitted = self._head_set(project, name)
        heads: dict[str, FittedControl] = {}
        learned: dict[str, frozenset[str]] = {}
        if fitted is not None:
            for control in config.controls:
                if control.name in fitted.controls and control.options_field is None:
                    row = table.row(control.name in statistics, len(control.labels))
                    counts = fitted.controls[control.name].head.card.counts
                    learned[control.name] = frozenset(
                        label for label, count in counts.items() if count >= LEARNED_FROM
                    )
                    heads[control.name] = fitted.controls[control.name].for_labels(
                        [label.key for label in control.labels],
                        row.slope,
                        row.offset,
                        row.threshold,
                    )
        known_field = ProjectState(self.store, project).known_field()
        parts = [
            METHOD,
            self.encoder.id,
            self.encoder.templates,
            config.digest,
            content,
            table.as_dict(),
            self.settings.threshold,
            self.settings.blind_share,
            known_field,
            {control: one.digest for control, one in heads.items()},
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        short = "z" if fitted is None else fitted.name
        return Scorer(
            config,
            statistics,
            table,
            f"{self.encoder.short}-{short}-{digest}",
            heads,
            learned,
            project,
            known_field,
            self.settings.blind_share,
            "zero-shot, not calibrated yet"
            if not heads or fitted is None
            else f"trained on {fitted.approvals} reviewed tasks",
        )

    def table(self) -> Table:
        """The encoder's probability table: fitted here if someone did, else the shipped one."""
        fitted = self.store.artifacts.read(f"tables/{self._encoder_digest}")
        try:
            return shipped_table(self.encoder.short) if fitted is None else Table.from_dict(fitted)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged("table", error) from error

    def save_table(self, table: Table) -> None:
        """Make this the encoder's table; versions change with it.

        Raises:
            StoreError: the store cannot be written.
        """
        self.store.artifacts.write(f"tables/{self._encoder_digest}", table.as_dict(), replace=True)

    def head(self, scorer: Scorer, control: Control, dim: int) -> FittedControl:
        """The control's head; the zero-shot one, with the table's threshold, where it has none."""
        if control.name in scorer.heads:
            return scorer.heads[control.name]
        row = self.row(scorer, control)
        labels = tuple(label.key for label in control.labels)
        card = Card(labels, self.encoder.id, "")
        head = zero_shot_head(card, dim, row.slope, row.offset)
        thresholds = self.thresholds(scorer, control, self.unread(scorer, control))
        return FittedControl(head, tuple(thresholds))

    def z(self, scorer: Scorer, control: Control, embeddings: Sequence[Embedding]) -> torch.Tensor:
        """Zero-shot scores (N, C) float32, see `zero_shot.fuse`."""
        whole, best = self.raw(embeddings, control)
        return zero_shot.fuse(whole, best, scorer.statistics.get(control.name), scorer.table.spread)

    def probabilities(
        self, scorer: Scorer, control: Control, embeddings: Sequence[Embedding]
    ) -> NDArray[np.float32]:
        """Probabilities (N, C) of a control's labels."""
        z = self.z(scorer, control, embeddings)
        found: NDArray[np.float32]
        if control.name in scorer.heads:
            images = torch.from_numpy(np.stack([one.image for one in embeddings]))
            found = scorer.heads[control.name].head.probabilities(images, z).numpy()
        else:
            row = self.row(scorer, control)
            found = zero_shot.probabilities(z, row.slope, row.offset).numpy()
        return found

    def thresholds(self, scorer: Scorer, control: Control, unread: frozenset[int]) -> list[float]:
        """Per label: suggest from this probability on.

        The labeling config goes before the setting, and that before what was fitted. A label that
        the text tower cannot read and no head has learned is never suggested, unless the labeling
        config gives that very label a threshold.

        Args:
            scorer: from `scorer`.
            control: of the scorer's config.
            unread: from `unread`.
        """
        fitted = [self.row(scorer, control).threshold] * len(control.labels)
        if control.name in scorer.heads:
            fitted = list(scorer.heads[control.name].thresholds)
        if self.settings.threshold is not None:
            fitted = [self.settings.threshold] * len(fitted)
        if control.threshold is not None:
            fitted = [control.threshold] * len(fitted)
        for place in unread:
            fitted[place] = NEVER
        return [
            default if label.threshold is None else label.threshold
            for label, default in zip(control.labels, fitted, strict=True)
        ]

    def unread(self, scorer: Scorer, control: Control) -> frozenset[int]:
        """Places of the labels that the encoder cannot read, and that the head has not learned."""
        learned = scorer.learned.get(control.name, ())
        return frozenset(
            place
            for place, label in enumerate(control.labels)
            if label.key not in learned and is_unread(self.encoder, label)
        )

    def row(self, scorer: Scorer, control: Control) -> Row:
        """The table's row for a control."""
        return scorer.table.row(control.name in scorer.statistics, len(control.labels))

    def raw(
        self, embeddings: Sequence[Embedding], control: Control
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cosines of whole image and best region, see `zero_shot.raw_scores`."""
        images = torch.from_numpy(np.stack([one.image for one in embeddings]))
        regions = None
        if self.encoder.regions != "none":
            regions = torch.from_numpy(
                np.stack([one.regions for one in embeddings if one.regions is not None])
            )
        return zero_shot.raw_scores(images, regions, self._text(control))

    def statistics_name(self, control: Control, project: str) -> str:
        """Where a control's frozen statistics lie in the store."""
        content = json.dumps([METHOD, self.encoder.templates, asdict(control)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        return f"statistics/{safe_name(project)}/{self._encoder_digest}-{digest}"

    def _head_set(self, project: str, name: str) -> HeadSet | None:
        """The set of heads; None for zero-shot, and where it was made for another encoder."""
        if name == ZERO_SHOT:
            return None
        found = self.heads.get(project, name)
        if found.encoder != self.encoder.id:
            log.warning("head %s of project %s is for another encoder", name, project[:20])
            return None
        return found

    def _text(self, control: Control) -> torch.Tensor:
        prompts = tuple(
            tuple(label_texts(self.encoder, label.text, label.prompts)) for label in control.labels
        )
        with self._lock:
            if prompts in self._texts:
                return self._texts[prompts]
        # Without the lock: thousands of labels take seconds, and others need not wait for them.
        found = torch.from_numpy(label_embeddings(self.encoder, prompts))
        with self._lock:
            if len(self._texts) > 256:
                self._texts.clear()
            return self._texts.setdefault(prompts, found)


def is_unread(encoder: Encoder, label: Label) -> bool:
    """Whether the text tower can read none of a label's texts."""
    texts = label.prompts or (label.text,)
    return len(unreadable_labels(encoder, texts)) == len(texts)


def unread_labels(encoder: Encoder, config: LabelConfig) -> list[str]:
    """Labels of the config that the text tower cannot read."""
    return [
        label.key
        for control in config.controls
        for label in control.labels
        if is_unread(encoder, label)
    ]


def damaged(what: str, error: Exception) -> StoreError:
    """The error for a file of the store that does not hold what it should."""
    return StoreError(
        f"A {what} file of the store is damaged ({type(error).__name__}: {error}).",
        "Delete the folders statistics and tables under LS_CLIP_STORE; connect makes them again.",
    )
