"""Trains a project's heads: pulls what people approved, fits, compares with the serving heads.

Knows no queue, so that it works with and without workers. Nothing here changes what annotators see;
an accepted head is put into use by a refresh (`jobs.publish`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import torch

from backend.encoders.table import tick_from
from backend.inference.embedder import Embedder
from backend.inference.holdout import is_audit
from backend.inference.model_version import ModelVersion
from backend.inference.task_images import image_of
from backend.inference.versions import ModelVersions
from backend.labels.controls import Control
from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from backend.storage.head_registry import FittedControl, HeadSet
from backend.storage.tables import chunks
from backend.training.approvals import REVIEWED, Approval, provenance_counts
from backend.training.pulling import Pulled, pull
from backend.vlpl.fitting import (
    HEAD_FROM,
    POSITIVES_FROM,
    Aim,
    Fitted,
    Rows,
    Start,
    fit,
    fit_correction,
)
from backend.vlpl.head import Card, Provenance, row_weights, statistics_hash
from backend.vlpl.judge import Verdict, judge
from backend.vlpl.objectives import POSITIVE

log = logging.getLogger(__name__)

MIN_APPROVALS = 5
"""Fewer reviewed tasks than this change nothing."""
CHUNK = 1000
"""Tasks whose embeddings are read at once."""


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        made: the set of heads, kept in the store; None if there were too few approvals.
        reason: why it may serve, may not, or was not made.
        notes: remarks for a person, one sentence each.
    """

    made: HeadSet | None
    reason: str
    notes: tuple[str, ...] = field(default=())


class HeadTrainer:
    """See the module.

    Args:
        settings: of this process.
        studio: the Label Studio.
        versions: the model versions of all projects.
        embedder: gets embeddings of images.
    """

    def __init__(
        self,
        settings: Settings,
        studio: LabelStudioClient,
        versions: ModelVersions,
        embedder: Embedder,
    ) -> None:
        self._settings = settings
        self._studio = studio
        self._versions = versions
        self._embedder = embedder

    def pull(self, number: int) -> Pulled:
        """Ask Label Studio for everything that was approved in a project.

        Raises:
            LabelConfigError: the labeling config has no control that can be predicted.
            StudioError: Label Studio cannot be asked.
            StoreError: the store cannot be read.
        """
        return pull(self._studio, self._versions.store, number, self._settings.blind_share)

    def made_from(self, pulled: Pulled) -> str:
        """A hash of everything that heads are made from: equal hashes give equal heads."""
        settings, encoder = self._settings, self._versions.encoder
        parts = [
            encoder.id,
            encoder.templates,
            pulled.config.digest,
            settings.goal,
            settings.goal_target,
            settings.audit_share,
            {
                name: [(item.task, item.states, item.provenance) for item in items]
                for name, items in pulled.approvals.items()
            },
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def train(self, pulled: Pulled) -> Trained:
        """Fit a candidate for every control, and write it to the store with the judge's verdict.

        Returns:
            With ``made`` None if no control has enough approvals.

        Raises:
            StoreError: the store cannot be read or written.
        """
        reviewed = len(pulled.reviewed)
        if reviewed < MIN_APPROVALS:
            missing = MIN_APPROVALS - reviewed
            reason = f"Reviewed tasks: {reviewed}; at least {missing} more are needed."
            return Trained(None, reason)
        version = self._versions.get(pulled.config, pulled.key)
        serving = self._versions.heads.serving(pulled.key)
        # What cannot be trained now, or is not accepted, leaves the control's head as it is.
        controls = dict(version.heads)
        verdicts: dict[str, Verdict] = {}
        notes: list[str] = []
        for control in pulled.config.controls:
            reviews = pulled.approvals.get(control.name)
            candidate = self._train_control(version, control, pulled) if reviews else None
            if candidate is None:
                continue
            fitted, verdict, remarks = candidate
            notes += remarks
            verdicts[control.name] = verdict
            if verdict.accepted:
                controls[control.name] = fitted
        if not verdicts:
            reason = (
                f"Reviewed tasks: {reviewed}. A control's head needs {HEAD_FROM} whose images can "
                f"be had, with {POSITIVES_FROM} labels on them, and not all of them blind or audit "
                f"tasks; {POSITIVES_FROM} labels on random tasks correct the probabilities."
            )
            return Trained(None, reason)
        accepted = any(verdict.accepted for verdict in verdicts.values())
        several = len(verdicts) > 1
        reason = "; ".join(
            f"{name}: {verdict.reason}" if several else verdict.reason
            for name, verdict in verdicts.items()
        )
        metrics = {
            f"{name} {metric}" if several else metric: value
            for name, verdict in verdicts.items()
            for metric, value in verdict.metrics.items()
        }
        everything = [item for items in pulled.approvals.values() for item in items]
        head_set = HeadSet(
            self._versions.heads.next_name(pulled.key),
            controls,
            datetime.now(UTC).isoformat(timespec="seconds"),
            self._versions.encoder.id,
            reviewed,
            provenance_counts(everything),
            accepted,
            f"compared with {serving}: {reason}",
            metrics,
        )
        self._versions.heads.save(pulled.key, head_set)
        log.info("project %s: %s made (%s): %s", pulled.key, head_set.name, accepted, reason)
        return Trained(head_set, head_set.reason, tuple(notes))

    def _train_control(
        self, version: ModelVersion, control: Control, pulled: Pulled
    ) -> tuple[FittedControl, Verdict, tuple[str, ...]] | None:
        approvals = pulled.approvals[control.name]
        rows, reviewed = self._rows(version, control, pulled, approvals)
        if rows is None:
            return None
        labels = tuple(label.key for label in control.labels)
        row = version.row(control)
        card = Card(
            labels,
            self._versions.encoder.id,
            statistics_hash(version.statistics.get(control.name)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        aim = Aim(tick_from(len(labels)), self._settings.goal, self._settings.goal_target)
        prior = version.table.prior_of(version.scores(control), len(labels), control.required)
        made = _fitted(rows, reviewed, card, Start(row.slope, row.offset, prior), aim)
        if made is None:
            return None
        audited = rows.audited
        serving = version.head(control)
        verdict = judge(
            made.head.probabilities(rows.image[audited], rows.z[audited]),
            serving.head.probabilities(rows.image[audited], rows.z[audited]),
            rows.labels[audited],
            labels,
        )
        looked_at = any(item.provenance in REVIEWED for item in approvals)
        unsure = not made.head.card.table or control.name in version.heads or not looked_at
        if not verdict.measured and unsure:
            reason = "neither a randomly chosen nor enough reviewed tasks to judge it by"
            verdict = replace(verdict, accepted=False, reason=reason)
        return FittedControl(made.head, tuple(made.thresholds.tolist())), verdict, made.notes

    def _rows(
        self, version: ModelVersion, control: Control, pulled: Pulled, approvals: Sequence[Approval]
    ) -> tuple[Rows | None, int]:
        """The rows whose images can be had, if any, and how many of them people approved."""
        images: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        kept: list[Approval] = []
        for part in chunks(approvals, CHUNK):
            values = [
                image_of(control, {"id": item.task, "data": pulled.data[item.task]})
                for item in part
            ]
            by_value, failures = self._embedder.embed(
                list({value for value in values if value is not None})
            )
            if failures:
                log.warning("project %s: %d images are left out", pulled.key, len(failures))
            embedded = [
                (item, by_value[value])
                for item, value in zip(part, values, strict=True)
                if value is not None and value in by_value
            ]
            if embedded:
                embeddings = [embedding for _, embedding in embedded]
                kept += [item for item, _ in embedded]
                whole = np.stack([embedding.image for embedding in embeddings])
                images.append(torch.from_numpy(whole).float())
                scores.append(version.z(control, embeddings))
        if not kept:
            return None, 0
        share = self._settings.audit_share
        judged = [
            item.provenance == Provenance.BLIND
            or (item.provenance in REVIEWED and is_audit(pulled.key, item.task, share))
            for item in kept
        ]
        rows = Rows(
            torch.cat(images),
            torch.cat(scores),
            torch.tensor([item.states for item in kept]),
            row_weights([item.provenance for item in kept]),
            torch.tensor(judged),
            torch.tensor(judged),
        )
        return rows, sum(item.provenance != Provenance.KNOWN for item in kept)


def _fitted(rows: Rows, reviewed: int, card: Card, start: Start, aim: Aim) -> Fitted | None:
    """A head where enough was reviewed, a correction where enough labels were found, else None."""
    positives = int((rows.labels == POSITIVE).sum())
    if reviewed < HEAD_FROM or positives < POSITIVES_FROM or bool(rows.judged.all()):
        return fit_correction(rows, card, start, aim)
    return fit(rows, card, start, aim)
