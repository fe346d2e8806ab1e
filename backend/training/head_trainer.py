"""Trains a project's heads: pulls what people approved, fits, compares with the serving heads.

Knows no queue, so that it works with and without workers. Nothing here changes what annotators see;
an accepted head is put into use by a refresh (`jobs.publish`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch

from backend.encoders.table import Scores
from backend.inference.embedder import Embedder
from backend.inference.holdout import judged_share
from backend.inference.model_version import ModelVersion
from backend.inference.task_images import images_of_task
from backend.inference.versions import ModelVersions, learned_labels
from backend.labels.controls import Control
from backend.labelstudio.client import LabelStudioClient
from backend.messages.message import Message
from backend.settings import Settings
from backend.storage.head_set import FittedControl, HeadSet
from backend.storage.tables import chunks
from backend.training.approvals import (
    REVIEWED,
    UNSWAYED,
    Approval,
    as_far_as_seen,
    is_judged,
    of_each_image,
    provenance_counts,
)
from backend.training.click_count import count_clicks, judged_tasks
from backend.training.clicks_text import clicks_text
from backend.training.pulling import Pulled, pull
from backend.training.verdict_text import verdict_text
from backend.vlpl.decisions import POSITIVE, Provenance
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
from backend.vlpl.head import Card, row_weights, statistics_hash
from backend.vlpl.judge import Verdict, judge
from backend.vlpl.label_figures import Held, LabelFigures, label_figures

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


@dataclass(frozen=True)
class _Candidate:
    """What a training makes of one control."""

    fitted: FittedControl
    verdict: Verdict
    figures: tuple[LabelFigures, ...]
    notes: tuple[str, ...]


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
            sorted(pulled.random),
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
            reason = Message.of_count(
                missing,
                "Reviewed tasks: {reviewed}; at least {count} more is needed.",
                "Reviewed tasks: {reviewed}; at least {count} more are needed.",
                reviewed=reviewed,
            )
            return Trained(None, reason)
        version = self._versions.get(pulled.config, pulled.key)
        serving = self._versions.heads.serving(pulled.key)
        candidates: dict[str, _Candidate] = {}
        for control in pulled.config.controls:
            reviews = pulled.approvals.get(control.name)
            candidate = self._train_control(version, control, pulled) if reviews else None
            if candidate is not None:
                candidates[control.name] = candidate
        if not candidates:
            missing = HEAD_FROM - reviewed
            needs = (
                Message("{missing} more", missing=missing)
                if missing > 0
                else Message("{needed} whose images can be had", needed=HEAD_FROM)
            )
            reason = Message(
                "Reviewed tasks: {reviewed}. A control's head needs {needs}, with {labels} labels "
                "on them, and not all of them blind or audit tasks; {labels} labels on random "
                "tasks correct the percentages.",
                reviewed=reviewed,
                needs=needs,
                labels=POSITIVES_FROM,
            )
            return Trained(None, reason)
        accepted = any(candidate.verdict.accepted for candidate in candidates.values())
        # What cannot be trained now leaves the control's head as it is; what is not accepted, too,
        # unless nothing is: then the set does not serve, and a person may look at it.
        kept = {
            name: candidate
            for name, candidate in candidates.items()
            if candidate.verdict.accepted or not accepted
        }
        controls = {
            **version.heads,
            **{name: candidate.fitted for name, candidate in kept.items()},
        }
        several = len(candidates) > 1
        share = judged_share(self._settings.blind_share, self._settings.audit_share)
        left = None if pulled.tasks is None else max(0, pulled.tasks - reviewed)
        reason = _reason(
            {
                name if several else "": verdict_text(candidate.verdict, share, left)
                for name, candidate in candidates.items()
            }
        )
        metrics = {
            f"{name} {metric}" if several else metric: value
            for name, candidate in candidates.items()
            for metric, value in candidate.verdict.metrics.items()
        }
        judged = judged_tasks(pulled, self._settings.audit_share)
        everything = [item for items in pulled.approvals.values() for item in items]
        head_set = HeadSet(
            self._versions.heads.next_name(pulled.key),
            controls,
            datetime.now(UTC).isoformat(timespec="seconds"),
            self._versions.encoder.id,
            reviewed,
            provenance_counts(everything),
            accepted,
            Message("compared with {serving}: {reason}", serving=serving, reason=reason),
            metrics,
            count_clicks(_with_heads(version, controls), self._embedder, judged),
            count_clicks(version, self._embedder, judged),
            {
                **self._figures_of(pulled.key, serving, version.heads),
                **{name: candidate.figures for name, candidate in kept.items()},
            },
        )
        self._versions.heads.save(pulled.key, head_set)
        word = "accepted" if accepted else "rejected"
        log.info("project %s: %s %s, %s", pulled.key, head_set.name, word, head_set.reason)
        if head_set.clicks is not None:
            log.info("project %s: %s: %s", pulled.key, head_set.name, clicks_text(head_set.clicks))
        notes = [note for candidate in candidates.values() for note in candidate.notes]
        return Trained(head_set, head_set.reason, tuple(notes))

    def _figures_of(
        self, project: str, serving: str, controls: Collection[str]
    ) -> dict[str, tuple[LabelFigures, ...]]:
        """What is known of the labels of controls that keep the heads that serve."""
        if not controls:
            return {}
        known = self._versions.heads.get(project, serving).labels
        return {name: figures for name, figures in known.items() if name in controls}

    def _train_control(
        self, version: ModelVersion, control: Control, pulled: Pulled
    ) -> _Candidate | None:
        approvals = pulled.approvals[control.name]
        rows, reviewed = self._rows(version, control, pulled, approvals)
        if rows is None:
            return None
        labels = tuple(label.key for label in control.labels)
        card = Card(
            labels,
            self._versions.encoder.id,
            statistics_hash(version.statistics.get(control.name)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        aim = Aim(
            version.table.tick_from(len(labels)), self._settings.goal, self._settings.goal_target
        )
        made = _fitted(rows, reviewed, card, partial(_start, version, control), aim)
        if made is None:
            return None
        audited = rows.audited
        serving = version.head(control)
        probabilities = rows.probabilities(made.head, audited)
        verdict = judge(
            probabilities,
            rows.probabilities(serving.head, audited),
            rows.labels[audited],
            labels,
        )
        looked_at = any(item.provenance in REVIEWED for item in approvals)
        unsure = not made.head.card.table or control.name in version.heads or not looked_at
        if not verdict.measured and unsure:
            verdict = replace(verdict, accepted=False)
        fitted = FittedControl(made.head, tuple(made.thresholds.tolist()))
        states = torch.tensor(
            [item.states for item in approvals if item.provenance != Provenance.KNOWN]
        )
        figures = label_figures(
            labels,
            (states == POSITIVE).sum(0).tolist(),
            Held(probabilities, rows.labels[audited]),
            made.held_out,
            _with_heads(version, {control.name: fitted}).thresholds(control),
            single=not control.multiple,
        )
        return _Candidate(fitted, verdict, figures, made.notes)

    def _rows(
        self, version: ModelVersion, control: Control, pulled: Pulled, approvals: Sequence[Approval]
    ) -> tuple[Rows | None, int]:
        """The rows whose images can be had, if any, and how many of them people approved."""
        images: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        kept: list[Approval] = []
        for part in chunks(approvals, CHUNK):
            values = [
                images_of_task(control, {"id": item.task, "data": pulled.data[item.task]})
                for item in part
            ]
            by_value, failures = self._embedder.embed(
                list({value for of_task in values for value in of_task})
            )
            if failures:
                log.warning("project %s: images that are left out: %d", pulled.key, len(failures))
            embedded = [
                (as_far_as_seen(item, of_task, by_value), by_value[value])
                for item, of_task in zip(part, values, strict=True)
                for value in of_task
                if value in by_value
            ]
            if embedded:
                embeddings = [embedding for _, embedding in embedded]
                whole = np.stack([embedding.image for embedding in embeddings])
                images.append(torch.from_numpy(whole).float())
                scores.append(version.z(control, embeddings))
                kept += of_each_image([item for item, _ in embedded], scores[-1].numpy())
        if not kept:
            return None, 0
        share = self._settings.audit_share
        judged = [is_judged(pulled.key, item, share) for item in kept]
        rows = Rows(
            torch.cat(images),
            torch.cat(scores),
            torch.tensor([item.states for item in kept]),
            row_weights([item.provenance for item in kept]),
            torch.tensor(judged),
            torch.tensor(
                [
                    item.provenance in UNSWAYED and (of_judge or item.task in pulled.random)
                    for of_judge, item in zip(judged, kept, strict=True)
                ]
            ),
            version.votes(control, torch.cat(images)),
        )
        return rows, len({item.task for item in kept if item.provenance != Provenance.KNOWN})


def _reason(verdicts: Mapping[str, Message]) -> Message:
    """All verdicts, each after the name of its control where that is not empty."""
    named = [
        Message("{control}: {verdict}", control=name, verdict=verdict) if name else verdict
        for name, verdict in verdicts.items()
    ]
    reason = named[0]
    for verdict in named[1:]:
        reason = Message("{before}; {verdict}", before=reason, verdict=verdict)
    return reason


def _start(version: ModelVersion, control: Control, votes: bool) -> Start:
    """The zero-shot probability that a head or a correction starts from.

    Args:
        version: the present one.
        control: one of its controls.
        votes: whether of scores after the votes, where there are some.
    """
    scores, labels = version.scores(control), len(control.labels)
    if not votes and scores is Scores.VOTED:
        scores = Scores.STANDARDISED
    row = version.table.row(scores, labels, control.required)
    prior = version.table.prior_of(scores, labels, control.required)
    return Start(row.slope, row.offset, prior)


def _fitted(
    rows: Rows, reviewed: int, card: Card, start: Callable[[bool], Start], aim: Aim
) -> Fitted | None:
    """A head where enough was reviewed, a correction where enough labels were found, else None.

    Args:
        rows: images and everything known about them.
        reviewed: how many of them people approved.
        card: to be filled in.
        start: the zero-shot probability, by whether it is of scores after the votes.
        aim: what the thresholds should reach.
    """
    if rows.suffice_for_head(reviewed):
        return fit(rows, card, start(False), aim)
    return fit_correction(rows, card, start(True), aim)


def _with_heads(version: ModelVersion, controls: Mapping[str, FittedControl]) -> ModelVersion:
    """The version with these heads in place of its own."""
    learned = {name: learned_labels(fitted) for name, fitted in controls.items()}
    return replace(
        version,
        heads={**version.heads, **controls},
        learned={**version.learned, **learned},
    )
