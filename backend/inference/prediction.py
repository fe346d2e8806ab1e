"""One task's prediction, in the forms in which Label Studio and the prediction log take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import ImageError
from backend.inference.evidence import ScoredControl
from backend.labels.controls import ControlKind
from backend.storage.prediction_log import LoggedPrediction


@dataclass(frozen=True)
class Prediction:
    """The prediction of one task.

    Attributes:
        task: the task's id, None if the caller gave none.
        model_version: the version that the scores belong to.
        result: Label Studio result items; None if the task cannot be answered now.
        score: the task's confidence in [0, 1], low = a person should look first.
        scored: its controls with the probabilities of their labels.
        failure: why ``result`` is None, or lacks one of several images.
        images: addresses of the images that were looked at, as they stand in the task's data.
        blind: whether suggestions are held back on purpose (`backend.inference.holdout`);
            ``result`` says no more than that, and ``score`` is random.
    """

    task: int | None
    model_version: str
    result: list[dict[str, Any]] | None
    score: float | None
    scored: Sequence[ScoredControl] = ()
    failure: ImageError | None = None
    images: tuple[str, ...] = ()
    blind: bool = False

    @property
    def probabilities(self) -> dict[str, dict[str, float]]:
        """Control name -> label key -> probability."""
        return {
            scored.control.name: {
                label.key: float(p)
                for label, p in zip(scored.control.labels, scored.probabilities, strict=True)
            }
            for scored in self.scored
        }

    def as_item(self) -> dict[str, Any]:
        """An item of the reply to /predict.

        Without a ``result`` Label Studio saves nothing and leaves the task open, whereas an empty
        ``result`` would be saved as a prediction that suggests nothing.
        """
        if self.result is None:
            error = {} if self.failure is None else {"error": self.failure.as_dict()}
            return {"model_version": self.model_version, **error}
        return {
            "model_version": self.model_version,
            "score": self.score,
            "result": self.result,
        }

    def logged(self) -> LoggedPrediction | None:
        """What the prediction log keeps; None without a result or a task."""
        if self.result is None or self.task is None or self.score is None:
            return None
        choices = None if self.blind else ticked_choices(self.result)
        return LoggedPrediction(self.task, self.model_version, self.score, choices)

    def as_import(self) -> dict[str, Any]:
        """An item of Label Studio's bulk import."""
        return {"task": self.task, **self.as_item()}


def ticked_choices(result: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Control name -> the choices that a result ticks, as Label Studio stores them."""
    return {
        item["from_name"]: item["value"][item["type"]]
        for item in result
        if item["type"] in set(ControlKind)
    }


def logged(predictions: Iterable[Prediction]) -> list[LoggedPrediction]:
    """Entries of the prediction log; predictions without a result or a task are left out."""
    return [entry for prediction in predictions if (entry := prediction.logged()) is not None]
