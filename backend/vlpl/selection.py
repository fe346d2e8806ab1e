"""Choosing a head's objective and penalty by cross-validation on reviewed images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.vlpl import objectives
from backend.vlpl.decisions import NEGATIVE, POSITIVE
from backend.vlpl.head import Card, Head
from backend.vlpl.metrics import average_precision
from backend.vlpl.training import (
    BCE,
    DEFAULT_L2,
    OBJECTIVES,
    ZERO_SHOT,
    Objective,
    Training,
    fit,
    reviewed_rows,
)

L2_GRID = (3.0, 1.0, 0.3, 0.1, 0.03)
"""Penalties on W if there is a single objective, largest first."""
AUTO_GRID = (1.0, 0.3, 0.1)
"""The same if several objectives compete."""
MANY = 500
"""Number of reviewed images from which on three folds are used, below it five."""
MIN_REVIEWED = 12
"""With fewer fully reviewed images nothing is chosen; the defaults apply."""
MIN_POSITIVES = 2
"""Fewest reviewed positives, and negatives, of a label whose AP counts."""
TIE = 0.002
"""mAP differences up to this are a tie; see `select`."""
NOISE = 0.5
"""Standard errors by which the log-loss of two penalties may differ and be a tie; see `select`."""
FOLD_SEED = 0
"""Seed of the assignment of images to folds."""
_SEARCH_TOLERANCE = 1e-3
_SEARCH_ITERATIONS = 30


class Fold(NamedTuple):
    """A fit of the cross-validation.

    Attributes:
        rows: (n,) indices of the reviewed rows that it did not see.
        theta: of `Training.solve`.
    """

    rows: Tensor
    theta: Tensor


@dataclass(frozen=True)
class _Candidate:
    """An objective with a penalty (None: zero-shot), its fits, and held-out logits (n, C)."""

    objective: Objective
    l2: float | None
    folds: tuple[Fold, ...]
    held_out: Tensor


@dataclass(frozen=True)
class _Reviewed:
    """The n reviewed rows of a training.

    Attributes:
        rows: (n,) their indices, ascending.
        truth: (n, C) boolean.
        known: (n, C) boolean; a label that was added later is unknown on some rows.
        enough: (C,) boolean, labels whose AP counts.
    """

    rows: Tensor
    truth: Tensor
    known: Tensor
    enough: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> _Reviewed:
        rows = reviewed_rows(labels).nonzero().squeeze(1)
        truth, absent = labels[rows] == POSITIVE, labels[rows] == NEGATIVE
        enough = (truth.sum(0) >= MIN_POSITIVES) & (absent.sum(0) >= MIN_POSITIVES)
        return cls(rows, truth, truth | absent, enough)

    def places(self, rows: Tensor) -> Tensor:
        """Where these rows stand among the reviewed ones."""
        return torch.searchsorted(self.rows, rows)

    def losses(self, logits: Tensor) -> Tensor:
        """Log-loss of each reviewed image, (n,), over its known labels."""
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, self.truth.float(), reduction="none"
        )
        return (loss * self.known).sum(1)

    def mean_average_precision(self, logits: Tensor, parts: Sequence[Tensor]) -> float:
        """mAP within each fold, averaged."""
        logits, labels = logits.masked_fill(~self.known, -torch.inf), self.enough
        by_fold = torch.stack(
            [
                average_precision(logits[at][:, labels], self.truth[at][:, labels])
                for at in map(self.places, parts)
            ]
        )
        return float(by_fold.nanmean(0).nanmean())


@dataclass(frozen=True)
class Selection:
    """What cross-validation chose, and what it measured.

    Attributes:
        objective: the chosen objective.
        l2: the chosen penalty; None stands for zero-shot itself.
        table: one mapping per candidate: ``objective``, ``l2``, ``map`` (in [0, 1]), ``loss`` (of
            an image, held out), ``chosen``.
        held_out: (n, C) logits of the reviewed rows, by fits that did not see them.
        rows: (n,) indices of those rows.
        folds: the fits of ``held_out``; empty where it is zero-shot's.
    """

    objective: Objective
    l2: float | None
    table: tuple[dict[str, Any], ...]
    held_out: Tensor
    rows: Tensor
    folds: tuple[Fold, ...]


def allowed(labels: Tensor) -> tuple[Objective, ...]:
    """The objectives that make sense for these labels.

    If all rows are reviewed, BCE alone (all others equal it); otherwise all of them, VLPL only if
    there are pseudo-labels.
    """
    known = labels[(labels.abs() == POSITIVE).any(1)]
    if not len(known) or bool(reviewed_rows(known).all()):
        return (BCE,)
    pseudo = bool((labels.abs() > POSITIVE).any())
    return tuple(
        objective for objective in OBJECTIVES if pseudo or objective.function is not objectives.vlpl
    )


def _folds(rows: Tensor, folds: int) -> list[Tensor]:
    """Split (n,) row indices at random into folds, each ascending."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(FOLD_SEED))
    return [rows[order[start::folds]].sort().values for start in range(folds)]


def select(training: Training) -> Selection:
    """Choose objective and penalty by cross-validation on the fully reviewed rows.

    Rows that are only partly known are in every training fold and in no test fold. The candidates
    are the objectives that `allowed` gives, each with the penalty of its grid that suits it best,
    and zero-shot. The penalty is chosen by the log-loss of held-out logits, which tells more from
    few images than their ranking does: the largest whose loss exceeds the least one by no more than
    `NOISE` standard errors of the difference. A single objective is compared with zero-shot by
    log-loss, too; where there are several, whose probabilities mean different things, the first one
    within `TIE` of the best mAP is chosen, in the order of `OBJECTIVES`, and zero-shot last.

    A label's AP is taken within each fold that has a positive of it, and averaged over folds.
    Ranking all folds together would be wrong: a fold that holds more of a label's positives leaves
    fewer to train on, so its scores are lower just where the positives are, and every fit looks
    worse than none.

    Args:
        training: the data.
    """
    labels = training.labels
    candidates = allowed(labels)
    reviewed = _Reviewed.of(labels)
    rows = reviewed.rows
    zero = _Candidate(candidates[0], None, (), training.anchor()[rows])
    if len(rows) < MIN_REVIEWED or not bool(reviewed.enough.any()):
        partly = next(
            (objective for objective in candidates if objective.name == "wan"), candidates[0]
        )
        return Selection(partly, DEFAULT_L2, (), zero.held_out, rows, ())
    parts = _folds(rows, 3 if len(rows) >= MANY else 5)
    penalties = L2_GRID if len(candidates) == 1 else AUTO_GRID
    contest = [
        _best_penalty(reviewed, _cross_validate(training, reviewed, objective, penalties, parts))
        for objective in candidates
    ]
    contest.append(zero)
    scores = [reviewed.mean_average_precision(one.held_out, parts) for one in contest]
    losses = [float(reviewed.losses(one.held_out).mean()) for one in contest]
    if len(candidates) == 1:
        chosen = losses.index(min(losses))
    else:
        chosen = next(i for i, score in enumerate(scores) if score >= max(scores) - TIE)
    table = tuple(
        {
            "objective": ZERO_SHOT if one.l2 is None else one.objective.name,
            "l2": one.l2,
            "map": score,
            "loss": loss,
            "chosen": index == chosen,
        }
        for index, (one, score, loss) in enumerate(zip(contest, scores, losses, strict=True))
    )
    winner = contest[chosen]
    return Selection(winner.objective, winner.l2, table, winner.held_out, rows, winner.folds)


def _cross_validate(
    training: Training,
    reviewed: _Reviewed,
    objective: Objective,
    penalties: Sequence[float],
    parts: Sequence[Tensor],
) -> list[_Candidate]:
    """The objective with each penalty, largest first."""
    every = torch.arange(len(training.labels))
    rest = [every[~torch.isin(every, part)] for part in parts]
    starts: list[Tensor | None] = [None] * len(parts)
    found = []
    for l2 in penalties:
        held_out = torch.empty(len(reviewed.rows), training.labels.shape[1])
        folds = []
        for number, (train, test) in enumerate(zip(rest, parts, strict=True)):
            theta = training.solve(
                objective,
                l2,
                train,
                start=starts[number],
                tolerance=_SEARCH_TOLERANCE,
                max_iterations=_SEARCH_ITERATIONS,
            ).theta
            starts[number] = theta
            held_out[reviewed.places(test)] = training.predict(theta, test)
            folds.append(Fold(test, theta))
        found.append(_Candidate(objective, l2, tuple(folds), held_out))
    return found


def _best_penalty(reviewed: _Reviewed, found: Sequence[_Candidate]) -> _Candidate:
    """The largest penalty whose log-loss is that of the best one, but for noise."""
    losses = [reviewed.losses(one.held_out) for one in found]
    best = min(losses, key=lambda loss: float(loss.mean()))
    return next(
        one
        for one, loss in zip(found, losses, strict=True)
        if float((loss - best).mean()) <= NOISE * float((loss - best).std()) / len(best) ** 0.5
    )


def fit_selected(training: Training, selection: Selection, card: Card) -> Head:
    """Fit a head with the selected objective and penalty on all rows; its card has the table."""
    metrics = dict(card.metrics)
    for row in selection.table:
        if row["chosen"]:
            metrics["cross-validated mAP"] = row["map"]
        if row["objective"] == ZERO_SHOT:
            metrics["zero-shot mAP"] = row["map"]
    card = replace(card, table=selection.table, metrics=metrics)
    return fit(training, card, selection.objective, selection.l2)
