"""The rows of backend/encoders/table.py: `python benchmarks/zero_shot_table.py --data DIR`.

DIR as for benchmarks/spml.py. All images are used, since these constants are for new projects and
not to be measured here. Slope, offset and the threshold with the best F1 are fitted; the fitted and
the shipped threshold are both measured, to show the difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from backend.encoders.offline import OfflineEncoder
from backend.encoders.table import CLIP, OFFLINE, Table
from backend.vlpl import zero_shot
from backend.vlpl.metrics import micro
from benchmarks.data import Dataset, load_folder, load_scores


def row(z: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """Slope and offset of the probability, and the threshold with the best F1."""
    model = LogisticRegression(C=1e6).fit(z.reshape(-1, 1).numpy(), truth.reshape(-1).numpy())
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    probability = zero_shot.probabilities(z, slope, offset)
    steps = [step / 100 for step in range(5, 91)]
    best = max(steps, key=lambda step: micro(probability >= step, truth).f1)
    return slope, offset, best


def show(name: str, data: Dataset, shipped: Table) -> None:
    """Print both rows of an encoder, fitted and shipped."""
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
        slope, offset, threshold = row(z, data.truth)
        print(
            f"  {kind}: Row({slope:.2f}, {offset:.2f}, {threshold:g}), shipped "
            f"Row({constants.slope}, {constants.offset}, {constants.threshold})"
        )
        probability = zero_shot.probabilities(z, constants.slope, constants.offset)
        for note, at in (("best F1", threshold), ("shipped", constants.threshold)):
            rates = micro(probability >= at, data.truth)
            print(
                f"    from {at:g} ({note}): precision {rates.precision:.3f}, "
                f"recall {rates.recall:.3f}, F1 {rates.f1:.3f}"
            )


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
