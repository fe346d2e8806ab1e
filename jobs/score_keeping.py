"""Keeps the scores of a run's tasks, and of the tasks beside them that have none yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import numpy as np
from numpy.typing import NDArray

from backend.inference.model_version import ModelVersion
from backend.inference.prediction import Prediction
from backend.labels.config import LabelConfig
from backend.storage.prediction_log import PredictionLog
from backend.storage.score_files import ControlScores, Part, ScoreFiles, joined

WRITTEN_FROM = 50_000
"""Tasks whose scores are written at once: 8 MB with 80 labels."""


def scores_of(version: ModelVersion, predictions: Iterable[Prediction]) -> dict[str, ControlScores]:
    """Control name -> the scores that predictions were made from.

    Args:
        version: of all of them.
        predictions: those without a task are left out.
    """
    tasks: dict[str, list[int]] = {}
    rows: dict[str, list[NDArray[np.float32]]] = {}
    for prediction in predictions:
        for scored in prediction.scored:
            if prediction.task is None or scored.control.has_own_labels:
                continue
            tasks.setdefault(scored.control.name, []).append(prediction.task)
            rows.setdefault(scored.control.name, []).append(scored.probabilities)
    return {
        control.name: ControlScores.of(
            [label.key for label in control.labels],
            version.limits(control)[0],
            tasks[control.name],
            np.stack(rows[control.name]),
        )
        for control in version.config.controls
        if control.name in tasks
    }


def tasks_to_score(
    config: LabelConfig, scored: Mapping[str, Set[int]], linked: Set[int]
) -> Set[int]:
    """Ids of the tasks whose scores are to be kept, although they may need no prediction.

    Args:
        config: decides which controls have scores that are kept.
        scored: control name -> ids of the tasks that have scores.
        linked: ids of the tasks whose images are known.
    """
    names = [control.name for control in config.controls if not control.has_own_labels]
    if not names:
        return set()
    return linked - set.intersection(*(set(scored.get(name, ())) for name in names))


class ScoreKeeper:
    """Collects the scores of one version and writes them, many at once.

    Args:
        files: of the store.
        prediction_log: knows which tasks are still there.
        project: its key.
        version: what scores.
        replaces: whether scores that are kept already may be out of date.

    Attributes:
        tasks: control name -> ids of the tasks whose scores are kept.
    """

    def __init__(
        self,
        files: ScoreFiles,
        prediction_log: PredictionLog,
        project: str,
        version: ModelVersion,
        *,
        replaces: bool,
    ) -> None:
        self._files, self._prediction_log = files, prediction_log
        self._project, self._version, self._replaces = project, version, replaces
        self._waiting: list[Part] = []
        self._count = 0
        self.tasks = files.tasks(project, version.name)

    def add_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Keep what predictions were made from."""
        self.add(scores_of(self._version, predictions))

    def add(self, part: Mapping[str, ControlScores]) -> None:
        """Keep scores; of tasks that have some only where those may be out of date."""
        if not self._replaces:
            part = {
                name: scores.without(self.tasks.get(name, set())) for name, scores in part.items()
            }
        if not part:
            return
        self._waiting.append(part)
        for name, scores in part.items():
            self.tasks.setdefault(name, set()).update(scores.tasks.tolist())
        self._count += max(len(scores.tasks) for scores in part.values())
        if self._count >= WRITTEN_FROM:
            self.write()

    def write(self) -> None:
        """Write what was collected.

        Raises:
            StoreError: the store cannot be read or written.
        """
        if self._waiting:
            self._files.add(self._project, self._version.name, self._still_there)
        self._waiting, self._count = [], 0

    def _still_there(self) -> Part:
        """What was collected, without tasks that were deleted, and purged, meanwhile."""
        linked = self._prediction_log.tasks(self._project)
        return {
            name: scores.without(set(scores.tasks.tolist()) - linked)
            for name, scores in joined(self._waiting).items()
        }
