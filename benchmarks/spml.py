"""The benchmark: `python benchmarks/spml.py --data DIR`.

DIR holds ``coco-dev/`` (photos, labels) and ``voc2012-clip-scores/dev.npz`` (CLIP scores).
Prints its tables and puts them and the plots into docs/benchmark.md (not with ``--no-write``).

With ``--protocol spml --seed S`` DIR is one folder of photos in the shape of coco-dev (see
benchmarks/data.py; an official test set may be named there), and the paper's protocol is run on it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from backend.cli import markdown
from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.encoders.table import CLIP, OFFLINE
from backend.evaluation import simulated_project
from backend.evaluation.dataset import Dataset
from backend.evaluation.label_sets import SETS, label_sets
from backend.evaluation.protocol import SEEDS, Row, Scene, final_map, spread, zero_shot_variants
from backend.settings import Settings
from benchmarks import order, paper, plots, protocol, report
from benchmarks.data import load_folder, load_scores
from benchmarks.single_positive import WITH, single_positive
from benchmarks.suggestions import suggestion_quality
from benchmarks.unreadable import unreadable_labels

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- tables: written by benchmarks/spml.py -->", "<!-- end of tables -->"
FITTED_SPLITS = range(20)
REVIEWED_FOR_PRESETS = 400
TILED = 400
"""Photos on which real crops are tried: ten encodes each."""
Section = tuple[str, str, list[Row]]


def _timed(title: str, note: str, make: Callable[[], list[Row]]) -> Section:
    started = time.monotonic()
    rows = make()
    print(f"\n## {title} ({time.monotonic() - started:.0f} s)\n\n{note}\n", flush=True)
    print(markdown.table(rows), flush=True)
    return title, note, rows


def _encoder(name: str, regions: str = "auto") -> Encoder:
    return get_encoder(Settings.model_validate({"encoder": name, "regions": regions}))


def _zero_shot_maps(data: Dataset) -> list[float]:
    """In percent, for each seed."""
    scenes = [Scene.of(data, seed) for seed in SEEDS]
    return [final_map(scene, scene.z[scene.test]) for scene in scenes]


def regions(folder: Path, encoder_name: str, count: int = TILED) -> list[Row]:
    """Zero-shot mAP with no regions, cells of the feature map, and real overlapping crops."""
    tiles = load_folder(folder, _encoder(encoder_name, "tiles"), count)
    cells = load_folder(folder, _encoder(encoder_name), count)
    rows = []
    for name, data in (
        ("whole photo only", replace(cells, best=cells.whole)),
        ("cells", cells),
        ("real crops (tiles)", tiles),
    ):
        values = _zero_shot_maps(data)
        rows.append({"regions": name, "encodes per photo": 10 if data is tiles else 1})
        rows[-1] |= spread(values)
    return rows


def region_bytes(folder: Path, encoder_name: str) -> list[Row]:
    """Zero-shot mAP with regions as float16, and as the store keeps them."""
    encoder = _encoder(encoder_name)
    rows: list[Row] = []
    exact: list[float] = []
    for name, data in (
        ("2 (float16)", load_folder(folder, encoder, exact_regions=True)),
        ("1 (int8, as stored)", load_folder(folder, encoder)),
    ):
        values = _zero_shot_maps(data)
        exact = exact or values
        lost = [one - other for one, other in zip(values, exact, strict=True)]
        rows.append({"bytes a value": name, **spread(values)})
        rows[-1]["difference"] = f"{statistics.mean(lost):+.3f} (worst {min(lost):+.3f})"
    return rows


def standard(data: Path, encoder_name: str) -> list[Section]:
    """All tables of docs/benchmark.md."""
    encoder = _encoder(encoder_name)
    photos = load_folder(data / "coco-dev", encoder)
    scores = load_scores(data / "voc2012-clip-scores" / "dev.npz")
    half = "Half of the photos to train from, half to test on, 5 seeds, mean ± standard deviation."
    return [
        _timed(
            "Zero-shot, VOC2012 with CLIP RN50x64",
            "mAP in percent; statistics from the training half only.",
            lambda: zero_shot_variants(scores),
        ),
        _timed(
            "Zero-shot, coco-dev",
            f"{half} Encoder: `{encoder.id}`. Labels with 5 test positives or more.",
            lambda: zero_shot_variants(photos),
        ),
        _timed(
            "Regions, coco-dev",
            f"Zero-shot mAP on {TILED} of the photos, the same for every row: half for the "
            "statistics, half to test on, 5 seeds. Few photos, so labels with 5 test positives or "
            "more are fewer and the figures differ from those above.",
            lambda: regions(data / "coco-dev", encoder_name),
        ),
        _timed(
            "Regions in one byte a value, coco-dev",
            "Zero-shot mAP on all photos; the difference is taken seed by seed.",
            lambda: region_bytes(data / "coco-dev", encoder_name),
        ),
        _timed(
            "Few labels, coco-dev",
            "mAP with this many labels in the config (drawn again for each seed): per-image "
            "standardisation as it is, and shrunk.",
            lambda: protocol.small_label_sets(photos),
        ),
        _timed(
            "Small projects, coco-dev",
            f"{SETS} random label sets of each size, each as if it were a project: clicks with "
            "suggestions divided by clicks from nothing, on photos that are not reviewed. Photos: "
            "all, or its own, which have one of its labels at least. Commonest label only: after "
            "the most reviews, ticking nothing but the label that most of them have, if one has.",
            lambda: label_sets(photos, OFFLINE),
        ),
        _timed(
            "Small projects, VOC2012",
            "The same with the scores of a real CLIP, before anything is reviewed.",
            lambda: label_sets(scores, CLIP),
        ),
        _timed(
            "Pseudo-labels, VOC2012",
            "20 splits; `fitted` aims at precision 0.95 and sees labels of the first half only; "
            "`refused` counts splits without any pseudo-positive.",
            lambda: protocol.pseudo_label_presets(scores, FITTED_SPLITS, None),
        ),
        _timed(
            "Pseudo-labels, coco-dev",
            f"20 splits; `fitted` sees {REVIEWED_FOR_PRESETS} reviewed photos. A dash: the preset "
            "refused, because no threshold reaches the target.",
            lambda: protocol.pseudo_label_presets(photos, FITTED_SPLITS, REVIEWED_FOR_PRESETS),
        ),
        _timed(
            "Threshold and negative fraction, VOC2012",
            "The paper's two constants on this encoder, by what they let through. One split; the "
            "interval is a bootstrap over its test photos, of the positives' or the negatives' "
            "precision.",
            lambda: protocol.threshold_ablation(scores),
        ),
        _timed(
            "Learning curve, coco-dev",
            f"mAP over reviewed photos. {half} From scratch twice: this solver and scikit-learn's "
            "`OneVsRestClassifier(LogisticRegression)`, both with the penalty that the same "
            "cross-validation chose.",
            lambda: protocol.learning_curve(photos),
        ),
        _timed(
            "Order of review, coco-dev",
            "Test mAP once 25, 50, 100 and 200 photos are reviewed, in brackets the mean "
            "difference to random order, seed by seed; and the clicks that a photo takes while the "
            f"first {order.LABELLING} are labelled. After each 25 photos a head is trained on all "
            "that are reviewed, as in a project without blind and audit tasks. Coverage is what "
            f"the tab `next 25` offers. All photos vote. {half}",
            lambda: order.review_orders(photos),
        ),
        _timed(
            "What a project gains from its own photos, coco-dev",
            "mAP and clicks an image by number of photos reviewed in random order, as a "
            "project does it: nothing, a correction, or a head. A bank adds the votes of "
            "similar photos and the classifier of regions. With the whole project in the "
            "bank, nobody has labelled the test photos, but they are there; with the training "
            "half in it, they are like photos that are uploaded later. Commonest label only: "
            f"ticking nothing but the label that most of the reviewed photos have. {half}",
            lambda: simulated_project.learning_curve(photos, OFFLINE),
        ),
        _timed(
            "Labels that the encoder cannot read, coco-dev",
            "As if it could read none of the 80: their score is 0, and only what was reviewed and "
            f"the votes of similar photos tell anything. {half}",
            lambda: unreadable_labels(photos),
        ),
        _timed(
            "One positive per photo, nothing reviewed, coco-dev",
            f"Default penalty, paper's constants; alone, and with all photos as a bank. {half}",
            lambda: single_positive(photos, 0),
        ),
        _timed(
            "One positive per photo and 100 reviewed photos, coco-dev",
            "`auto` cross-validates on the reviewed photos and trains on all; alone, and with all "
            f"photos as a bank. {half}",
            lambda: single_positive(photos, 100),
        ),
        _timed(
            "What an annotator sees, coco-dev",
            "Calibration and thresholds from held-out folds, goal precision 0.9, maybe band with "
            "conformal risk 0.1; means over 5 seeds. Shown: suggested and maybe together; "
            "narrowest: what the best single threshold, known afterwards, would show for a tenth "
            "missed. Clicks are labels to add plus to remove.",
            lambda: suggestion_quality(photos),
        ),
    ]


def write(sections: list[Section]) -> None:
    """Put tables and plots into docs/."""
    images = ROOT / "docs" / "img"
    by_title = {title: rows for title, _, rows in sections}
    pictures: dict[str, str] = {}

    def draw(title: str, name: str, plot: Callable[[list[Row], Path], None]) -> None:
        pictures[title] = f"benchmark-{name}.png"
        plot(by_title[title], images / pictures[title])

    floor = by_title["Learning curve, coco-dev"][0]["anchored"]["mean"]
    draw("Learning curve, coco-dev", "curve", plots.plot_curve)
    draw("Pseudo-labels, VOC2012", "pseudo-labels", plots.plot_presets)
    draw("Small projects, coco-dev", "label-sets", plots.plot_label_sets)
    draw("What a project gains from its own photos, coco-dev", "own-photos", plots.plot_own_photos)
    draw(
        "One positive per photo and 100 reviewed photos, coco-dev",
        "single-positive",
        lambda rows, path: plots.plot_bars(rows, "objective", WITH, path, floor),
    )
    parts = []
    for title, note, rows in sections:
        part = f"## {title}\n\n{note}\n\n{markdown.table(rows)}"
        if title in pictures:
            part += f"\n\n![{title}](img/{pictures[title]})"
        parts.append(part)
    report.put(ROOT / "docs" / "benchmark.md", START, END, "\n\n".join(parts))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--encoder", default="offline", help="as LS_CLIP_ENCODER")
    parser.add_argument("--protocol", choices=("standard", "spml"), default="standard")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the positives")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as they are")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--json", type=Path, help="also write all rows here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    if options.protocol == "spml":
        photos = load_folder(options.data, _encoder(options.encoder))
        note = f"One positive per photo, seed {options.seed}. " + " ".join(
            (paper.__doc__ or "").split()
        )
        sections = [
            _timed(
                f"The paper's protocol on {photos.name}",
                note,
                lambda: paper.paper_protocol(photos, options.seed),
            )
        ]
    else:
        sections = standard(options.data, options.encoder)
    if options.json:
        content: dict[str, Any] = {title: rows for title, _, rows in sections}
        options.json.write_text(json.dumps(content, indent=1))
    if not options.no_write and options.protocol == "standard":
        write(sections)
    print(f"\n{time.monotonic() - started:.0f} s, torch {torch.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
