"""The votes of similar images: what is on them is likelier on this one, too.

x = (e - m) / |e - m| for an embedding e and the mean m of a bank of images. Of the 10 most similar
others in the bank, weighted by w = max(cos, 1e-4)^3 normalised to sum 1, the logits are averaged:

    l' = (l + s sum(w l_neighbour)) / (1 + s)

It is an average, so that any slope and offset may be applied before or after it. Related: TransCLIP
(NeurIPS 2024), ZLaP (CVPR 2024). Batch-invariant to the bit, see `backend.vlpl.exact`: embeddings
are rounded to multiples of 2^-11, so that all partial sums of their products are exact in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backend.vlpl import exact
from backend.vlpl.head import Head

NEIGHBOURS = 10
STRENGTH = 0.5
"""s, with a bank of `FULL_FROM` images or more; see `strength`."""
FULL_FROM = 200
WEAK_STRENGTH = 0.25
WEAK_FROM = 100
MAX_BANK = 20_000
"""Most images in a bank, which bounds its memory and the time of a vote."""
GRID = 2.0**11
_LEAST_COSINE = 1e-4
_MIN_NORM = 1e-6


def strength(images: int) -> float:
    """s for a bank of this many images; 0: no votes. Chosen on coco-dev (docs/benchmark.md)."""
    if images >= FULL_FROM:
        return STRENGTH
    return WEAK_STRENGTH if images >= WEAK_FROM else 0.0


@dataclass(frozen=True)
class Neighbours:
    """The most similar images of a bank, for each of N images.

    Attributes:
        places: (N, K) indices into the bank, most similar first; K is `NEIGHBOURS`, or the size of
            a smaller bank.
        weights: (N, K) float64, >= 0, of sum 1; all 0 where the bank has no other image.
    """

    places: Tensor
    weights: Tensor

    def vote(self, logits: Tensor, bank: Tensor, strength: Tensor) -> Tensor:
        """Logits after the votes.

        Args:
            logits: (N, C) of the images.
            bank: (M, C) of the bank's images.
            strength: (C,) s of each label, >= 0.

        Returns:
            (N, C) float64.
        """
        total = torch.zeros(logits.shape, dtype=torch.float64)
        # One after the other: the order of a sum decides its last bit.
        for place, weight in zip(self.places.T, self.weights.T, strict=True):
            total += weight[:, None] * bank[place].double()
        share = strength.double() * self.weights.any(1, keepdim=True)
        return (logits.double() + share * total) / (1.0 + share)


@dataclass(frozen=True)
class Votes:
    """A bank that votes on some rows, whose head is not known yet.

    Attributes:
        neighbours: of N rows.
        image: (M, D) embeddings of the bank's images.
        z: (M, C) their zero-shot scores.
        strength: (C,) s of each label.
    """

    neighbours: Neighbours
    image: Tensor
    z: Tensor
    strength: Tensor

    def of(self, rows: Tensor) -> Votes:
        """The votes on some of the rows, by indices or a mask."""
        kept = Neighbours(self.neighbours.places[rows], self.neighbours.weights[rows])
        return replace(self, neighbours=kept)

    def on_scores(self, z: Tensor) -> Tensor:
        """Scores (N, C) of the rows after the votes, float64."""
        return self.neighbours.vote(z, self.z, self.strength)

    def on_logits(self, logits: Tensor, head: Head) -> Tensor:
        """Logits (N, C) of the rows after the votes, float64, where the bank is scored by a head.

        Args:
            logits: (N, C) of the rows.
            head: scores the bank's images.
        """
        return self.neighbours.vote(logits, head.logits(self.image, self.z), self.strength)


class Bank:
    """The embeddings of M images that vote.

    Args:
        image: (M, D) L2-normalised embeddings, as stored; no two alike.

    Attributes:
        strength: s, see `strength`.
    """

    def __init__(self, image: Tensor) -> None:
        total = torch.zeros(image.shape[1], dtype=torch.float64)
        for start in range(0, len(image), exact.ROWS):
            total += exact.stored(image[start : start + exact.ROWS])[0].sum(0)
        self._mean = exact.on_grid(total / max(len(image), 1), exact.EMBEDDING_GRID)
        self._x = torch.empty(image.shape, dtype=torch.float32)
        for start in range(0, len(image), exact.ROWS):
            block = slice(start, start + exact.ROWS)
            self._x[block] = self._centred(exact.stored(image[block])[0])
        self._norms = self._x.square().sum(1)
        self.strength = strength(len(image))

    def __len__(self) -> int:
        return len(self._x)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self._x.element_size() * self._x.numel()

    def _centred(self, values: Tensor) -> Tensor:
        """x as whole steps of `GRID`, float32; sums of products are below 2^24 steps."""
        centred = values - self._mean
        norms = exact.squared_norm(centred).sqrt().clamp_min(_MIN_NORM)
        return torch.round(centred / norms[:, None] * GRID).float()

    def neighbours(self, image: Tensor) -> Neighbours:
        """The images of the bank that are most similar to each of (N, D) embeddings.

        An image of the bank with the same embedding does not count: it would vote for itself.
        """
        count = min(NEIGHBOURS, len(self))
        places = torch.zeros((len(image), count), dtype=torch.int64)
        weights = torch.zeros((len(image), count), dtype=torch.float64)
        # Among equals the first: what is taken must not depend on a sort.
        first = torch.arange(len(self), 0, -1, dtype=torch.float64)
        for start in range(0, len(image), exact.ROWS):
            block = slice(start, start + exact.ROWS)
            values, _ = exact.stored(image[block])
            x = self._centred(values)
            products = x @ self._x.T
            norms = x.square().sum(1)
            same = (products == norms[:, None]) & (norms[:, None] == self._norms)
            rank = products.double() * (len(self) + 1) + first
            rank = rank.masked_fill(same, -torch.inf)
            best = rank.topk(count, dim=1)
            places[block] = best.indices
            cosines = products.double().gather(1, best.indices) / GRID**2
            cubes = cosines.clamp_min(_LEAST_COSINE)
            cubes = (cubes * cubes * cubes).masked_fill(best.values == -torch.inf, 0.0)
            total = torch.zeros(len(cubes), dtype=torch.float64)
            for column in cubes.T:
                total += column
            weights[block] = cubes / total.clamp_min(_LEAST_COSINE**3)[:, None]
        return Neighbours(places, weights)
