"""The rows of backend/encoders/table.py: `python benchmarks/zero_shot_table.py --data DIR`.

DIR as for benchmarks/spml.py. All images are used, since these constants are for new projects and
not to be measured here. Slope and offset are fitted to all labels, and to random sets of them, as
if each were a project of its own: their mean and covariance are the prior over projects.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from backend.encoders.offline import OfflineEncoder
from backend.encoders.table import CLIP, OFFLINE, TICK_FROM, Table
from backend.evaluation.dataset import Dataset
from backend.evaluation.label_sets import SETS, Photos, projects
from backend.vlpl import zero_shot
from backend.vlpl.metrics import expected_clicks, micro
from benchmarks.data import load_folder, load_scores

SET_SIZES = (3, 5, 10, 20)


def row(z: Tensor, truth: Tensor, strength: float = 1e6) -> tuple[float, float]:
    """Slope and offset of the probability.

    Args:
        z: scores.
        truth: of the same shape.
        strength: inverse of the penalty on the slope.
    """
    model = LogisticRegression(C=strength).fit(z.reshape(-1, 1).numpy(), truth.reshape(-1).numpy())
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def prior(data: Dataset) -> tuple[Tensor, Tensor]:
    """Mean (2,) and covariance (2, 2) of slope and offset over random label sets."""
    fitted = []
    for size, photos in product(SET_SIZES, Photos):
        for _, project in projects(data, size, photos, SETS):
            statistics = zero_shot.fit_statistics(project.whole, project.best)
            z = zero_shot.fuse(project.whole, project.best, statistics)
            # A label set whose photos are told apart without error has no finite slope.
            fitted.append(row(z, project.truth, strength=1.0))
    values = torch.tensor(fitted, dtype=torch.float64)
    return values.mean(0), values.T.cov()


def show(name: str, data: Dataset, shipped: Table) -> None:
    """Print the rows and the prior of an encoder, fitted and shipped."""
    statistics = zero_shot.fit_statistics(data.whole, data.best)
    per_image = float(data.truth.sum(1).double().mean())
    print(f"{name}: {data.encoder}")
    print(
        f"  {len(data.truth)} images, {len(data.classes)} labels (shipped {shipped.labels}), "
        f"{per_image:.2f} labels per image (shipped {shipped.labels_per_image}); standard "
        f"deviation of a cosine over labels {float(data.whole.std(1).mean()):.3f} "
        f"(shipped {shipped.spread})"
    )
    for kind, frozen, constants in (
        ("with statistics", statistics, shipped.with_statistics),
        ("without statistics", None, shipped.without_statistics),
    ):
        z = zero_shot.fuse(data.whole, data.best, frozen, shipped.spread)
        slope, offset = row(z, data.truth)
        print(f"  {kind}: Row({slope:.2f}, {offset:.2f}), shipped {constants}")
        chosen = zero_shot.probabilities(z, constants.slope, constants.offset) >= TICK_FROM
        rates = micro(chosen, data.truth)
        with_help, from_nothing = expected_clicks(chosen, data.truth)
        print(
            f"    shipped, from {TICK_FROM}: precision {rates.precision:.3f}, recall "
            f"{rates.recall:.3f}, clicks {with_help:.2f}, from nothing {from_nothing:.2f}"
        )
    mean, covariance = prior(data)
    print(f"  prior: mean {mean.tolist()}, covariance {covariance.tolist()}")
    print(f"  shipped: {shipped.prior}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    options = parser.parse_args()
    torch.set_num_threads(2)
    show("OFFLINE", load_folder(options.data / "coco-dev", OfflineEncoder()), OFFLINE)
    show("CLIP", load_scores(options.data / "voc2012-clip-scores" / "dev.npz"), CLIP)


if __name__ == "__main__":
    main()
