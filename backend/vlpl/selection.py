"""Choosing a head's objective and penalty by cross-validation on reviewed images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.vlpl import objectives
from backend.vlpl.head import Card, Head
from backend.vlpl.metrics import average_precision
from backend.vlpl.objectives import NEGATIVE, POSITIVE
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
FOLD_SEED = 0
"""Seed of the assignment of images to folds."""
_SEARCH_TOLERANCE = 1e-3
_SEARCH_ITERATIONS = 30


@dataclass(frozen=True)
class Selection:
    """What cross-validation chose, and what it measured.

    Attributes:
        objective: the chosen objective.
        l2: the chosen penalty; None stands for zero-shot itself.
        table: one mapping per candidate: ``objective``, ``l2``, ``map`` (in [0, 1]), ``chosen``.
        held_out: (n, C) logits of the reviewed rows, by fits that did not see them.
        rows: (n,) indices of those rows.
    """

    objective: Objective
    l2: float | None
    table: tuple[dict[str, Any], ...]
    held_out: Tensor
    rows: Tensor


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
    """Choose objective and penalty by cross-validated mAP on the fully reviewed rows.

    Rows that are only partly known are in every training fold and in no test fold. The candidates
    are the objectives that `allowed` gives, each with all penalties of its grid, and zero-shot. Of
    all candidates within `TIE` of the best mAP, the first is chosen in the order of `OBJECTIVES`,
    the largest penalty first within an objective, and zero-shot last.

    A label's AP is taken within each fold that has a positive of it, and averaged over folds.
    Ranking all folds together would be wrong: a fold that holds more of a label's positives leaves
    fewer to train on, so its scores are lower just where the positives are, and every fit looks
    worse than none.

    Args:
        training: the data.
    """
    labels = training.labels
    candidates = allowed(labels)
    rows = reviewed_rows(labels).nonzero().squeeze(1)
    truth = labels[rows] == POSITIVE
    absent = labels[rows] == NEGATIVE
    # A label that was added later is unknown on some rows: ranked last, they change no AP.
    unknown = labels[rows].abs() != POSITIVE
    enough = (truth.sum(0) >= MIN_POSITIVES) & (absent.sum(0) >= MIN_POSITIVES)
    if len(rows) < MIN_REVIEWED or not bool(enough.any()):
        partly = next(
            (objective for objective in candidates if objective.name == "wan"), candidates[0]
        )
        return Selection(partly, DEFAULT_L2, (), training.anchor()[rows], rows)
    folds = 3 if len(rows) >= MANY else 5
    penalties = L2_GRID if len(candidates) == 1 else AUTO_GRID
    parts = _folds(rows, folds)
    place = torch.full((len(labels),), -1)
    place[rows] = torch.arange(len(rows))
    every = torch.arange(len(labels))
    rest = [every[~torch.isin(every, part)] for part in parts]
    places = [place[part] for part in parts]

    def score(logits: Tensor) -> float:
        logits = logits.masked_fill(unknown, -torch.inf)
        by_fold = torch.stack(
            [average_precision(logits[at][:, enough], truth[at][:, enough]) for at in places]
        )
        return float(by_fold.nanmean(0).nanmean())

    zero = training.anchor()[rows]
    results: list[tuple[Objective, float | None, float, Tensor]] = []
    for objective in candidates:
        starts: list[Tensor | None] = [None] * folds
        for l2 in penalties:
            held_out = torch.empty_like(zero)
            for fold, (train, test) in enumerate(zip(rest, parts, strict=True)):
                theta = training.solve(
                    objective,
                    l2,
                    train,
                    start=starts[fold],
                    tolerance=_SEARCH_TOLERANCE,
                    max_iterations=_SEARCH_ITERATIONS,
                ).theta
                starts[fold] = theta
                held_out[place[test]] = training.predict(theta, test)
            results.append((objective, l2, score(held_out), held_out))
    results.append((candidates[0], None, score(zero), zero))
    best = max(result[2] for result in results)
    chosen = next(i for i, result in enumerate(results) if result[2] >= best - TIE)
    table = tuple(
        {
            "objective": ZERO_SHOT if l2 is None else objective.name,
            "l2": l2,
            "map": value,
            "chosen": index == chosen,
        }
        for index, (objective, l2, value, _) in enumerate(results)
    )
    winner = results[chosen]
    return Selection(winner[0], winner[1], table, winner[3], rows)


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
