"""The one way from images to Label Studio predictions.

Tasks in, predictions out: embeddings come from the store, or the image is fetched, decoded,
encoded and stored; scores are always computed from the embedding as stored, so that one version
gives the same bytes however and whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.encoders.base import Encoder
from backend.errors import ImageError
from backend.inference.embedder import Embedder, Failures
from backend.inference.evidence import ScoredControl, confidence, evidence_lines
from backend.inference.holdout import blind_score, is_blind
from backend.inference.model_version import Scorer, Scoring
from backend.inference.prediction import Prediction
from backend.inference.task_images import image_of, task_data, task_id
from backend.labels.config import LabelConfig
from backend.labels.controls import Control, known_labels
from backend.settings import Settings
from backend.storage.store import Store
from backend.storage.vectors import Embedding
from backend.vlpl import zero_shot

STATISTICS_FROM = 25
"""Images that must have been seen before a project's statistics are frozen."""
STATISTICS_UP_TO = 400


class Predictor(Scoring):
    """See the module. Thread-safe; one per process.

    Args:
        settings: of this process.
        encoder: images and texts to embeddings.
        store: where embeddings, statistics and heads live.
        embedder: gets embeddings for image addresses.
    """

    def __init__(
        self, settings: Settings, encoder: Encoder, store: Store, embedder: Embedder
    ) -> None:
        super().__init__(settings, encoder, store)
        self.embedder = embedder

    def freeze_statistics(
        self,
        config: LabelConfig,
        project: str,
        tasks: Sequence[Mapping[str, Any]],
        seconds: float | None = None,
    ) -> bool:
        """Measure the standardisation statistics from a project's first images, once.

        Controls whose labels differ from task to task go without.

        Args:
            config: the project's labeling config.
            project: as for `scorer`.
            tasks: the project's first tasks; their images should be in the store by now.
            seconds: time limit for images that are not; 0 takes what is stored.

        Returns:
            Whether a control has statistics afterwards.
        """
        frozen = False
        for control in config.controls:
            name = self.statistics_name(control, project)
            if self.store.artifacts.read(name) is not None:
                frozen = True
                continue
            if control.options_field is not None or not control.labels:
                continue
            images = (image_of(control, task) for task in tasks)
            values = [value for value in images if value is not None][:STATISTICS_UP_TO]
            embeddings, _ = self.embedder.embed(values, seconds)
            found = list(
                {value: embeddings[value] for value in values if value in embeddings}.values()
            )
            # With most images out of reach for the moment, the rest is no fair sample, and copies
            # of one image say nothing of how scores vary.
            distinct = len({one.image.tobytes() for one in found})
            if len(found) < len(set(values)) / 2 or distinct < STATISTICS_FROM:
                continue
            scores = self.raw(found, control)
            self.store.artifacts.write(name, zero_shot.fit_statistics(*scores).as_dict())
            frozen = True
        return frozen

    def is_settled(self, config: LabelConfig, project: str) -> bool:
        """Whether `freeze_statistics` has nothing left to measure, so that the version stays."""
        return all(
            self.store.artifacts.read(self.statistics_name(control, project)) is not None
            for control in config.controls
            if control.options_field is None and control.labels
        )

    def predict(
        self, scorer: Scorer, tasks: Sequence[Mapping[str, Any]], seconds: float | None = None
    ) -> list[Prediction]:
        """One prediction a task, in order.

        Args:
            scorer: from `scorer`.
            tasks: as Label Studio sends them; ``id`` and ``data`` are read.
            seconds: what is not embedded by then is answered with the failure ``timeout``.
        """
        controls = [_controls_of(scorer.config, task) for task in tasks]
        values = {
            value: None
            for task, mine in zip(tasks, controls, strict=True)
            for control in mine
            if (value := image_of(control, task)) is not None
        }
        embeddings, failures = self.embedder.embed(list(values), seconds)
        rows = self._score_all(scorer, tasks, controls, embeddings)
        limits: dict[int, tuple[Sequence[float], frozenset[int]]] = {}
        predictions = []
        for task, mine, row in zip(tasks, controls, rows, strict=True):
            scored = []
            for control in mine:
                if control.name in row:
                    if id(control) not in limits:
                        unread = self.unread(scorer, control)
                        limits[id(control)] = self.thresholds(scorer, control, unread), unread
                    thresholds, unread = limits[id(control)]
                    p, known = _with_known(scorer, task, control, row[control.name])
                    scored.append(ScoredControl(control, p, thresholds, known, unread - known))
            if scored:
                made = _prediction(scorer, task, scored)
                values_of = (image_of(control, task) for control in mine)
                broken = [failures[value] for value in values_of if value in failures]
                predictions.append(replace(made, failure=broken[0]) if broken else made)
            else:
                failure = _failure(mine, task, failures)
                version = scorer.model_version
                predictions.append(Prediction(task_id(task), version, None, None, (), failure))
        return predictions

    def _score_all(
        self,
        scorer: Scorer,
        tasks: Sequence[Mapping[str, Any]],
        controls: Sequence[Sequence[Control]],
        embeddings: Mapping[str, Embedding],
    ) -> list[dict[str, NDArray[np.float32]]]:
        """For each task: control name -> probabilities (C,). Equal controls are scored together."""
        groups: dict[Control, list[tuple[int, Embedding]]] = {}
        # A control that is the same object for all tasks is hashed, label by label, only once.
        known: dict[int, list[tuple[int, Embedding]]] = {}
        for index, (task, mine) in enumerate(zip(tasks, controls, strict=True)):
            for control in mine:
                value = image_of(control, task)
                if value is not None and value in embeddings and control.labels:
                    if id(control) not in known:
                        known[id(control)] = groups.setdefault(control, [])
                    known[id(control)].append((index, embeddings[value]))
        rows: list[dict[str, NDArray[np.float32]]] = [{} for _ in tasks]
        for control, members in groups.items():
            probabilities = self.probabilities(scorer, control, [one for _, one in members])
            for (index, _), row in zip(members, probabilities, strict=True):
                rows[index][control.name] = row
        return rows


def _controls_of(config: LabelConfig, task: Mapping[str, Any]) -> list[Control]:
    return [control.for_task(task_data(task)) for control in config.controls]


def _with_known(
    scorer: Scorer, task: Mapping[str, Any], control: Control, probabilities: NDArray[np.float32]
) -> tuple[NDArray[np.float32], frozenset[int]]:
    """Probabilities with 1 for the labels that the task's data names, and their places."""
    known = known_labels(control, task_data(task), scorer.known_field)
    if known:
        probabilities = probabilities.copy()
        probabilities[list(known)] = 1.0
    return probabilities, known


def _prediction(
    scorer: Scorer, task: Mapping[str, Any], scored: Sequence[ScoredControl]
) -> Prediction:
    found = {image_of(one.control, task) for one in scored}
    images = tuple(sorted(image for image in found if image is not None))
    number, version = task_id(task), scorer.model_version
    if (
        number is not None
        and scorer.project
        and is_blind(scorer.project, number, scorer.blind_share)
    ):
        score = blind_score(scorer.project, number, version)
        return Prediction(number, version, [], score, scored, images=images, blind=True)
    result = [
        {
            "from_name": one.control.name,
            "to_name": one.control.to_name,
            "type": one.control.kind,
            "value": one.control.result_value(one.suggested),
        }
        for one in scored
        if one.suggested
    ]
    if scorer.config.evidence is not None:
        name, to_name = scorer.config.evidence
        lines = evidence_lines(scored, f"{version}: {scorer.source}")
        result.append(
            {
                "from_name": name,
                "to_name": to_name,
                "type": "textarea",
                "value": {"text": lines},
            }
        )
    return Prediction(number, version, result, confidence(scored), scored, images=images)


def _failure(
    controls: Sequence[Control], task: Mapping[str, Any], failures: Failures
) -> ImageError:
    if not controls:
        return ImageError(
            "no_controls",
            "The labeling config has nothing for us.",
            "ls-clip connect PROJECT explains what is missing.",
        )
    for control in controls:
        value = image_of(control, task)
        if value is not None and value in failures:
            return failures[value]
        if value is None:
            return ImageError(
                "no_image",
                f"The task's data holds no image address in {control.image_field!r}.",
                "Correct the task's data, or the value of the <Image> tag.",
            )
    return ImageError(
        "no_labels",
        f"The task's data holds no usable labels in {controls[0].options_field!r}.",
        "Put a list of strings, or of objects with a value, there.",
    )
