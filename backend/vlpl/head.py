"""A head anchored at zero-shot: logit = a z + x W + b, per label.

It starts as (a0, b0, W = 0), which is the zero-shot probability sigmoid(a0 z + b0), and training
moves it away only as far as the annotations outweigh the penalty (`backend.vlpl.training`). After
CLAP (Silva-Rodriguez et al., CVPR 2024, arXiv 2312.12730), with one sigmoid per label instead of a
softmax.
Scores are batch-invariant to the bit, see `backend.vlpl.exact`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from backend.vlpl import exact
from backend.vlpl.decisions import PROVENANCE_WEIGHTS
from backend.vlpl.zero_shot import Statistics


class HeadError(ValueError):
    """A stored head is damaged."""


@dataclass(frozen=True)
class Card:
    """What a head was made from, written beside its tensors; all of it is JSON-serialisable.

    Attributes:
        labels: the C label names, in the order of the tensors.
        encoder: id of the encoder.
        statistics: `statistics_hash` of the frozen statistics.
        objective: name of the training objective, see `training.describe`.
        constants: of the objective, the penalty and the anchor, see `training.describe`.
        counts: of labels and rows, see `training.describe`.
        metrics: name -> value, of the cross-validation.
        table: every candidate of the cross-validation, see `selection.Selection`.
        created: ISO 8601 time, given by the caller (the method reads no clock).
    """

    labels: tuple[str, ...]
    encoder: str
    statistics: str
    objective: str = "zero-shot"
    constants: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    table: tuple[Mapping[str, Any], ...] = ()
    created: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable mapping, which is the format on disk."""
        return {
            "labels": list(self.labels),
            "encoder": self.encoder,
            "statistics": self.statistics,
            "objective": self.objective,
            "constants": dict(self.constants),
            "counts": dict(self.counts),
            "metrics": dict(self.metrics),
            "table": [dict(row) for row in self.table],
            "created": self.created,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Inverse of `as_dict`; raises KeyError where a field is missing."""
        return cls(
            tuple(data["labels"]),
            str(data["encoder"]),
            str(data["statistics"]),
            str(data["objective"]),
            dict(data["constants"]),
            dict(data["counts"]),
            dict(data["metrics"]),
            tuple(dict(row) for row in data["table"]),
            str(data["created"]),
        )


@dataclass(frozen=True)
class Head:
    """Parameters of C labels over D-dimensional embeddings.

    Attributes:
        weight: W transposed, (C, D) float32, multiples of 2^-20.
        slope: a, (C,) float64, logits per unit of z.
        offset: b, (C,) float64, logits.
        card: what it was made from.
    """

    weight: Tensor
    slope: Tensor
    offset: Tensor
    card: Card

    def logits(self, image: Tensor, z: Tensor) -> Tensor:
        """a z + x W + b.

        Args:
            image: (N, D) L2-normalised embeddings; rounded to float16, as the store keeps them.
            z: (N, C) from `zero_shot.fuse`.

        Returns:
            (N, C) float64.

        Raises:
            ValueError: the shapes do not fit, or an embedding is not finite and normalised.
        """
        if image.ndim != 2 or z.shape != (len(image), len(self.slope)):
            raise ValueError(f"{tuple(z.shape)} scores for {len(self.slope)} labels")
        anchor = self.slope * z.double() + self.offset
        if not bool(self.weight.any()):
            return anchor
        weight = self.weight.double()
        for start in range(0, len(image), exact.ROWS):
            block, _ = exact.stored(image[start : start + exact.ROWS])
            anchor[start : start + exact.ROWS] += exact.product(block, weight)
        return anchor

    def probabilities(self, image: Tensor, z: Tensor) -> Tensor:
        """The sigmoid of `logits`, (N, C) float32 in [0, 1]; same arguments and errors."""
        return exact.sigmoid(self.logits(image, z)).float()

    def rescaled(self, scale: float, shift: float) -> Head:
        """The head whose logits are scale * logit + shift: a calibration folded into the head."""
        return replace(
            self,
            weight=on_weight_grid(self.weight.double() * scale),
            slope=self.slope * scale,
            offset=self.offset * scale + shift,
        )

    def carried_over(self, labels: Sequence[str], a0: float, b0: float) -> Head:
        """The head for another label set, in the order of ``labels``.

        Labels that the head knows keep their parameters; new ones start at zero-shot (a0, b0).
        """
        place = {label: index for index, label in enumerate(self.card.labels)}
        weight = torch.zeros(len(labels), self.weight.shape[1])
        slope = torch.full((len(labels),), a0, dtype=torch.float64)
        offset = torch.full((len(labels),), b0, dtype=torch.float64)
        for index, label in enumerate(labels):
            if label in place:
                old = place[label]
                weight[index] = self.weight[old]
                slope[index], offset[index] = self.slope[old], self.offset[old]
        gone = set(self.card.labels) - set(labels)
        counts = {label: n for label, n in self.card.counts.items() if label not in gone}
        return Head(weight, slope, offset, replace(self.card, labels=tuple(labels), counts=counts))

    def renamed(self, present: Sequence[str]) -> tuple[Head, list[int]]:
        """The head with other names for its labels.

        Of several labels that are one by now, the one that had the name already keeps its
        parameters, else the one with the most positives.

        Args:
            present: a name per label, in the order of the card.

        Returns:
            The head, and the places that its labels had.
        """
        former, known = self.card.labels, self.card.counts
        kept: dict[str, int] = {}
        ranks = [
            (label == name, known.get(label, 0), -place)
            for place, (label, name) in enumerate(zip(former, present, strict=True))
        ]
        for place, name in enumerate(present):
            if name not in kept or ranks[place] > ranks[kept[name]]:
                kept[name] = place
        places = sorted(kept.values())
        counts = {name: count for name, count in known.items() if name not in former}
        counts |= {
            present[place]: known[former[place]] for place in places if former[place] in known
        }
        card = replace(self.card, labels=tuple(present[place] for place in places), counts=counts)
        head = Head(self.weight[places], self.slope[places], self.offset[places], card)
        return head, places

    def to_bytes(self) -> tuple[bytes, bytes]:
        """The tensors (safetensors) and the card (JSON with a sha256 of both); reproducible."""
        tensors = safetensors.torch.save(
            {"weight": self.weight.contiguous(), "slope": self.slope, "offset": self.offset}
        )
        card = self.card.as_dict()
        digest = hashlib.sha256(tensors + _canonical(card)).hexdigest()
        return tensors, json.dumps({**card, "sha256": digest}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, tensors: bytes, card: bytes) -> Head:
        """Inverse of `to_bytes`, with a check of the sha256.

        Raises:
            HeadError: the checksum differs, a field is missing, a value is not finite, or shapes
                and labels disagree.
        """
        try:
            data = json.loads(card)
            expected = data.pop("sha256")
            if hashlib.sha256(tensors + _canonical(data)).hexdigest() != expected:
                raise HeadError("the head does not match its checksum")
            parts = safetensors.torch.load(tensors)
            head = cls(parts["weight"], parts["slope"], parts["offset"], Card.from_dict(data))
        except HeadError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise HeadError(f"the head cannot be read: {error!r}") from error
        if not all(bool(part.isfinite().all()) for part in (head.weight, head.slope, head.offset)):
            raise HeadError("the head holds values that are not finite")
        count = len(head.card.labels)
        if head.weight.ndim != 2 or {len(head.weight), len(head.slope), len(head.offset)} != {
            count
        }:
            raise HeadError("the head's tensors and its label list differ in length")
        return head


def _canonical(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def statistics_hash(statistics: Statistics | None) -> str:
    """Hex SHA-256 of the canonical JSON of the statistics; "none" without any."""
    if statistics is None:
        return "none"
    return hashlib.sha256(_canonical(statistics.as_dict())).hexdigest()


def on_weight_grid(weight: Tensor) -> Tensor:
    """(C, D) weights as float32 multiples of 2^-20 in rows of length 2^7 at most.

    Within these bounds `exact.product` is exact.
    """
    length = weight.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    shrunk = weight.double() * (exact.MAX_WEIGHT_NORM / 2 / length).clamp_max(1.0)
    return exact.on_grid(shrunk, exact.WEIGHT_GRID).float()


def zero_shot_head(card: Card, dim: int, a0: float, b0: float) -> Head:
    """The head before any annotation, for D = ``dim``: its probabilities are those of zero-shot.

    Equal byte for byte to `zero_shot.probabilities` with the same (a0, b0).
    """
    count = len(card.labels)
    return Head(
        torch.zeros(count, dim),
        torch.full((count,), a0, dtype=torch.float64),
        torch.full((count,), b0, dtype=torch.float64),
        card,
    )


def row_weights(provenance: Sequence[str]) -> Tensor:
    """Training weight of each row, (N,) float32, from how it was reviewed.

    Args:
        provenance: one key of `PROVENANCE_WEIGHTS` per row, N in all.

    Raises:
        KeyError: a value is not among them.
    """
    return torch.tensor([PROVENANCE_WEIGHTS[kind] for kind in provenance], dtype=torch.float32)
