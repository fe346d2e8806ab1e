"""Projects that know one label of each photo, the case that VLPL is for; a part of spml.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from backend.evaluation.dataset import Dataset
from backend.evaluation.protocol import SEEDS, Row, Scene, final_map, observe, spread
from backend.evaluation.simulated_project import Of, of_scene
from backend.vlpl import pseudo_labels, training
from backend.vlpl.head import Head
from backend.vlpl.training import OBJECTIVES
from benchmarks.presets import PAPER, RELEASED, Preset
from benchmarks.protocol import evaluate, head_of, objective, preset_scores, training_of

WITHOUT, WITH = "mAP, no bank", "mAP, whole project"
"""Columns; which images vote is named as in `votes.Of`."""


def preset_codes(scene: Scene, reviewed: int, preset: Preset) -> Tensor:
    """Label codes (n_train, C): one positive per photo, some rows reviewed, and pseudo-labels."""
    codes = observe(scene, reviewed, single=True)
    return pseudo_labels.assign(preset_scores(scene, scene.train, preset), codes, preset.rule)


def fitted_codes(scene: Scene, reviewed: int) -> Tensor:
    """The same with a rule that is fitted on the reviewed rows."""
    codes = observe(scene, reviewed, single=True)
    z = scene.z[scene.train]
    rule = pseudo_labels.fit_threshold(z[:reviewed], codes[:reviewed])
    return pseudo_labels.assign(z, codes, rule)


def single_positive(data: Dataset, reviewed: int, seeds: Sequence[int] = SEEDS) -> list[Row]:
    """One random positive per training photo: every objective, and `auto` if rows are reviewed.

    Each is trained twice: alone, and with a bank of the whole project, whose votes count and whose
    classifier of regions changes the scores.
    """
    scenes = [Scene.of(data, seed) for seed in seeds]
    projects = [of_scene(scene, Of.PROJECT) for scene in scenes]
    observed = partial(observe, reviewed=reviewed, single=True)
    fitted = partial(fitted_codes, reviewed=reviewed)
    vlpl = partial(_fixed, name="vlpl")
    trials: list[tuple[str, Callable[[Scene], Tensor], Callable[[Scene, Tensor], Head]]] = [
        (goal.name, observed, partial(_fixed, name=goal.name))
        for goal in OBJECTIVES
        if goal.name != "vlpl" and (reviewed or not goal.reviewed_only)
    ]
    trials += [
        (f"vlpl, {preset.name}", partial(preset_codes, reviewed=reviewed, preset=preset), vlpl)
        for preset in (PAPER, RELEASED)
    ]
    if reviewed:
        trials += [("vlpl, fitted", fitted, vlpl), ("auto", fitted, head_of)]
    rows = []
    for name, labelled, make in trials:
        alone, voted, picked = [], [], []
        for scene, project in zip(scenes, projects, strict=True):
            head = make(scene, labelled(scene))
            alone.append(evaluate(scene, head))
            with_bank = replace(scene, z=project.z)
            head = make(with_bank, labelled(with_bank))
            voted.append(final_map(scene, project.probabilities(head, scene.test)))
            picked.append(head.card.objective)
        row: Row = {"objective": name, WITHOUT: spread(alone), WITH: spread(voted)}
        if name == "auto":
            row["picked"] = picked
        rows.append(row)
    return rows


def _fixed(scene: Scene, codes: Tensor, name: str) -> Head:
    return training.fit(training_of(scene, codes), scene.card(), objective(name))
