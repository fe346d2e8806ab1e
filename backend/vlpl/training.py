"""Fitting an anchored head; objective and penalty are chosen in `backend.vlpl.selection`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from backend.vlpl import objectives
from backend.vlpl.decisions import NEGATIVE, POSITIVE
from backend.vlpl.head import Card, Head, on_weight_grid, zero_shot_head
from backend.vlpl.objectives import Terms
from backend.vlpl.solver import Design, Solution, minimise

DEFAULT_L2 = 0.3
"""Penalty on W, for embeddings that are centred and scaled to unit mean square length. The loss is
a sum over images, so it outweighs the penalty as images are reviewed."""
SLOPE_L2 = 1.0
"""Penalty on the change of a label's slope, see `RARE`."""
OFFSET_L2 = 0.1
"""Penalty on the change of a label's offset."""
RARE = 30.0
"""The slope's penalty is SLOPE_L2 (1 + RARE / (positives + 1)), so that a single positive with a
low score does not reverse the zero-shot ranking of its label."""
ZERO_SHOT = "zero-shot"
"""The card's objective of a head without any fit."""
CORRECTED = "zero-shot, corrected"
"""The same where reviews have corrected slope and offset, see `backend.vlpl.correction`."""
ROWS, REVIEWED_ROWS = "(rows)", "(reviewed rows)"
"""Keys of the card's counts that are not labels."""


@dataclass(frozen=True)
class Objective:
    """A named training objective.

    Attributes:
        name: written into the card, and therefore stable.
        function: from labels (and logits) to coefficients, see `backend.vlpl.objectives`.
        constants: its keyword arguments.
        rounds: number of fits in a row; each starts from the logits of the one before (LL-R,
            EM+APL).
        reviewed_only: whether rows with unknown labels are left out altogether.
    """

    name: str
    function: Callable[..., Terms]
    constants: dict[str, float] = field(default_factory=dict)
    rounds: int = 1
    reviewed_only: bool = False

    def terms(self, labels: Tensor, logits: Tensor, turn: int) -> Terms:
        """Coefficients for one round, counted from 0.

        Rows without any observed label contribute nothing.

        Args:
            labels: (n, C) integers.
            logits: (n, C) of the round before; in the first round the zero-shot logits.
            turn: 0 ... rounds - 1.
        """
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
        """(n,) boolean: the rows that contribute."""
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
"""In the order of the tie rule of `selection.select`: those that assume least come first."""


def reviewed_rows(labels: Tensor) -> Tensor:
    """(N,) boolean: whether a person reviewed the whole image.

    Every label of the row is observed, or at least one is observed to be absent. (A list of labels
    that are present, with the others left open, never states an absent one.) So rows that were
    reviewed before a label was added still count, although that label is unknown for them.
    """
    return (labels.abs() == POSITIVE).all(1) | (labels == NEGATIVE).any(1)


@dataclass(frozen=True)
class Basis:
    """Images centred, scaled to unit mean square length, and rotated into their eigenbasis.

    Attributes:
        mean: (D,) float32, subtracted from the embeddings.
        scale: divisor of the centred embeddings.
        rotation: (D, R) float32, orthonormal columns.
        eigenvalues: (R,) float32 of the Gram matrix, ascending.
        x: (N, R) float32, the images in this basis.
    """

    mean: Tensor
    scale: float
    rotation: Tensor
    eigenvalues: Tensor
    x: Tensor

    @classmethod
    def of(cls, image: Tensor) -> Basis:
        """The basis of (N, D) embeddings.

        The rank R is at most min(N, D): directions without data are left out, because there the
        penalty would keep the weights at 0 anyway.
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
    """Everything that the fits of one training share.

    Attributes:
        basis: of the N images.
        z: (N, C) float32 zero-shot scores.
        labels: (N, C) integers, see `backend.vlpl.objectives`.
        weights: (N,) float32 row weights, >= 0; of a weight below 1 the rest goes to the zero-shot
            probability as a soft target.
        a0: slope of the zero-shot probability, logits per unit of z.
        b0: its offset, logits.
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
        """Check the data and prepare the fits.

        Args:
            image: (N, D) L2-normalised embeddings.
            z: (N, C) from `zero_shot.fuse`.
            labels: (N, C) integers, see `backend.vlpl.objectives`.
            a0: slope of the zero-shot probability.
            b0: its offset.
            weights: (N,), >= 0, see `head.row_weights`; default all 1.

        Raises:
            ValueError: the shapes do not fit, or labels have other values.
        """
        objectives.check_labels(labels)
        rows = torch.ones(len(labels)) if weights is None else weights.float()
        if z.shape != labels.shape or len(image) != len(labels) or rows.shape != (len(labels),):
            raise ValueError("images, scores, labels and weights differ in length")
        return cls(Basis.of(image), z.float(), labels, rows, a0, b0)

    def anchor(self) -> Tensor:
        """Zero-shot logits, (N, C) float32."""
        return self.a0 * self.z + self.b0

    def solve(
        self,
        objective: Objective,
        l2: float,
        rows: Tensor | None = None,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-4,
        max_iterations: int = 100,
    ) -> Solution:
        """Fit on these rows (all by default).

        Args:
            objective: the objective.
            l2: penalty on W, > 0.
            rows: (n,) indices.
            start: theta of a similar fit, to begin from.
            tolerance: on the largest |gradient| / n.
            max_iterations: upper limit for each round.
        """
        index = torch.arange(len(self.labels)) if rows is None else rows
        whole = rows is None
        design = Design(
            self.basis.x if whole else self.basis.x[index], self.z if whole else self.z[index]
        )
        offset, labels = self.anchor()[index], self.labels[index]
        rank, count = self.basis.x.shape[1], self.labels.shape[1]
        theta = torch.zeros(rank + 2, count) if start is None else start
        # Counted in the label's own column alone: the fits of labels must not affect each other.
        weights = self.weights[index] * objective.counted(labels)
        positives = ((labels == POSITIVE) * weights[:, None]).sum(0)
        caution = 1.0 + RARE / (positives + 1.0)
        penalty = torch.cat(
            [
                torch.full((rank, count), l2),
                SLOPE_L2 * caution[None],
                torch.full((1, count), OFFSET_L2),
            ]
        )
        share = len(index) / max(len(self.labels), 1)
        solution = Solution(theta, 0, 0.0)
        for turn in range(objective.rounds):
            logits = offset if turn == 0 else offset + design.forward(solution.theta)
            terms = objective.terms(labels, logits, turn).weighted(self.weights[index])
            terms = _with_zero_shot(terms, labels, self.weights[index], offset, objective)
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
        """Logits (n, C) of these rows, for theta of `solve`."""
        return self.anchor()[rows] + Design(self.basis.x[rows], self.z[rows]).forward(theta)

    def head(self, theta: Tensor, card: Card) -> Head:
        """The head over raw embeddings that theta of `solve` stands for."""
        rank = self.basis.x.shape[1]
        weight = on_weight_grid((self.basis.rotation @ theta[:rank]).T / self.basis.scale)
        centre = weight.double() @ self.basis.mean.double()
        return Head(
            weight,
            self.a0 + theta[rank].double(),
            self.b0 + theta[rank + 1].double() - centre,
            card,
        )


def describe(training: Training, card: Card, objective: Objective, l2: float | None) -> Card:
    """The card with what a fit was made from: objective, constants and counts.

    ``constants`` holds those of the objective, the penalty (``l2``) and the anchor (``a0``,
    ``b0``); ``counts`` the observed positives of each label, the rows with any observed label
    (``(rows)``) and the fully reviewed ones (``(reviewed rows)``).
    """
    labels = training.labels
    constants = {**objective.constants, "a0": training.a0, "b0": training.b0}
    if l2 is not None:
        constants["l2"] = l2
    positives = (labels == POSITIVE).sum(0).tolist()
    counts = dict(zip(card.labels, positives, strict=True))
    counts[ROWS] = int((labels.abs() == POSITIVE).any(1).sum())
    counts[REVIEWED_ROWS] = int(reviewed_rows(labels).sum())
    name = ZERO_SHOT if l2 is None else objective.name
    return replace(card, objective=name, constants=constants, counts=counts)


def fit(
    training: Training, card: Card, objective: Objective = BCE, l2: float | None = DEFAULT_L2
) -> Head:
    """Fit a head with a given objective and penalty; deterministic. ``l2`` None: zero-shot.

    Without any observed label the result is exactly the zero-shot head.

    Raises:
        ValueError: the card has another number of labels.
    """
    dim = training.basis.rotation.shape[0]
    if not bool((training.labels.abs() == POSITIVE).any()):
        l2 = None
    card = describe(training, card, objective, l2)
    if l2 is None:
        return zero_shot_head(card, dim, training.a0, training.b0)
    return training.head(training.solve(objective, l2).theta, card)


def _with_zero_shot(
    terms: Terms, labels: Tensor, weights: Tensor, anchor: Tensor, objective: Objective
) -> Terms:
    """Give the rest of each row's weight to the zero-shot probability, where a label is observed.

    A review that accepted a suggestion unchanged is trusted by half: with the zero-shot probability
    as a soft target for the other half, it does not teach that every label below the threshold is
    absent.
    """
    share = (1.0 - weights).clamp_min(0.0) * objective.counted(labels)
    observed = share[:, None] * (labels.abs() == POSITIVE)
    q = torch.sigmoid(anchor)
    return Terms(terms.pos + observed * q, terms.neg + observed * (1.0 - q), terms.ent)
