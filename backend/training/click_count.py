"""The clicks that a model version's suggestions cost on randomly chosen reviewed tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.inference.embedder import Embedder
from backend.inference.evidence import ScoredControl, with_visibility
from backend.inference.model_version import ModelVersion
from backend.inference.predictor import Predictor
from backend.storage.tables import chunks
from backend.training.approvals import is_judged
from backend.training.pulling import Pulled
from backend.vlpl.clicks import Clicks, harmless_threshold, task_clicks
from backend.vlpl.decisions import POSITIVE

CHUNK = 1000
"""Tasks whose embeddings are read at once."""


@dataclass(frozen=True)
class JudgedTask:
    """A randomly chosen task that a person reviewed.

    Attributes:
        task: ``id`` and ``data``.
        states: control name -> what is known of its labels, see `objectives`.
    """

    task: Mapping[str, Any]
    states: Mapping[str, Sequence[int]]


Seen = tuple[JudgedTask, Sequence[ScoredControl]]
"""A judged task, and its controls as its annotator sees them."""


def judged_tasks(pulled: Pulled, audit_share: float) -> list[JudgedTask]:
    """The reviewed tasks that were chosen at random: blind ones, and audit ones.

    Args:
        pulled: what was approved.
        audit_share: of all tasks, in [0, 1].
    """
    states: dict[int, dict[str, Sequence[int]]] = {}
    for name, items in {**pulled.approvals, **pulled.of_own_labels}.items():
        for item in items:
            if is_judged(pulled.key, item, audit_share):
                states.setdefault(item.task, {})[name] = item.states
    return [
        JudgedTask({"id": number, "data": pulled.data[number]}, states[number])
        for number in sorted(states)
    ]


def count_clicks(
    version: ModelVersion, embedder: Embedder, judged: Sequence[JudgedTask]
) -> Clicks | None:
    """The clicks that this version's suggestions cost, also where they are not shown.

    Suggestions are what `Predictor` makes of the stored embeddings, so known labels, follow-up
    questions and single choices count as annotators see them. Tasks with an image that is not
    stored are left out; nothing is fetched.

    Returns:
        None if no task is left.

    Raises:
        StoreError: the store cannot be read.
    """
    return clicks_of(version, predicted(version, embedder, judged))


def predicted(
    version: ModelVersion, embedder: Embedder, judged: Sequence[JudgedTask]
) -> list[Seen]:
    """The judged tasks whose images are stored, with their controls as annotators see them.

    Raises:
        StoreError: the store cannot be read.
    """
    predictor = Predictor(version, embedder)
    seen: list[Seen] = []
    for part in chunks(judged, CHUNK):
        predictions = predictor.predict_stored([item.task for item in part])
        seen += [
            (item, prediction.scored)
            for item, prediction in zip(part, predictions, strict=True)
            if prediction.scored and prediction.failure is None
        ]
    return seen


def clicks_of(version: ModelVersion, scored: Sequence[Seen]) -> Clicks | None:
    """The same, where the tasks are scored already.

    Args:
        version: what scored them.
        scored: judged tasks with their controls.
    """
    clicks = Clicks.of(
        _total(scored), _total([(item, [_unticked(one) for one in seen]) for item, seen in scored])
    )
    if clicks is None:
        return None

    def at(threshold: float) -> float:
        other = replace(version, threshold=threshold)
        return float(_total([(item, _ticked(other, seen)) for item, seen in scored]).mean())

    return replace(clicks, threshold=harmless_threshold(clicks, at))


def _ticked(version: ModelVersion, scored: Sequence[ScoredControl]) -> list[ScoredControl]:
    """The controls as another version, with the same probabilities, would tick them."""
    return with_visibility(
        [replace(item, thresholds=version.limits(item.control)[0], shown=True) for item in scored]
    )


def _unticked(scored: ScoredControl) -> ScoredControl:
    return replace(scored, shown=False)


def _total(tasks: Sequence[Seen]) -> NDArray[np.int64]:
    """Clicks of each task, over all of its controls: (N,)."""
    return np.array(
        [
            sum(
                _clicks(item.states[one.control.name], one) for one in scored if is_known(item, one)
            )
            for item, scored in tasks
        ],
        dtype=np.int64,
    )


def is_known(item: JudgedTask, scored: ScoredControl) -> bool:
    """Whether the control was reviewed, and has the labels that it had then."""
    states = item.states.get(scored.control.name)
    return states is not None and len(states) == len(scored.control.labels)


def _clicks(states: Sequence[int], scored: ScoredControl) -> int:
    seen = np.array([states])
    ticked = {label.key for label in scored.suggested}
    suggested = np.array([[label.key in ticked for label in scored.control.labels]])
    return int(
        task_clicks(
            suggested,
            seen == POSITIVE,
            np.abs(seen) == POSITIVE,
            single=not scored.control.multiple,
        )[0]
    )
