"""Arithmetic whose result does not depend on the batch, the thread count or the BLAS in use.

Scores must be equal byte for byte whether an image is scored alone, live, or among ten thousand.
Floating-point sums are not: a matrix product adds in an order that depends on its shape. So values
are first rounded to a fixed grid, fine enough to keep all that matters and coarse enough that every
partial sum is an integer multiple of the grid step and below 2^53 steps. Such sums are exact in
float64, hence the same in any order. Elementwise operations (+ - * / sqrt) are correctly rounded
by IEEE 754, hence reproducible too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EMBEDDING_GRID = 2.0**24
"""1 / grid step of a stored embedding: float16's finest step, so that no float16 is rounded."""
WEIGHT_GRID = 2.0**20
"""1 / grid step of a head's weights."""
TEXT_GRID = 2.0**26
"""1 / grid step of a text embedding."""
MOMENT_GRID = 2.0**12
"""1 / grid step of the values that `row_moments` sums."""
MAX_NORM = 2.0
"""Largest length of an embedding for which the sums are exact."""
MAX_WEIGHT_NORM = 2.0**8
"""The same for a label's weights in a head."""
ROWS = 512
"""Images per block, to bound memory."""

_LN2 = 0.6931471805599453
_EXP_TERMS = 14


def on_grid(values: Tensor, grid: float) -> Tensor:
    """Values rounded to multiples of 1 / grid, float64, of the same shape."""
    return torch.round(values.double() * grid) / grid


def stored(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings as the store keeps them (float16), and their `squared_norm`; both float64.

    Args:
        embedding: (..., D).

    Returns:
        (..., D) and (...).

    Raises:
        ValueError: a value is not finite, or a vector is longer than ``MAX_NORM`` (embeddings are
            L2-normalised; beyond that bound sums would no longer be exact).
    """
    values = embedding.half().double()
    norms = squared_norm(values)
    # Written so that NaN fails it too.
    if not bool((norms <= MAX_NORM**2).all()):
        raise ValueError("embeddings must be finite and L2-normalised")
    return values, norms


def squared_norm(values: Tensor) -> Tensor:
    """Sum of squares over the last dimension; exact for vectors up to ``MAX_NORM``.

    Squares are taken on a 2^-24 grid, so they lie on 2^-48 and sum to at most 2^50 steps.
    """
    coarse = torch.round(values * EMBEDDING_GRID)
    return (coarse * coarse).sum(-1) / EMBEDDING_GRID**2


def product(embedding: Tensor, weights: Tensor) -> Tensor:
    """Exact ``embedding @ weights.T`` in float64.

    Args:
        embedding: (..., D) from `stored`, |x| <= 2.
        weights: (C, D) on a grid, such that |x| |w| grid_x grid_w < 2^53 for every row.

    Returns:
        (..., C) float64.
    """
    return embedding @ weights.T


def row_moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the last dimension, order-independent.

    Args:
        values: (N, C), C < 2^14; clamped to [-2^7, 2^7] and rounded to 2^-12.

    Returns:
        Two (N, 1) float64 tensors.
    """
    steps = torch.round(values.clamp(-(2.0**7), 2.0**7) * MOMENT_GRID)
    count = values.shape[-1]
    mean = steps.sum(-1, keepdim=True) / count
    square = (steps * steps).sum(-1, keepdim=True) / count
    variance = (square - mean * mean).clamp_min(0.0)
    return mean / MOMENT_GRID, variance / MOMENT_GRID**2


def exp(values: Tensor) -> Tensor:
    """e^x in float64 with x clamped to [-80, 80], from elementwise IEEE operations only.

    Library exponentials may differ in the last bit between their vectorised body and their tail,
    which makes a result depend on its position. Relative error below 1e-14.

    In numpy, because a live prediction has one row: there a call of torch costs more than its
    arithmetic, and each lets another thread take the interpreter.

    Raises:
        ValueError: a value is NaN.
    """
    if bool(values.isnan().any()):
        raise ValueError("values must not be NaN")
    x = np.clip(values.detach().cpu().double().numpy(), -80.0, 80.0)
    power = np.rint(x / _LN2)
    rest = x - power * _LN2
    total = np.ones_like(rest)
    for term in range(_EXP_TERMS, 0, -1):
        total *= rest
        total /= term
        total += 1.0
    scaled = np.ldexp(total, power.astype(np.int32))
    return torch.from_numpy(np.asarray(scaled)).to(values.device)


def sigmoid(values: Tensor) -> Tensor:
    """1 / (1 + e^-x) in float64, in (0, 1), of the same shape; see `exp`."""
    return 1.0 / (1.0 + exp(-values))
