"""Labels that the encoder cannot read, as if all of a project's were such; a part of spml.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import SEEDS, Row, Scene, final_map, observe, spread
from backend.evaluation.simulated_project import Of, Project, of_scene
from backend.vlpl.metrics import expected_clicks
from benchmarks.protocol import TABLE

COUNTS = (10, 25, 100, 400)
"""Numbers of photos reviewed; without any, nothing is known of such labels."""


def unreadable_labels(data: Dataset, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """Test mAP and clicks by number of reviewed photos, beside labels that can be read."""
    scenes = [Scene.of(data, seed) for seed in seeds]
    everything = torch.arange(len(data.truth))
    kinds = {
        "unreadable": [Project.of_unreadable_labels(data, everything) for _ in scenes],
        "readable": [of_scene(scene, Of.PROJECT) for scene in scenes],
    }
    rows: list[Row] = []
    for count in COUNTS:
        row: Row = {"reviewed": count}
        for kind, projects in kinds.items():
            maps, clicks = [], []
            for scene, project in zip(scenes, projects, strict=True):
                codes = observe(scene, count, single=False)[:count]
                fitted = project.fitted(scene.train[:count], codes, TABLE)
                p = project.probabilities(fitted.head, scene.test)
                maps.append(final_map(scene, p))
                truth = data.truth[scene.test]
                clicks.append(expected_clicks(p >= fitted.thresholds, truth)[0])
            row[f"mAP, {kind}"] = spread(maps)
            row[f"clicks, {kind}"] = sum(clicks) / len(clicks)
        rows.append(row)
    return rows
