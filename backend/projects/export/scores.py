"""What the project's tasks are suggested, from the scores and the log that the store keeps.

No encoder is needed for that, and no image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.errors import SettingsError
from backend.inference.evidence import ScoredControl
from backend.labels.controls import Control, known_labels
from backend.storage.prediction_log import LoggedPrediction, PredictionLog
from backend.storage.score_files import ControlScores, ScoreFiles
from backend.storage.store import Store
from backend.training.pulling import Pulled

_NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class Suggestion:
    """What one control of one task is suggested.

    Attributes:
        ticked: keys of the labels that are suggested, whether or not the control is shown.
        probabilities: label key -> probability in [0, 1]; of labels without a score, none.
    """

    ticked: frozenset[str]
    probabilities: Mapping[str, float]


_NOTHING = Suggestion(frozenset(), {})


class KeptScores:
    """What the version that a project shows suggests, as it was kept when it was made.

    Args:
        store: it is only read.
        pulled: the project's config and key.
        version: name of the model version that the project shows; may be empty.
        known_field: the task-data field with labels known beforehand; empty for none.

    Attributes:
        version: the same.

    Raises:
        DamagedArtifactError: a file of the store is damaged.
        StoreError: the store cannot be read.
    """

    def __init__(self, store: Store, pulled: Pulled, version: str, known_field: str) -> None:
        self.version = version
        self._log = PredictionLog(store)
        self._project, self._known_field = pulled.key, known_field
        scores = ScoreFiles(store).read(pulled.key, version) if version else {}
        self._scores = {
            control.name: _Rows(control, scores[control.name])
            for control in pulled.config.controls
            if control.name in scores
        }
        self._has_own_labels = any(c.has_own_labels for c in pulled.config.controls)

    def require(self, number: int) -> None:
        """Refuse to go on where nothing is suggested.

        Raises:
            SettingsError: the project shows no version, or no scores of it are kept.
        """
        if not self.version or not (self._scores or self._has_own_labels):
            shown = f"shows {self.version}, of which" if self.version else "shows no version, so"
            raise SettingsError(
                f"Project {number} {shown} no suggestions are kept.",
                f"Run ls-clip connect {number}, or leave out suggestions (pseudo).",
            )

    def logged(self, tasks: Sequence[Mapping[str, Any]]) -> dict[int, LoggedPrediction]:
        """Task id -> what was logged of the version that is shown.

        Raises:
            StoreError: the store cannot be read.
        """
        entries = self._log.of_tasks(self._project, [int(task["id"]) for task in tasks])
        return {
            task: entry for (task, version), entry in entries.items() if version == self.version
        }

    def suggestion(
        self, control: Control, task: Mapping[str, Any], logged: LoggedPrediction | None
    ) -> Suggestion:
        """What a control is suggested; of labels that stand in the task's data, what was logged.

        Args:
            control: with this task's labels.
            task: as Label Studio lists it.
            logged: from `logged`.
        """
        if control.has_own_labels:
            choices = {} if logged is None else logged.choices or {}
            keys = control.keys_of(choices.get(control.name, []))
            return Suggestion(frozenset(keys), {})
        rows = self._scores.get(control.name)
        known = known_labels(control, task["data"], self._known_field)
        return _NOTHING if rows is None else rows.suggestion(int(task["id"]), known)


class _Rows:
    """The kept scores of one control, for the labels that it has today."""

    def __init__(self, control: Control, scores: ControlScores) -> None:
        self._control, self._scores = control, scores
        self._rows = {task: row for row, task in enumerate(scores.tasks.tolist())}
        places = {control.renames.current(key): place for place, key in enumerate(scores.labels)}
        self._places = [places.get(label.key) for label in control.labels]
        self._thresholds = [
            _NEVER if place is None else scores.thresholds[place] for place in self._places
        ]

    def suggestion(self, task: int, known: frozenset[int]) -> Suggestion:
        row = self._rows.get(task)
        if row is None:
            return _NOTHING
        kept = self._scores.probabilities[row].tolist()
        values = [None if place is None else kept[place] for place in self._places]
        scored = ScoredControl(
            self._control,
            np.array([value or 0.0 for value in values], dtype=np.float32),
            self._thresholds,
            known,
        )
        probabilities = {
            label.key: round(value, 4)
            for label, value in zip(self._control.labels, values, strict=True)
            if value is not None
        }
        ticked = frozenset(label.key for label in replace(scored, shown=True).suggested)
        return Suggestion(ticked, probabilities)
