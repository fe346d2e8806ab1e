"""Which images to review next so that the reviewed ones cover all kinds of images.

The images are clustered into as many clusters as will be reviewed once the round is done. The round
takes the most typical image of each of the largest clusters in which nothing is reviewed yet
(TypiClust, arXiv 2202.02794). Embeddings alone decide, less their mean and of unit length: no score
and no label, so it works from the first round on, when the model's own doubts mean little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUND = 25
"""Images of one round."""
MOST_CLUSTERS = 500
"""More would cost time and hold few images each; as in the paper. Beyond it, the clusters with the
fewest reviewed images come first."""
NEIGHBOURS = 20
"""An image is typical if it is near to so many of its cluster."""
ALL_AT_ONCE = 5_000
"""Images up to which k-means looks at all in each step, and at a part of them beyond."""
LARGEST_CLUSTER = 2_000
"""Images of a cluster among which the typical one is looked for; of a larger one, a random part."""
_MIN_LENGTH = 1e-6
"""Of an embedding less the mean; shorter where all images are alike."""
_STEPS = 100
"""Of k-means that looks at all images, at most."""
_PASSES = 20
"""Over all images, of k-means that looks at `_BATCH` in each step, at most."""
_BATCH = 4_096


def next_round(
    embeddings: NDArray[np.floating],
    reviewed: NDArray[np.bool_],
    size: int = ROUND,
    seed: int = 0,
) -> list[int]:
    """Places of the images to review next, the one from the largest cluster first.

    The same arguments give the same answer on the same machine.

    Args:
        embeddings: (N, D), L2-normalised.
        reviewed: (N,) whether an image is reviewed.
        size: images wanted.
        seed: of the clustering.

    Returns:
        ``size`` places, or all that are not reviewed, if there are no more.
    """
    open_places = np.flatnonzero(~reviewed)
    if len(open_places) <= size:
        return [int(place) for place in open_places]
    points = _centred(np.asarray(embeddings, dtype=np.float32))
    wanted = min(int(reviewed.sum()) + size, MOST_CLUSTERS)
    clusters = _clusters(points, wanted, seed)
    count = int(clusters.max()) + 1
    reviews = np.bincount(clusters[reviewed], minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    rest = {number: open_places[clusters[open_places] == number] for number in range(count)}
    chosen: list[int] = []
    while len(chosen) < size:
        for number in sorted(rest, key=lambda name: (reviews[name], -sizes[name], name)):
            if len(rest[number]) and len(chosen) < size:
                members = np.flatnonzero(clusters == number)
                place = _most_typical(points, rest[number], members, seed)
                chosen.append(place)
                rest[number] = rest[number][rest[number] != place]
    return chosen


def _centred(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """What tells images apart: embeddings of one model have most in common (docs/benchmark.md)."""
    centred = embeddings - embeddings.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    points: NDArray[np.float32] = centred / np.maximum(lengths, _MIN_LENGTH)
    return np.ascontiguousarray(points)


def _clusters(points: NDArray[np.float32], wanted: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each point (N,), numbered from 0; fewer clusters where points are equal."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    different = len(np.unique(points, axis=0))
    wanted = min(wanted, different)
    if len(points) <= ALL_AT_ONCE:
        means = KMeans(wanted, n_init=1, max_iter=_STEPS, random_state=seed)
    else:
        means = MiniBatchKMeans(
            wanted, n_init=1, max_iter=_PASSES, batch_size=_BATCH, random_state=seed
        )
    clusters: NDArray[np.int32] = means.fit_predict(points)
    return clusters


def _most_typical(
    points: NDArray[np.float32],
    candidates: NDArray[np.intp],
    members: NDArray[np.intp],
    seed: int,
) -> int:
    """The candidate with the smallest mean distance to its nearest neighbours among the members."""
    random = np.random.default_rng(seed)
    candidates, members = (
        np.sort(random.choice(places, LARGEST_CLUSTER, replace=False))
        if len(places) > LARGEST_CLUSTER
        else places
        for places in (candidates, members)
    )
    rows, others = points[candidates], points[members]
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None, :]
    distances = np.sqrt(np.maximum(squares - 2.0 * rows @ others.T, 0.0))
    # No image is a neighbour of its own.
    distances[candidates[:, None] == members[None, :]] = np.inf
    nearest = min(NEIGHBOURS, len(members) - 1)
    if nearest < 1:
        return int(candidates[0])
    means = np.partition(distances, nearest - 1, axis=1)[:, :nearest].mean(1)
    return int(candidates[int(np.argmin(means))])
