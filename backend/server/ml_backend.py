"""`ClipBackend`: the suggestions as a model class, for label-studio-ml's own servers only.

Works under 1.0.9, which makes one instance for all projects and calls ``predict(tasks, **kwargs)``,
and under 2.x, which makes one per project and calls ``predict(tasks, context)``. ``ls-clip serve``
has its own routes (`backend.server.ml_routes`) and does not use this module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.labelstudio.events import Action
from backend.runtime import Runtime, process_runtime
from backend.server.requests import labeling_config
from jobs import queue
from jobs.events import RECORDED_ACTIONS, project_number, record_event

log = logging.getLogger(__name__)


class ClipBackend(LabelStudioMLBase):
    """Suggestions for one labeling config.

    Args:
        project_id: ``<id>.<unix time>``, as Label Studio names a project.
        label_config: the labeling config's XML.
        kwargs: ``runtime``, by default that of this process; the rest goes to the base class.
    """

    def __init__(
        self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any
    ) -> None:
        self._runtime: Runtime = kwargs.pop("runtime", None) or process_runtime()
        self._config = labeling_config(label_config)
        self.project = str(project_id or kwargs.get("project") or "")
        if hasattr(LabelStudioMLBase, "setup"):
            super().__init__(project_id=self.project, label_config=label_config)
        else:
            super().__init__(**kwargs)
            self.label_config = label_config
            self.model_version = self.version

    @property
    def version(self) -> str:
        """The version that `predict` answers with now."""
        return self._runtime.versions.get(self._config, self.project).name

    def setup(self) -> None:
        """Called by 2.x at the end of its construction: set the version."""
        self.set("model_version", self.version)

    def predict_tasks(
        self, tasks: Sequence[Mapping[str, Any]], deadline_seconds: float | None = None
    ) -> list[Prediction]:
        """One prediction per task, in order; see `Predictor.predict`."""
        version = self._runtime.versions.get(self._config, self.project)
        return Predictor(version, self._runtime.embedder).predict(tasks, deadline_seconds)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Any = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """One item per task, in order: ``result`` and ``score``.

        The version is left to the server of label-studio-ml, which answers /setup with a version of
        its own: with two that differ, Label Studio would predict a task each time it is opened.
        """
        predictions = self.predict_tasks(tasks, self._runtime.settings.predict_seconds)
        items = [prediction.as_item() for prediction in predictions]
        return [
            {key: value for key, value in item.items() if key != "model_version"} for item in items
        ]

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Record an event for the workers: nothing is trained inside a request.

        2.x passes the webhook's action and body, 1.0.9 passes them as keywords after its
        annotations. Without an action a training is requested.
        """
        settings = self._runtime.settings
        given = [*args, kwargs.get("event"), kwargs.get("data")]
        data: Mapping[str, Any] = next((arg for arg in given if isinstance(arg, Mapping)), {})
        action = next((arg for arg in given if isinstance(arg, str)), Action.START_TRAINING)
        body = {**data, "action": action}
        number = project_number(body, self.project.partition(".")[0])
        if body["action"] not in RECORDED_ACTIONS or number is None:
            return {}
        if settings.redis_url.get_secret_value():
            record_event(queue.connect(settings), settings, body, number)
        else:
            log.warning("fit is ignored: there are no workers (LS_CLIP_REDIS_URL)")
        return {}
