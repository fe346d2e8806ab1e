"""Fitting an anchored head. What to fit is chosen in `backend.vlpl.selection`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from backend.vlpl import objectives
from backend.vlpl.head import Card, Head, on_weight_grid, zero_shot_head
from backend.vlpl.objectives import NEGATIVE, POSITIVE, Terms
from backend.vlpl.solver import Design, Solution, minimise

DEFAULT_L2 = 0.3
"""Penalty on W, for embeddings centred and scaled to unit mean square length. It is added to a sum
over images, so the data outweigh it as they come in."""
SLOPE_L2 = 1.0
OFFSET_L2 = 0.1
RARE = 30.0
"""The slope's penalty is SLOPE_L2 (1 + RARE / (positives + 1)): one positive with a low score must
not turn the zero-shot ranking of its label around."""
ZERO_SHOT = "zero-shot"
ROWS, REVIEWED_ROWS = "(rows)", "(reviewed rows)"
"""Keys of the card's counts that are no labels."""


@dataclass(frozen=True)
class Objective:
    """A named training objective.

    Attributes:
        name: stable, written into the card.
        constants: keyword arguments of the function in `backend.vlpl.objectives`.
        rounds: fits in a row; each sees the logits of the one before (LL-R, EM+APL).
        reviewed_only: leave out rows with unknown labels altogether.
    """

    name: str
    function: Callable[..., Terms]
    constants: dict[str, float] = field(default_factory=dict)
    rounds: int = 1
    reviewed_only: bool = False

    def terms(self, labels: Tensor, logits: Tensor, turn: int) -> Terms:
        """Coefficients for one round. Rows without any observed label contribute nothing."""
        if self.function is objectives.large_loss_rejection:
            rejected = self.constants["rejected"] * (turn + 1) / self.rounds
            result = objectives.large_loss_rejection(labels, logits, rejected)
        elif self.function is objectives.entropy_maximisation_apl:
            if turn == 0:
                result = objectives.entropy_maximisation(labels, self.constants["alpha"])
            else:
                result = self.function(labels, logits, **self.constants)
        else:
            result = self.function(labels, **self.constants)
        return result.weighted(self.counted(labels).float())

    def counted(self, labels: Tensor) -> Tensor:
        """(N,) boolean: the rows that contribute."""
        observed = labels.abs() == POSITIVE
        return observed.all(1) if self.reviewed_only else observed.any(1)


BCE = Objective("bce", objectives.bce)
OBJECTIVES: tuple[Objective, ...] = (
    BCE,
    Objective("bce-reviewed", objectives.bce, reviewed_only=True),
    Objective("wan", objectives.weak_assume_negative),
    Objective("wan-0.1", objectives.weak_assume_negative, {"gamma": 0.1}),
    Objective("an", objectives.assume_negative),
    Objective("em", objectives.entropy_maximisation, {"alpha": 0.1}),
    Objective("em-0.02", objectives.entropy_maximisation, {"alpha": 0.02}),
    Objective(
        "em-apl",
        objectives.entropy_maximisation_apl,
        {"alpha": 0.1, "beta": 0.9, "negative_fraction": 0.9},
        rounds=2,
    ),
    Objective("ll-r", objectives.large_loss_rejection, {"rejected": 0.02}, rounds=2),
    Objective("vlpl", objectives.vlpl, {"alpha": 0.1, "beta": 0.7, "smoothing": 0.1}),
)
"""In the order of the tie rule: what assumes least comes first."""


def reviewed_rows(labels: Tensor) -> Tensor:
    """(N,) boolean: a person looked at the whole image.

    Every label of the row is observed, or one is observed to be absent: what names the labels that
    are there and leaves the rest open names no absent one. So a label that was added later, and is
    unknown for all that was reviewed before, takes no row's place away.
    """
    return (labels.abs() == POSITIVE).all(1) | (labels == NEGATIVE).any(1)


@dataclass(frozen=True)
class Basis:
    """Images centred, scaled to unit mean square length, and rotated into their eigenbasis."""

    mean: Tensor
    scale: float
    rotation: Tensor
    eigenvalues: Tensor
    x: Tensor

    @classmethod
    def of(cls, image: Tensor) -> Basis:
        """From (N, D) embeddings. Rank is at most min(N, D): directions without data are left out,
        where the penalty would keep the weights at 0 anyway.
        """
        x = image.half().float()
        mean = x.mean(0)
        centred = x - mean
        scale = max(float(centred.square().sum(1).mean().sqrt()), 1e-6)
        centred = centred / scale
        gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
        values, vectors = torch.linalg.eigh(gram.double())
        kept = values > values[-1].clamp_min(1e-12) * 1e-7
        values, vectors = values[kept], vectors[:, kept]
        if len(x) < x.shape[1]:
            vectors = centred.T.double() @ (vectors / values.sqrt())
        rotation = vectors.float()
        return cls(mean, scale, rotation, values.float(), centred @ rotation)


@dataclass(frozen=True)
class Training:
    """Everything the fits of one training share.

    Attributes:
        basis: of the N images.
        z: (N, C) float32 zero-shot scores.
        labels: (N, C) integers, see `backend.vlpl.objectives`.
        weights: (N,) float32 row weights; for what is missing to 1, zero-shot speaks.
        a0: zero-shot slope.
        b0: zero-shot offset.
    """

    basis: Basis
    z: Tensor
    labels: Tensor
    weights: Tensor
    a0: float
    b0: float

    @classmethod
    def of(
        cls,
        image: Tensor,
        z: Tensor,
        labels: Tensor,
        *,
        a0: float,
        b0: float,
        weights: Tensor | None = None,
    ) -> Training:
        """Check and prepare.

        Args:
            image: (N, D) L2-normalised embeddings.
            z: (N, C) from `zero_shot.fuse`.
            labels: (N, C) integers.
            a0: slope of the zero-shot probability.
            b0: its offset.
            weights: (N,), >= 0; default all 1. See `head.row_weights`.

        Raises:
            ValueError: shapes do not fit or labels hold other values.
        """
        objectives.check_labels(labels)
        rows = torch.ones(len(labels)) if weights is None else weights.float()
        if z.shape != labels.shape or len(image) != len(labels) or rows.shape != (len(labels),):
            raise ValueError("images, scores, labels and weights differ in length")
        return cls(Basis.of(image), z.float(), labels, rows, a0, b0)

    def anchor(self) -> Tensor:
        """Zero-shot logits (N, C) float32."""
        return self.a0 * self.z + self.b0

    def solve(
        self,
        goal: Objective,
        l2: float,
        rows: Tensor | None = None,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-4,
        max_iterations: int = 100,
    ) -> Solution:
        """Fit on these rows (all by default).

        Args:
            goal: the objective.
            l2: penalty on W.
            rows: (n,) indices.
            start: theta of a neighbouring fit, to begin from.
            tolerance: on max |gradient| / n.
            max_iterations: of every round.
        """
        index = torch.arange(len(self.labels)) if rows is None else rows
        whole = rows is None
        design = Design(
            self.basis.x if whole else self.basis.x[index], self.z if whole else self.z[index]
        )
        offset, labels = self.anchor()[index], self.labels[index]
        rank, count = self.basis.x.shape[1], self.labels.shape[1]
        theta = torch.zeros(rank + 2, count) if start is None else start
        # From the label's own column alone, so that labels stay apart.
        weights = self.weights[index] * goal.counted(labels)
        found = ((labels == POSITIVE) * weights[:, None]).sum(0)
        caution = 1.0 + RARE / (found + 1.0)
        penalty = torch.cat(
            [
                torch.full((rank, count), l2),
                SLOPE_L2 * caution[None],
                torch.full((1, count), OFFSET_L2),
            ]
        )
        share = len(index) / max(len(self.labels), 1)
        solution = Solution(theta, 0, 0.0)
        for turn in range(goal.rounds):
            logits = offset if turn == 0 else offset + design.forward(solution.theta)
            terms = goal.terms(labels, logits, turn).weighted(self.weights[index])
            terms = _with_zero_shot(terms, labels, self.weights[index], offset, goal)
            bend = torch.sigmoid(logits)
            bend = (terms.pos + terms.neg) * bend * (1.0 - bend)
            curvature = penalty + torch.cat(
                [
                    share * self.basis.eigenvalues[:, None] * bend.mean(0),
                    (bend * design.z.square()).sum(0, keepdim=True),
                    bend.sum(0, keepdim=True),
                ]
            )
            solution = minimise(
                design,
                offset,
                terms,
                penalty=penalty,
                curvature=curvature,
                start=solution.theta,
                tolerance=tolerance,
                max_iterations=max_iterations,
            )
        return solution

    def predict(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Logits (n, C) of these rows."""
        return self.anchor()[rows] + Design(self.basis.x[rows], self.z[rows]).forward(theta)

    def head(self, theta: Tensor, card: Card) -> Head:
        """Turn a solution into a head over raw embeddings."""
        rank = self.basis.x.shape[1]
        weight = on_weight_grid((self.basis.rotation @ theta[:rank]).T / self.basis.scale)
        centre = weight.double() @ self.basis.mean.double()
        return Head(
            weight,
            self.a0 + theta[rank].double(),
            self.b0 + theta[rank + 1].double() - centre,
            card,
        )


def describe(training: Training, card: Card, goal: Objective, l2: float | None) -> Card:
    """The card with what a fit was made from: objective, constants and counts.

    ``constants`` are those of the objective, the penalty (``l2``) and the anchor (``a0``, ``b0``);
    ``counts`` the observed positives of each label, and under ``(rows)`` and ``(reviewed rows)``
    how many rows had any label observed, and all of them.
    """
    labels = training.labels
    constants = {**goal.constants, "a0": training.a0, "b0": training.b0}
    if l2 is not None:
        constants["l2"] = l2
    positives = (labels == POSITIVE).sum(0).tolist()
    counts = dict(zip(card.labels, positives, strict=True))
    counts[ROWS] = int((labels.abs() == POSITIVE).any(1).sum())
    counts[REVIEWED_ROWS] = int(reviewed_rows(labels).sum())
    name = ZERO_SHOT if l2 is None else goal.name
    return replace(card, objective=name, constants=constants, counts=counts)


def fit(
    training: Training, card: Card, goal: Objective = BCE, l2: float | None = DEFAULT_L2
) -> Head:
    """One head with a given objective and penalty; deterministic. ``l2`` None: zero-shot.

    With no observed label at all the result is the zero-shot head, exactly.

    Raises:
        ValueError: the card names another number of labels.
    """
    dim = training.basis.rotation.shape[0]
    if not bool((training.labels.abs() == POSITIVE).any()):
        l2 = None
    card = describe(training, card, goal, l2)
    if l2 is None:
        return zero_shot_head(card, dim, training.a0, training.b0)
    return training.head(training.solve(goal, l2).theta, card)


def _with_zero_shot(
    terms: Terms, labels: Tensor, weights: Tensor, anchor: Tensor, goal: Objective
) -> Terms:
    """Let zero-shot speak for what is missing of a row's weight, where a label is observed.

    A row that was waved through is half-believed: with the zero-shot probability as a soft target
    for the other half, it does not say that everything below the threshold is absent.
    """
    share = (1.0 - weights).clamp_min(0.0) * goal.counted(labels)
    observed = share[:, None] * (labels.abs() == POSITIVE)
    q = torch.sigmoid(anchor)
    return Terms(terms.pos + observed * q, terms.neg + observed * (1.0 - q), terms.ent)
