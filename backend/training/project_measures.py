"""What a project's present suggestions are worth on the reviewed tasks that chance has chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from backend.errors import SettingsError
from backend.inference.embedder import Embedder
from backend.inference.evidence import ScoredControl
from backend.inference.model_version import ModelVersion
from backend.inference.predictor import scored_controls
from backend.inference.task_images import TaskInput
from backend.inference.versions import ModelVersions
from backend.labels.controls import Control
from backend.labelstudio.client import LabelStudioClient
from backend.messages.message import Message
from backend.settings import Settings
from backend.storage.score_files import Part, ScoreFiles
from backend.training.click_count import (
    JudgedTask,
    Seen,
    clicks_of,
    count_clicks,
    is_known,
    judged_tasks,
    predicted,
)
from backend.training.pulling import Pulled, pull
from backend.vlpl.clicks import Clicks
from backend.vlpl.decisions import POSITIVE, UNKNOWN
from backend.vlpl.label_figures import Held, LabelFigures, label_figures
from backend.vlpl.metrics import Rates, micro

SCANNED = 1000
"""Annotated tasks that `clicks_of_project` looks at; one in seven is judged by default."""


@dataclass(frozen=True)
class ControlMeasures:
    """Of one control.

    Attributes:
        tasks: judged tasks with this control.
        rates: of all ticks together.
        labels: figures of each label.
    """

    tasks: int
    rates: Rates
    labels: tuple[LabelFigures, ...]


@dataclass(frozen=True)
class ProjectMeasures:
    """Of one project.

    Attributes:
        model_version: whose suggestions were measured.
        reviewed: tasks that people reviewed.
        held_out: those of them that no head is trained on: blind and audit tasks.
        judged: those of these that have scores.
        controls: control name -> its measures; controls whose labels stand in the tasks' data are
            left out.
        clicks: that the suggestions cost; None without a judged task.
    """

    model_version: str
    reviewed: int
    held_out: int
    judged: int
    controls: Mapping[str, ControlMeasures]
    clicks: Clicks | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; rates in percent, as for a folder."""
        clicks = self.clicks
        return {
            "model_version": self.model_version,
            "reviewed": self.reviewed,
            "held_out": self.held_out,
            "judged": self.judged,
            "clicks_per_image": None if clicks is None else clicks.per_task,
            "clicks_from_nothing": None if clicks is None else clicks.from_nothing,
            "clicks_interval": None if clicks is None else list(clicks.interval),
            "clicks": None if clicks is None else clicks.as_dict(),
            "controls": {
                name: {
                    "tasks": control.tasks,
                    **{
                        f"micro_{kind}": 100 * value
                        for kind, value in asdict(control.rates).items()
                    },
                    "labels": [figures.as_dict() for figures in control.labels],
                }
                for name, control in self.controls.items()
            },
        }


def measure_project(
    settings: Settings,
    studio: LabelStudioClient,
    versions: ModelVersions,
    embedder: Embedder,
    number: int,
) -> ProjectMeasures:
    """Compare the kept scores of a project's present version with what people decided.

    Where those are not made yet, the scores of the version that is shown count. Where tasks bring
    their own labels along, no scores are kept: then the stored embeddings are scored.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        SettingsError: no scores are kept of either version.
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    pulled = pull(studio, versions.store, number, settings.blind_share)
    version = versions.get(pulled.config, pulled.key)
    judged = judged_tasks(pulled, settings.audit_share)
    if _has_own_labels(pulled):
        seen = predicted(version, embedder, judged)
    else:
        shown = str(studio.projects.get(number)["model_version"])
        name, part = _kept(ScoreFiles(versions.store), pulled, (version.name, shown))
        if not part:
            raise SettingsError(
                Message(
                    "Project {number} has no scores of its present version, {name}.",
                    number=number,
                    name=version.name,
                ),
                Message("Run: ls-clip connect {number}.", number=number),
            )
        version = replace(version, name=name)
        seen = _seen(version, part, judged)
    controls = {}
    for control in pulled.config.controls:
        approvals = pulled.approvals.get(control.name)
        if approvals and not control.has_own_labels:
            support = (np.array([item.states for item in approvals]) == POSITIVE).sum(0)
            controls[control.name] = _measure(version, control, seen, support.tolist())
    return ProjectMeasures(
        version.name,
        len(pulled.reviewed),
        len(judged),
        len(seen),
        controls,
        clicks_of(version, seen),
    )


def clicks_of_project(
    settings: Settings,
    studio: LabelStudioClient,
    versions: ModelVersions,
    embedder: Embedder,
    number: int,
) -> Clicks | None:
    """The clicks that a project's present suggestions cost, by the scores that are kept.

    Of the first `SCANNED` annotated tasks those count that are judged. Where tasks bring their own
    labels along, no scores are kept: then the stored embeddings are scored.

    Returns:
        None if none of them is judged, or has scores.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    pulled = pull(studio, versions.store, number, settings.blind_share, SCANNED)
    judged = judged_tasks(pulled, settings.audit_share)
    if not judged:
        return None
    version = versions.get(pulled.config, pulled.key)
    if _has_own_labels(pulled):
        return count_clicks(version, embedder, judged)
    _, part = _kept(ScoreFiles(versions.store), pulled, (version.name,))
    return clicks_of(version, _seen(version, part, judged))


def _has_own_labels(pulled: Pulled) -> bool:
    return any(control.has_own_labels for control in pulled.config.controls)


def _kept(files: ScoreFiles, pulled: Pulled, names: Sequence[str]) -> tuple[str, Part]:
    """The first of these versions that has scores of today's labels, and these; empty for none."""
    labels = {
        control.name: tuple(label.key for label in control.labels)
        for control in pulled.config.controls
    }
    for name in names:
        part = files.read(pulled.key, name)
        if part and all(labels.get(control) == scores.labels for control, scores in part.items()):
            return name, part
    return "", {}


def _seen(version: ModelVersion, part: Part, judged: Sequence[JudgedTask]) -> list[Seen]:
    """The judged tasks that have scores, with their controls as annotators see them."""
    limits = {name: scores.thresholds for name, scores in part.items()}
    places = {
        name: {task: place for place, task in enumerate(scores.tasks.tolist())}
        for name, scores in part.items()
    }
    seen: list[Seen] = []
    for item in judged:
        task = TaskInput.of(item.task, version.config)
        probabilities = {
            name: part[name].probabilities[rows[item.task["id"]]].astype(np.float32)
            for name, rows in places.items()
            if item.task["id"] in rows
        }
        controls = scored_controls(version, task, probabilities, limits)
        if controls:
            seen.append((item, controls))
    return seen


def _measure(
    version: ModelVersion, control: Control, seen: Sequence[Seen], support: Sequence[int]
) -> ControlMeasures:
    scored: list[ScoredControl] = []
    states: list[Sequence[int]] = []
    for item, controls in seen:
        for one in controls:
            if one.control.name == control.name and is_known(item, one):
                scored.append(one)
                states.append(item.states[control.name])
    shape = (len(scored), len(control.labels))
    codes = torch.tensor(states, dtype=torch.int64).reshape(shape)
    probability = torch.tensor(np.array([one.probabilities for one in scored])).reshape(shape)
    ticked = torch.tensor(
        [[label in one.suggested for label in control.labels] for one in scored], dtype=torch.bool
    ).reshape(shape)
    nothing = torch.zeros((0, len(control.labels)))
    figures = label_figures(
        tuple(label.key for label in control.labels),
        support,
        Held(probability, codes),
        Held(nothing, nothing.long()),
        version.limits(control)[0],
        single=not control.multiple,
    )
    rates = micro(ticked & (codes != UNKNOWN), codes == POSITIVE)
    return ControlMeasures(len(scored), rates, figures)
