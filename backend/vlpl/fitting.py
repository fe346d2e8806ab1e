"""One head, ready to serve: trained on some rows, calibrated and thresholded on others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from backend.vlpl.calibration import NEVER, Goal, fit_platt, label_thresholds
from backend.vlpl.head import Card, Head
from backend.vlpl.objectives import POSITIVE
from backend.vlpl.pseudo_labels import assign, fit_threshold
from backend.vlpl.selection import fit_selected, select
from backend.vlpl.training import Training, reviewed_rows

CALIBRATE_FROM = 10
"""Judged rows from which a calibration says more than it errs."""
PRIOR = 30.0
"""Pull of the calibration towards none: on a few dozen rows it would follow their noise, and the
share of suggested labels would jump from head to head."""


@dataclass(frozen=True)
class Rows:
    """What is known about N images.

    Attributes:
        image: (N, D) float, L2-normalised embeddings as stored.
        z: (N, C) zero-shot scores, `zero_shot.fuse`.
        labels: (N, C) integers, `objectives`.
        weights: (N,) row weights, `head.row_weights`.
        judged: (N,) boolean, randomly chosen rows that heads are judged on and never trained on.
    """

    image: Tensor
    z: Tensor
    labels: Tensor
    weights: Tensor
    judged: Tensor

    @property
    def audited(self) -> Tensor:
        """(N,) boolean: judged rows with any label known; a person looked at each as a whole."""
        return self.judged & (self.labels.abs() == POSITIVE).any(1)


@dataclass(frozen=True)
class Fitted:
    """What came of it.

    Attributes:
        head: calibrated.
        thresholds: (C,) float64, suggest from this probability on.
        notes: what a person should know, one sentence each.
    """

    head: Head
    thresholds: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Aim:
    """What thresholds are for.

    Attributes:
        threshold: for all labels where no goal is set, or cannot be reached.
        goal: ``precision``, ``recall``, ``f1``, or empty.
        target: of precision or recall, in (0, 1].
    """

    threshold: float
    goal: str = ""
    target: float = 0.9


def fit(rows: Rows, card: Card, a0: float, b0: float, aim: Aim) -> Fitted:
    """Train on what is not judged; calibrate, threshold and measure pseudo-labels on what is.

    Pseudo-labels come from the frozen zero-shot scores, and only where their precision on judged
    rows surely reaches its target; else unknown labels stay unknown.

    Args:
        rows: all that is known.
        card: labels, encoder, statistics and time.
        a0: slope of the zero-shot probability.
        b0: its offset.
        aim: what the thresholds are for.

    Raises:
        ValueError: shapes do not fit.
    """
    notes = []
    kept = ~rows.judged
    labels = rows.labels[kept]
    if len(labels) and not bool(reviewed_rows(labels).all()):
        rule = fit_threshold(rows.z[rows.audited], rows.labels[rows.audited])
        notes.append(f"Pseudo-labels: {rule.note}.")
        if rule.threshold is not None:
            labels = assign(rows.z[kept], labels, rule)
    training = Training.of(
        rows.image[kept], rows.z[kept], labels, a0=a0, b0=b0, weights=rows.weights[kept]
    )
    selection = select(training)
    head = fit_selected(training, selection, card)
    audit = rows.labels[rows.audited]
    image, z = rows.image[rows.audited], rows.z[rows.audited]
    logits, seen, where = head.logits(image, z), audit, "randomly chosen tasks"
    if len(audit) < CALIBRATE_FROM:
        # Better than nothing: what cross-validation says of rows that its fits did not see.
        logits = torch.cat([logits, selection.held_out.double()])
        seen = torch.cat([audit, labels[selection.rows]])
        where = "tasks, most of them not randomly chosen"
    if len(seen) >= CALIBRATE_FROM:
        known = seen.abs() == POSITIVE
        calibration = fit_platt(logits[known], (seen[known] == POSITIVE).double(), PRIOR)
        head = head.rescaled(calibration.scale, calibration.shift)
        notes.append(
            f"Calibrated on {len(seen)} {where}: expected calibration error "
            f"{calibration.ece_before:.3f} before, {calibration.ece_after:.3f} after."
        )
    thresholds = torch.full((labels.shape[1],), aim.threshold, dtype=torch.float64)
    if aim.goal and len(audit):
        # What is unknown is below every threshold, and so counts for none.
        known = audit.abs() == POSITIVE
        found, overall = label_thresholds(
            head.probabilities(image, z).masked_fill(~known, 0.0),
            (audit == POSITIVE).double(),
            cast("Goal", aim.goal),
            aim.target,
        )
        if overall >= NEVER:
            notes.append(
                f"No threshold surely reaches {aim.goal} {aim.target:g} on {len(audit)} random "
                f"tasks; {aim.threshold:g} stays."
            )
        else:
            thresholds = found
    return Fitted(head, thresholds, tuple(notes))
