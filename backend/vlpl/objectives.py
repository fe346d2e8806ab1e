"""Training objectives for label matrices in which most entries are unknown.

Every objective is a sum over (image, label) entries of

    pos * -log p  +  neg * -log(1 - p)  -  ent * H(p),      p = sigmoid(logit),
    H(p) = -p log p - (1 - p) log(1 - p),

with coefficients that depend on what is known about the entry. So an objective is a function from
labels to the three coefficients, and `loss` and `gradient` are the same for all objectives. Where a
method makes no use of pseudo-labels, pseudo-labelled entries count as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.vlpl.decisions import (
    NEGATIVE,
    POSITIVE,
    PSEUDO_NEGATIVE,
    PSEUDO_POSITIVE,
    UNKNOWN,
)


@dataclass(frozen=True)
class Terms:
    """Coefficients of -log p, -log(1 - p) and -H(p), each (N, C), >= 0; None stands for zeros."""

    pos: Tensor
    neg: Tensor
    ent: Tensor | None = None

    def weighted(self, rows: Tensor) -> Terms:
        """The coefficients with row n multiplied by rows[n]; rows is (N,), >= 0."""
        scale = rows.to(self.pos)[:, None]
        return Terms(
            self.pos * scale, self.neg * scale, None if self.ent is None else self.ent * scale
        )


def check_labels(labels: Tensor) -> None:
    """Raise ValueError unless labels is an (N, C) integer tensor of the five values above."""
    if labels.ndim != 2 or labels.is_floating_point():
        raise ValueError("labels must be an (N, C) integer tensor")
    if labels.numel() and int(labels.abs().max()) > PSEUDO_POSITIVE:
        raise ValueError("labels must be one of -2, -1, 0, 1, 2")


def _known(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(observed positive, observed negative, neither), each (N, C) float32, 0 or 1."""
    check_labels(labels)
    pos, neg = (labels == POSITIVE).float(), (labels == NEGATIVE).float()
    return pos, neg, 1.0 - pos - neg


def bce(labels: Tensor) -> Terms:
    """Masked binary cross-entropy: known entries only, the rest contribute nothing.

        L = 1[y = 1] (-log p) + 1[y = 0] (-log(1 - p))

    For fully reviewed rows this is the ordinary loss of multi-label learning.

    Args:
        labels: (N, C) integers, see the constants of this module.

    Raises:
        ValueError: labels have other values or another shape (all objectives raise it).
    """
    pos, neg, _ = _known(labels)
    return Terms(pos, neg)


def assume_negative(labels: Tensor) -> Terms:
    """AN: every unknown label counts as a negative.

        L = 1[y = 1] (-log p) + 1[y != 1] (-log(1 - p))

    Source: Cole et al., "Multi-Label Learning from Single Positive Labels", CVPR 2021,
    arXiv 2106.09708; for one observed positive a row it is ``loss_an`` of the released code.
    """
    pos, neg, unknown = _known(labels)
    return Terms(pos, neg + unknown)


def weak_assume_negative(labels: Tensor, gamma: float | None = None) -> Terms:
    """WAN: AN with unknown labels weighted down.

        L = 1[y = 1] (-log p) + 1[y = 0] (-log(1 - p)) + 1[y unknown] gamma (-log(1 - p))

    Args:
        labels: (N, C) integers.
        gamma: weight in [0, 1]; default 1 / (C - 1), so that one positive weighs as much as all
            assumed negatives of its row.

    Source: Cole et al., CVPR 2021, arXiv 2106.09708; ``loss_wan`` of the released code, whose
    weight is 1 / (C - 1).
    """
    pos, neg, unknown = _known(labels)
    weight = 1.0 / max(labels.shape[1] - 1, 1) if gamma is None else gamma
    return Terms(pos, neg + weight * unknown)


def entropy_maximisation(labels: Tensor, alpha: float = 0.1) -> Terms:
    """EM: predictions on unknown labels are pushed towards p = 0.5, "acknowledging the unknown".

        L = 1[y = 1] (-log p) + 1[y = 0] (-log(1 - p)) - 1[y unknown] alpha H(p)

    Args:
        labels: (N, C) integers.
        alpha: weight >= 0 of the entropy; in the released code 0.2 (VOC), 0.1 (COCO, NUS), 0.01
            (CUB).

    Source: Zhou et al., "Acknowledging the Unknown for Multi-label Learning with Single Positive
    Labels", ECCV 2022, arXiv 2203.16219; ``loss_EM`` of its released code.
    """
    pos, neg, unknown = _known(labels)
    return Terms(pos, neg, alpha * unknown)


def entropy_maximisation_apl(
    labels: Tensor,
    logits: Tensor,
    alpha: float = 0.1,
    beta: float = 0.9,
    negative_fraction: float = 0.9,
) -> Terms:
    """EM+APL: EM, and soft negative pseudo-labels from a model's own scores.

    For each label, the ``negative_fraction`` of its unknown images with the lowest scores become
    pseudo-negatives with the model's (frozen) probability q as soft target; there are no positive
    pseudo-labels, hence "asymmetric":

        L = L_EM on observed and remaining unknown entries
            + 1[pseudo-negative] beta (q (-log p) + (1 - q) (-log(1 - p)))

    Args:
        labels: (N, C) integers.
        logits: (N, C) of the model after a round of EM; q = sigmoid(logits).
        alpha: see `entropy_maximisation`.
        beta: weight >= 0 of a pseudo-negative; in the released code 0.02 (VOC), 0.9 (COCO), 0.2
            (NUS), 0.4 (CUB).
        negative_fraction: in [0, 1]; in the released code 0.9, reached step by step over the epochs
            after a warm-up, here in one step.

    Source: Zhou et al., ECCV 2022, arXiv 2203.16219; ``aysmmetric_pseudo_labeling`` (sic) and
    ``loss_EM_APL`` of its released code, which also selects label by label.
    """
    pos, neg, unknown = _known(labels)
    hidden = unknown.bool()
    count = (hidden.sum(0, keepdim=True) * negative_fraction).floor()
    order = logits.masked_fill(~hidden, float("inf")).argsort(dim=0, stable=True)
    pseudo = (hidden & (order.argsort(dim=0) < count)).float()
    target = torch.sigmoid(logits)
    return Terms(
        pos + beta * pseudo * target,
        neg + beta * pseudo * (1.0 - target),
        alpha * (unknown - pseudo),
    )


def large_loss_rejection(labels: Tensor, logits: Tensor, rejected: float = 0.01) -> Terms:
    """LL-R: AN without the unknown entries of largest loss, which are probably false negatives.

        L = 1[y = 1] (-log p) + 1[y != 1] r (-log(1 - p)),
        r = 0 for the ``rejected`` share of unknown entries with the largest loss, else 1.

    The released code takes the share of all entries of a batch and lets it grow by 0.1 ... 0.5 %
    per epoch, from none in the first; here it is the share of the unknown entries of all rows, and
    grows over the rounds of a fit (`training.Objective.terms`).

    Args:
        labels: (N, C) integers.
        logits: (N, C) of the current model; the loss of an assumed negative grows with its logit.
        rejected: in [0, 1].

    Source: Kim et al., "Large Loss Matters in Weakly Supervised Multi-Label Classification",
    CVPR 2022, arXiv 2206.03740; ``compute_batch_loss`` with scheme LL-R of its released code.
    """
    pos, neg, unknown = _known(labels)
    count = int(rejected * int(unknown.sum()))
    keep = unknown
    if count:
        scores = torch.where(unknown.bool(), logits.float(), -torch.inf).flatten()
        keep = unknown.clone()
        keep.view(-1)[scores.argsort(dim=0, descending=True, stable=True)[:count]] = 0.0
    return Terms(pos, neg + keep)


def vlpl(labels: Tensor, alpha: float = 0.1, beta: float = 0.7, smoothing: float = 0.1) -> Terms:
    """VLPL: pseudo-labels of a vision-language model, entropy on what stays unknown.

        L = 1[y = 1] (-log p) + 1[y = 0] (-log(1 - p))
            + 1[pseudo-positive] beta ((1 - s) (-log p) + s (-log(1 - p)))
            + 1[pseudo-negative] (-log(1 - p)) - 1[unknown] alpha H(p)

    Args:
        labels: (N, C) integers, pseudo-labels included.
        alpha: weight >= 0 of the entropy; in the released code 0.2 (VOC), 0.1 (COCO, NUS), 0.01
            (CUB).
        beta: weight >= 0 of a pseudo-positive; in the released code 0.7.
        smoothing: s in [0, 1]; in the released code 0.1.

    Source: Xing et al., "Vision-Language Pseudo-Labels for Single-Positive Multi-Label Learning",
    arXiv 2310.15985; ``loss_EM_PL`` of its released code, whose term for pseudo-negatives is
    commented out and active in ``loss_EM_PL_ASL`` only. The paper's text has it, and so has this
    function; without pseudo-negatives both are the same.
    """
    check_labels(labels)
    pseudo = beta * (labels == PSEUDO_POSITIVE).float()
    return Terms(
        (labels == POSITIVE).float() + (1.0 - smoothing) * pseudo,
        ((labels == NEGATIVE) | (labels == PSEUDO_NEGATIVE)).float() + smoothing * pseudo,
        alpha * (labels == UNKNOWN).float(),
    )


def entry_loss(logits: Tensor, terms: Terms) -> Tensor:
    """The loss of every entry, (N, C); differentiable, and finite for any finite logit."""
    soft = torch.nn.functional.softplus(logits)  # -log(1 - p); and -log p = soft - logit
    total = (terms.pos + terms.neg) * soft - terms.pos * logits
    if terms.ent is not None:
        # H = soft - p logit, from -log(1 - p) = soft and log p = logit - soft.
        total = total - terms.ent * (soft - torch.sigmoid(logits) * logits)
    return total


def loss(logits: Tensor, terms: Terms) -> Tensor:
    """Sum of `entry_loss` over images, one value per label: (C,)."""
    return entry_loss(logits, terms).sum(0)


def gradient(logits: Tensor, terms: Terms) -> Tensor:
    """Derivative of `loss` with respect to the logits, (N, C).

    It is pos (p - 1) + neg p + ent p (1 - p) logit.
    """
    p = torch.sigmoid(logits)
    result = (terms.pos + terms.neg) * p - terms.pos
    if terms.ent is not None:
        result = result + terms.ent * p * (1.0 - p) * logits
    return result
