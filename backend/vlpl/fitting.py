"""A head that is ready to serve: trained on some rows, calibrated and thresholded on others."""

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
"""Fewest rows that a calibration is fitted on; below, its own error outweighs its gain."""
PRIOR = 30.0
"""Pull of the calibration towards none, see `fit_platt`: on a few dozen rows it would follow their
noise, and the share of suggested labels would jump from head to head."""


@dataclass(frozen=True)
class Rows:
    """What is known about N images.

    Attributes:
        image: (N, D) float, L2-normalised embeddings as stored.
        z: (N, C) zero-shot scores, `zero_shot.fuse`.
        labels: (N, C) integers, `objectives`.
        weights: (N,) row weights, `head.row_weights`.
        judged: (N,) boolean, randomly chosen rows that heads are judged on, never trained on.
    """

    image: Tensor
    z: Tensor
    labels: Tensor
    weights: Tensor
    judged: Tensor

    @property
    def audited(self) -> Tensor:
        """(N,) boolean: judged rows with a known label; a person looked at the whole image."""
        return self.judged & (self.labels.abs() == POSITIVE).any(1)


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
        head: calibrated.
        thresholds: (C,) float64; a label is suggested from this probability on.
        notes: what a person should know about the fit, one sentence each.
    """

    head: Head
    thresholds: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Aim:
    """What the thresholds should reach.

    Attributes:
        threshold: probability for all labels if there is no goal, or it cannot be reached.
        goal: a `calibration.Goal`, or empty for none.
        target: precision or recall to reach, in (0, 1].
    """

    threshold: float
    goal: str = ""
    target: float = 0.9


def fit(rows: Rows, card: Card, a0: float, b0: float, aim: Aim) -> Fitted:
    """Train on the rows that are not judged; calibrate and choose thresholds on those that are.

    Pseudo-labels come from the frozen zero-shot scores, and only if the lower confidence bound of
    their precision on judged rows reaches its target; otherwise unknown labels stay unknown.

    Args:
        rows: images and everything known about them.
        card: labels, encoder, statistics and time; the rest is filled in.
        a0: slope of the zero-shot probability, logits per unit of z.
        b0: its offset, logits.
        aim: what the thresholds should reach.

    Raises:
        ValueError: the shapes do not fit.
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
    logits, codes, where = head.logits(image, z), audit, "randomly chosen tasks"
    if len(audit) < CALIBRATE_FROM:
        # Too few: add the training rows, by the cross-validation fits that did not see them.
        logits = torch.cat([logits, selection.held_out.double()])
        codes = torch.cat([audit, labels[selection.rows]])
        where = "tasks, most of them not randomly chosen"
    if len(codes) >= CALIBRATE_FROM:
        known = codes.abs() == POSITIVE
        calibration = fit_platt(logits[known], (codes[known] == POSITIVE).double(), PRIOR)
        head = head.rescaled(calibration.scale, calibration.shift)
        notes.append(
            f"Calibrated on {len(codes)} {where}: expected calibration error "
            f"{calibration.ece_before:.3f} before, {calibration.ece_after:.3f} after."
        )
    thresholds = torch.full((labels.shape[1],), aim.threshold, dtype=torch.float64)
    if aim.goal and len(audit):
        # A probability of 0 puts an unknown entry below every threshold, so that it never counts.
        known = audit.abs() == POSITIVE
        reached, overall = label_thresholds(
            head.probabilities(image, z).masked_fill(~known, 0.0),
            (audit == POSITIVE).double(),
            cast("Goal", aim.goal),
            aim.target,
        )
        if overall >= NEVER:
            notes.append(
                f"No threshold reaches {aim.goal} {aim.target:g} with confidence on {len(audit)} "
                f"randomly chosen tasks; {aim.threshold:g} stays."
            )
        else:
            thresholds = reached
    return Fitted(head, thresholds, tuple(notes))
