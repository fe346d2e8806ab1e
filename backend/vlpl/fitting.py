"""A head that is ready to serve: trained on some rows, calibrated and thresholded on others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from backend.vlpl import exact
from backend.vlpl.calibration import NEVER, Goal, label_thresholds
from backend.vlpl.correction import (
    AS_IT_IS,
    CAUTION,
    HEAD_CAUTION,
    Correction,
    Prior,
    correct,
)
from backend.vlpl.decisions import POSITIVE
from backend.vlpl.exact import sigmoid
from backend.vlpl.head import Card, Head, zero_shot_head
from backend.vlpl.label_figures import Held
from backend.vlpl.metrics import expected_calibration_error
from backend.vlpl.neighbours import Votes
from backend.vlpl.pseudo_labels import assign, fit_threshold
from backend.vlpl.selection import Selection, fit_selected, select
from backend.vlpl.training import BCE, CORRECTED, Training, describe, reviewed_rows

HEAD_FROM = 12
"""Fewest reviewed images that a head is trained on; with fewer, slope and offset are corrected."""
POSITIVES_FROM = 10
"""Fewest reviewed positives, of all labels together, for a head or a correction. With fewer, a
correction costs some projects more clicks than it saves (docs/benchmark.md)."""
TOLD_CHANGE = 0.005
"""Of the calibration error; less is noise, also where it is a rise."""
CALIBRATE_FROM = 10
"""Fewest rows that a calibration is fitted on; below, its own error outweighs its gain."""


@dataclass(frozen=True)
class Rows:
    """What is known about N images.

    Attributes:
        image: (N, D) float, L2-normalised embeddings as stored.
        z: (N, C) zero-shot scores, `zero_shot.fuse`.
        labels: (N, C) integers, `objectives`.
        weights: (N,) row weights, `head.row_weights`.
        judged: (N,) boolean, randomly chosen rows that heads are judged on, never trained on.
        random: (N,) boolean, randomly chosen rows that correction and calibration rest on, judged
            ones among them. Rows that were chosen because they are uncertain say nothing of how
            often labels occur, and suggestions that were accepted unchanged, perhaps unchecked,
            would confirm themselves.
        votes: of similar images on the N rows; None: there are none.
    """

    image: Tensor
    z: Tensor
    labels: Tensor
    weights: Tensor
    judged: Tensor
    random: Tensor
    votes: Votes | None = None

    def probabilities(self, head: Head, where: Tensor) -> Tensor:
        """A head's probabilities (n, C) for some of the rows, after the votes.

        Args:
            head: of these C labels.
            where: (N,) boolean, n of them true.
        """
        return exact.sigmoid(self.logits(head, where)).float()

    def logits(self, head: Head, where: Tensor) -> Tensor:
        """The same before the sigmoid, float64."""
        logits = head.logits(self.image[where], self.z[where])
        return logits if self.votes is None else self.votes.of(where).on_logits(logits, head)

    @property
    def reviewed(self) -> Tensor:
        """(N,) boolean: a person reviewed the whole image."""
        return reviewed_rows(self.labels)

    def suffice_for_head(self, reviewed: int) -> bool:
        """Whether a head is to be trained on them, rather than slope and offset corrected.

        Args:
            reviewed: how many of them people reviewed, in whole or in part.
        """
        positives = int((self.labels == POSITIVE).sum())
        enough = reviewed >= HEAD_FROM and positives >= POSITIVES_FROM
        return enough and not bool(self.judged.all())

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
        held_out: reviewed rows that are not judged, predicted by fits that did not see them.
    """

    head: Head
    thresholds: Tensor
    notes: tuple[str, ...]
    held_out: Held


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


@dataclass(frozen=True)
class Start:
    """The zero-shot probability sigmoid(slope z + offset), before any review.

    Attributes:
        slope: logits per unit of z.
        offset: logits.
        prior: of both, over projects.
    """

    slope: float
    offset: float
    prior: Prior


def _correction(rows: Rows, z: Tensor, where: Tensor, prior: Prior) -> Correction | None:
    """The zero-shot probability as the random reviews among these rows correct it.

    Args:
        rows: N rows.
        z: (N, C) scores, before or after the votes.
        where: (N,) boolean.
        prior: for such scores.

    Returns:
        None where they found fewer than `POSITIVES_FROM` labels.
    """
    where = where & rows.random & rows.reviewed
    known, truth = rows.labels[where].abs() == POSITIVE, rows.labels[where] == POSITIVE
    if int(truth.sum()) < POSITIVES_FROM:
        return None
    return correct(z[where][known], truth[known], prior)


def _held_out(rows: Rows, training: Training, selection: Selection, card: Card) -> Tensor:
    """Logits (n, C) of the reviewed training rows by fits that did not see them, after the votes.

    The images that vote are scored by the same fits.
    """
    logits = selection.held_out.double()
    if rows.votes is None:
        return logits
    # Of all rows that are trained on, those that were reviewed.
    votes = rows.votes.of((~rows.judged).nonzero().squeeze(1)[selection.rows])
    if not selection.folds:
        dim = rows.image.shape[1]
        return votes.on_logits(logits, zero_shot_head(card, dim, training.a0, training.b0))
    for fold in selection.folds:
        places = torch.searchsorted(selection.rows, fold.rows)
        head = training.head(fold.theta, card)
        logits[places] = votes.of(places).on_logits(logits[places], head)
    return logits


def fit_correction(rows: Rows, card: Card, start: Start, aim: Aim) -> Fitted | None:
    """The zero-shot head with slope and offset as a handful of random reviews correct them.

    Where they leave it uncertain whether a label is on an image, it is not ticked.

    Args:
        rows: images and everything known about them.
        card: labels, encoder, statistics and time; the rest is filled in.
        start: the zero-shot probability, after the votes if there are some.
        aim: its ``threshold`` is the lowest that is used; a goal needs a head.

    Returns:
        None where fewer than `POSITIVES_FROM` labels were found on randomly chosen images.

    Raises:
        ValueError: the shapes do not fit.
    """
    z = rows.z if rows.votes is None else rows.votes.on_scores(rows.z)
    correction = _correction(rows, z, rows.random, start.prior)
    if correction is None:
        return None
    training = Training.of(
        rows.image, rows.z, rows.labels, a0=correction.slope, b0=correction.offset
    )
    card = replace(describe(training, card, BCE, None), objective=CORRECTED)
    head = zero_shot_head(card, rows.image.shape[1], correction.slope, correction.offset)
    threshold = max(aim.threshold, correction.tick_from(CAUTION))
    thresholds = torch.full((rows.labels.shape[1],), threshold, dtype=torch.float64)
    note = (
        "The probabilities are corrected by randomly chosen reviews "
        f"({int((rows.random & rows.reviewed).sum())}); from {HEAD_FROM} reviews on a head learns."
    )
    trained = rows.reviewed & ~rows.judged
    held = Held(rows.probabilities(head, trained), rows.labels[trained])
    return Fitted(head, thresholds, (note,), held)


def fit(rows: Rows, card: Card, start: Start, aim: Aim) -> Fitted:
    """Train on the rows that are not judged; calibrate and choose thresholds on those that are.

    The head starts from the zero-shot probability as the random reviews that it is not judged on
    correct it, where they suffice.
    Pseudo-labels come from the frozen zero-shot scores, and only if the lower confidence bound of
    their precision on judged rows reaches its target; otherwise unknown labels stay unknown.

    Args:
        rows: images and everything known about them.
        card: labels, encoder, statistics and time; the rest is filled in.
        start: the zero-shot probability, before any votes.
        aim: what the thresholds should reach.

    Raises:
        ValueError: the shapes do not fit.
    """
    notes = []
    kept = ~rows.judged
    labels = rows.labels[kept]
    if len(labels) and not bool(reviewed_rows(labels).all()):
        rule = fit_threshold(rows.z[rows.audited], rows.labels[rows.audited])
        notes.append(f"Labels that nobody looked at: {rule.note}.")
        if rule.threshold is not None:
            labels = assign(rows.z[kept], labels, rule)
    correction = _correction(rows, rows.z, kept, start.prior)
    training = Training.of(
        rows.image[kept],
        rows.z[kept],
        labels,
        a0=start.slope if correction is None else correction.slope,
        b0=start.offset if correction is None else correction.offset,
        weights=rows.weights[kept],
    )
    selection = select(training)
    head = fit_selected(training, selection, card)
    held_out = _held_out(rows, training, selection, card)
    audit = rows.labels[rows.audited]
    fair = rows.audited & rows.random
    logits, codes = rows.logits(head, fair), rows.labels[fair]
    if len(codes) < CALIBRATE_FROM:
        # Too few: add the training rows, by the cross-validation fits that did not see them.
        random = rows.random[kept][selection.rows]
        logits = torch.cat([logits, held_out[random]])
        codes = torch.cat([codes, labels[selection.rows][random]])
    threshold = aim.threshold
    if len(codes) >= CALIBRATE_FROM:
        known = codes.abs() == POSITIVE
        truth = codes[known] == POSITIVE
        calibration = correct(logits[known], truth, AS_IT_IS)
        calibrated = calibration.slope * logits[known] + calibration.offset
        head = head.rescaled(calibration.slope, calibration.offset)
        held_out = calibration.slope * held_out + calibration.offset
        threshold = max(threshold, calibration.tick_from(HEAD_CAUTION))
        before, after = (
            expected_calibration_error(torch.sigmoid(scores), truth)
            for scores in (logits[known], calibrated)
        )
        earlier = f"; {100 * before:.1f} before" if before - after >= TOLD_CHANGE else ""
        notes.append(
            f"Its percentages were corrected on {len(codes)} randomly chosen tasks: they are off "
            f"by {100 * after:.1f} points on average{earlier}."
        )
    thresholds = torch.full((labels.shape[1],), threshold, dtype=torch.float64)
    if aim.goal and len(audit):
        # A probability of 0 puts an unknown entry below every threshold, so that it never counts.
        known = audit.abs() == POSITIVE
        reached, overall = label_thresholds(
            rows.probabilities(head, rows.audited).masked_fill(~known, 0.0),
            (audit == POSITIVE).double(),
            cast("Goal", aim.goal),
            aim.target,
        )
        if overall >= NEVER:
            notes.append(
                f"No threshold is sure to reach {aim.goal} {aim.target:g} on {len(audit)} randomly "
                f"chosen tasks; labels are still ticked from {100 * threshold:.0f} % on."
            )
        else:
            thresholds = reached
    held = Held(sigmoid(held_out), labels[selection.rows])
    return Fitted(head, thresholds, tuple(notes), held)
