"""The only way from tasks to Label Studio predictions.

Embeddings come from the store, or the image is fetched, decoded, encoded and stored; scores are
always computed from the embedding as stored, so that one version gives the same bytes however and
whenever it is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import ImageError, ImageReason
from backend.inference.embedder import Embedder
from backend.inference.evidence import (
    BLIND_LINES,
    ScoredControl,
    confidence,
    evidence_lines,
    with_visibility,
)
from backend.inference.holdout import blind_score, is_blind
from backend.inference.image_failures import Failures
from backend.inference.model_version import ModelVersion
from backend.inference.prediction import Prediction
from backend.inference.task_images import TaskInput
from backend.labels.controls import Control, known_labels
from backend.labels.label import Label
from backend.messages.catalogue import localized
from backend.messages.message import Message
from backend.storage.vectors import Embedding

PAIRS = 200_000
"""Images times labels that are scored at once where there is a deadline."""


class Predictor:
    """Predicts tasks with one model version. Thread-safe.

    Args:
        version: what scores.
        embedder: gets embeddings for image addresses.
    """

    def __init__(self, version: ModelVersion, embedder: Embedder) -> None:
        self.version = version
        self._embedder = embedder

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], deadline_seconds: float | None = None
    ) -> list[Prediction]:
        """One prediction per task, in order; images that the store lacks are fetched and encoded.

        Args:
            tasks: as Label Studio sends them; ``id`` and ``data`` are read.
            deadline_seconds: tasks whose images and labels are not embedded by then, or that are
                not scored, get the failure ``timeout``; None: however long it takes.
        """
        deadline = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        inputs = self._inputs(tasks)
        embedded = self._embedder.embed(_addresses(inputs), deadline_seconds)
        return self._predict(inputs, *embedded, deadline)

    def predict_stored(self, tasks: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """One prediction per task, in order, from what the store holds; nothing is fetched.

        Tasks whose images are not in the store get the failure ``timeout``.

        Raises:
            StoreError: the store cannot be read.
        """
        inputs = self._inputs(tasks)
        return self._predict(inputs, *self._embedder.stored(_addresses(inputs)))

    def _inputs(self, tasks: Sequence[Mapping[str, Any]]) -> list[TaskInput]:
        return [TaskInput.of(task, self.version.config) for task in tasks]

    def _predict(
        self,
        tasks: Sequence[TaskInput],
        embeddings: Mapping[str, Embedding],
        failures: Failures,
        deadline: float | None = None,
    ) -> list[Prediction]:
        predictions = []
        name = self.version.name
        scores, late = self._score(tasks, embeddings, deadline)
        for index, (task, probabilities) in enumerate(zip(tasks, scores, strict=True)):
            if index in late:
                # A part of its controls would be a prediction that lacks the others' labels.
                predictions.append(Prediction(task.number, name, None, None, (), late[index]))
                continue
            scored = scored_controls(self.version, task, probabilities)
            if scored:
                prediction = _prediction(self.version, task, scored)
                broken = [failures[value] for value in _images(task) if value in failures]
                predictions.append(replace(prediction, failure=broken[0]) if broken else prediction)
            else:
                failure = _failure(task, failures)
                predictions.append(Prediction(task.number, name, None, None, (), failure))
        return predictions

    def _score(
        self,
        tasks: Sequence[TaskInput],
        embeddings: Mapping[str, Embedding],
        deadline: float | None,
    ) -> tuple[list[dict[str, NDArray[np.float32]]], dict[int, ImageError]]:
        """For each task: control name -> probabilities (C,); and place -> why it comes too late.

        Equal controls are scored together. With several images a label has the highest of their
        probabilities.
        """
        groups: dict[Control, list[tuple[int, Embedding]]] = {}
        # A control that is the same object for all tasks is hashed, label by label, only once.
        groups_by_id: dict[int, list[tuple[int, Embedding]]] = {}
        for index, task in enumerate(tasks):
            for control in task.controls:
                for value in task.images[control.name]:
                    if value in embeddings and control.labels:
                        if id(control) not in groups_by_id:
                            groups_by_id[id(control)] = groups.setdefault(control, [])
                        groups_by_id[id(control)].append((index, embeddings[value]))
        by_task: list[dict[str, NDArray[np.float32]]] = [{} for _ in tasks]
        late: dict[int, ImageError] = {}
        for control, members in groups.items():
            size = len(members) if deadline is None else max(1, PAIRS // len(control.labels))
            for start in range(0, len(members), size):
                block = members[start : start + size]
                try:
                    if start and deadline is not None and time.monotonic() >= deadline:
                        raise _not_scored()
                    rows = self.version.probabilities(
                        control, [embedding for _, embedding in block], deadline
                    )
                except ImageError as error:
                    late |= {index: error for index, _ in members[start:]}
                    break
                for (index, _), row in zip(block, rows, strict=True):
                    other = by_task[index].get(control.name)
                    by_task[index][control.name] = row if other is None else np.maximum(other, row)
        return by_task, late


def scored_controls(
    version: ModelVersion,
    task: TaskInput,
    probabilities: Mapping[str, NDArray[np.float32]],
    limits: Mapping[str, Sequence[float]] | None = None,
) -> list[ScoredControl]:
    """A task's controls as annotators see them.

    Args:
        version: whose thresholds count.
        task: the task.
        probabilities: control name -> (C,) of its labels; a control that is missing is left out.
        limits: control name -> (C,) thresholds that count instead; None: the version's.
    """
    scored = []
    for control in task.controls:
        if control.name in probabilities:
            thresholds, unlearned = version.limits(control)
            thresholds = thresholds if limits is None else list(limits[control.name])
            known = known_labels(control, task.data, version.known_field)
            p = _with_known(probabilities[control.name], known)
            scored.append(ScoredControl(control, p, thresholds, known, unlearned - known))
    return with_visibility(scored, version.config.preselected)


def images_of(embedder: Embedder, predictions: Sequence[Prediction]) -> list[tuple[int, str]]:
    """Task id and the image's name in the store, of all images that predictions were made from."""
    return [
        (prediction.task, embedder.address(image))
        for prediction in predictions
        if prediction.task is not None
        for image in prediction.images
    ]


def _not_scored() -> ImageError:
    return ImageError(
        ImageReason.TIMEOUT,
        Message("The task was not scored within LS_CLIP_PREDICT_SECONDS."),
        Message("Open the task again, or run ls-clip connect, which takes its time."),
    )


def _images(task: TaskInput) -> list[str]:
    """Addresses of a task's images, in the order of its controls."""
    return [value for control in task.controls for value in task.images[control.name]]


def _addresses(tasks: Sequence[TaskInput]) -> list[str]:
    """Addresses of all tasks' images, each once."""
    return list(dict.fromkeys(value for task in tasks for value in _images(task)))


def _with_known(probabilities: NDArray[np.float32], known: frozenset[int]) -> NDArray[np.float32]:
    """Probabilities (C,) with 1 for the labels that the task's data names."""
    if known:
        probabilities = probabilities.copy()
        probabilities[list(known)] = 1.0
    return probabilities


def _prediction(
    version: ModelVersion, task: TaskInput, scored: Sequence[ScoredControl]
) -> Prediction:
    images = tuple(sorted({value for item in scored for value in task.images[item.control.name]}))
    if (
        task.number is not None
        and version.project
        and is_blind(version.project, task.number, version.blind_share)
    ):
        score = blind_score(version.project, task.number, version.name, version.confidences)
        # As Label Studio would show it without a prediction.
        unaided = [(item.control, item.preselected) for item in scored]
        result = [*_items([*unaided, *_preselected(version)]), *_evidence(version, BLIND_LINES)]
        return Prediction(
            task.number, version.name, result, score, scored, images=images, blind=True
        )
    suggested = [(item.control, item.suggested) for item in scored]
    source = Message("{name}: {source}", name=version.name, source=version.source)
    lines = evidence_lines(scored, source)
    result = [*_items([*suggested, *_preselected(version)]), *_evidence(version, lines)]
    return Prediction(task.number, version.name, result, confidence(scored), scored, images=images)


def _preselected(version: ModelVersion) -> list[tuple[Control, Sequence[Label]]]:
    """What Label Studio would preselect in controls that are left out."""
    return [(control, control.labels) for control in version.config.preselected]


def _items(selected: Iterable[tuple[Control, Sequence[Label]]]) -> list[dict[str, Any]]:
    """Result items that select these labels; none where there is no label."""
    return [
        {
            "from_name": control.name,
            "to_name": control.to_name,
            "type": control.kind,
            "value": control.result_value(labels),
        }
        for control, labels in selected
        if labels
    ]


def _evidence(version: ModelVersion, lines: Sequence[str]) -> list[dict[str, Any]]:
    """The result item that shows these lines; none where the config has no place for them."""
    if version.config.evidence is None:
        return []
    name, to_name = version.config.evidence
    value = {"text": [localized(line, version.language) for line in lines]}
    return [{"from_name": name, "to_name": to_name, "type": "textarea", "value": value}]


def _failure(task: TaskInput, failures: Failures) -> ImageError:
    """Why a task cannot be answered."""
    if not task.controls:
        return ImageError(
            ImageReason.NO_CONTROLS,
            Message("The labeling config has no control that can be predicted."),
            Message("ls-clip connect PROJECT explains what is missing."),
        )
    for control in task.controls:
        values = task.images[control.name]
        for value in values:
            if value in failures:
                return failures[value]
        if not values:
            return ImageError(
                ImageReason.NO_IMAGE,
                Message(
                    "The task's data holds no image address in {image_field!r}.",
                    image_field=control.image_field,
                ),
                Message("Correct the task's data, or the value of the <Image> tag."),
            )
    control = next(one for one in task.controls if not one.labels)
    if control.options_field is None:
        return ImageError(
            ImageReason.NO_LABELS,
            Message(
                "The task's data lacks what the choices of {control!r} are named after.",
                control=control.name,
            ),
            Message("Put it there, or correct the value of the <Choice> tags."),
        )
    return ImageError(
        ImageReason.NO_LABELS,
        Message(
            "The task's data holds no usable labels in {options_field!r}.",
            options_field=control.options_field,
        ),
        Message(
            "Put a list of objects with a value there: Label Studio shows empty boxes for others."
        ),
    )
