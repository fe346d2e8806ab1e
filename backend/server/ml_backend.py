"""`ClipBackend`: the suggestions as a model class of label-studio-ml.

Works under 1.0.9, which makes one instance for all projects and calls ``predict(tasks, **kwargs)``,
and under 2.x, which makes one per project and calls ``predict(tasks, context)``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from backend.errors import LabelConfigError
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.labels.config import LabelConfig, parse_config
from backend.runtime import Runtime, process_runtime
from jobs import queue
from jobs.events import RECORDED_ACTIONS, START_TRAINING, project_number, record_event

log = logging.getLogger(__name__)


class ClipBackend(LabelStudioMLBase):
    """Suggestions for one labeling config.

    Args:
        project_id: ``<id>.<unix time>``, as Label Studio names a project.
        label_config: the labeling config's XML.
        kwargs: ``runtime``, or the process's own is taken; the rest goes to the base class.
    """

    def __init__(
        self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any
    ) -> None:
        self._runtime: Runtime = kwargs.pop("runtime", None) or process_runtime()
        self._config = _config(label_config)
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
        """Called by 2.x at the end of its construction: tell it the version."""
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
        """One item a task, in order: ``result`` and ``score``.

        The version is left to the server of label-studio-ml, which tells Label Studio a version of
        its own in /setup: two that differ would make Label Studio predict a task at every opening.
        """
        seconds = self._runtime.settings.predict_seconds
        items = [one.as_item() for one in self.predict_tasks(tasks, seconds)]
        return [
            {key: value for key, value in item.items() if key != "model_version"} for item in items
        ]

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Note an event for the workers: nothing is trained inside a request.

        2.x passes the webhook's action and body, 1.0.9 the same by name after its annotations; a
        training is asked for where there is no action.
        """
        settings = self._runtime.settings
        given = [*args, kwargs.get("event"), kwargs.get("data")]
        data: Mapping[str, Any] = next((one for one in given if isinstance(one, Mapping)), {})
        action = next((one for one in given if isinstance(one, str)), START_TRAINING)
        body = {**data, "action": action}
        number = project_number(body, self.project.partition(".")[0])
        if body["action"] not in RECORDED_ACTIONS or number is None:
            return {}
        if settings.redis_url.get_secret_value():
            record_event(queue.connect(settings), settings, body, number)
        else:
            log.warning("fit leads to nothing: there are no workers (LS_CLIP_REDIS_URL)")
        return {}


def _config(xml: str | None) -> LabelConfig:
    """The parsed config; one that holds nothing for us where it cannot be read.

    Label Studio shows no error of a backend, so a broken config must not break the connection.
    """
    try:
        return parse_config(xml or "<View/>")
    except LabelConfigError as error:
        log.error("%s", error)
        return LabelConfig((), None, (str(error),))
