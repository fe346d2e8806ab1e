"""Groups of images that show nearly the same, by their embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 2048, 8192
"""Images that are compared with each other at once: 64 MB."""


def near_groups(embeddings: NDArray[np.float16], near: float) -> NDArray[np.int64]:
    """Put images into one group whose cosine reaches ``near``, and those near to these, and so on.

    Every image is compared with every other, so the time grows with the square of their number; no
    list of pairs is kept, however many there are.

    Args:
        embeddings: (N, D), L2-normalised.
        near: a cosine, in (0, 1].

    Returns:
        (N,) the place of the first image of each image's group.
    """
    groups = np.arange(len(embeddings))
    for top in range(0, len(embeddings), ROWS):
        rows = _normalised(embeddings[top : top + ROWS])
        for left in range(0, top + len(rows), COLUMNS):
            columns = _normalised(embeddings[left : min(left + COLUMNS, top + len(rows))])
            # Of float16, equal vectors may come out a little below 1.
            close = rows @ columns.T >= min(near, 1.0 - 1e-3)
            for place in np.flatnonzero(close.any(axis=1)).tolist():
                _join(groups, np.append(np.flatnonzero(close[place]) + left, top + place))
    return groups


def _join(groups: NDArray[np.int64], members: NDArray[np.intp]) -> None:
    found = np.unique(groups[members])
    if len(found) > 1:
        groups[np.isin(groups, found)] = found[0]


def _normalised(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    values = rows.astype(np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    result: NDArray[np.float32] = values / np.maximum(norms, 1e-12)
    return result
