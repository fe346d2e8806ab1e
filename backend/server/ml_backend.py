"""`ClipBackend`: the suggestions as a model class, for label-studio-ml's own servers only.

Works under 1.0.9, which makes one instance for all projects and calls ``predict(tasks, **kwargs)``,
and under 2.x, which makes one per project and calls ``predict(tasks, context)``. ``ls-clip serve``
has its own routes (`backend.server.ml_routes`) and does not use this module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from backend.errors import StudioError
from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import Action
from backend.labelstudio.projects import project_key
from backend.labelstudio.tokens import StudioTokenError
from backend.runtime import Runtime, process_runtime
from backend.server.requests import labeling_config
from backend.settings import Settings
from jobs import queue
from jobs.events import RECORDED_ACTIONS, project_number, record_event

log = logging.getLogger(__name__)


class ClipBackend(LabelStudioMLBase):
    """Suggestions for one labeling config.

    Args:
        project_id: ``<id>.<unix time>``, as Label Studio names a project, or ``<id>``.
        label_config: the labeling config's XML.
        kwargs: ``runtime``, by default that of this process; the rest goes to the base class.
    """

    def __init__(
        self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any
    ) -> None:
        self._runtime: Runtime = kwargs.pop("runtime", None) or process_runtime()
        self._config = labeling_config(label_config)
        named = str(project_id or kwargs.get("project") or "")
        self.project = _project_names(self._runtime).full(named)
        if hasattr(LabelStudioMLBase, "setup"):
            super().__init__(project_id=self.project, label_config=label_config)
        else:
            super().__init__(**kwargs)
            self.label_config = label_config
            self.model_version = self.version

    @classmethod
    def load(cls) -> None:
        """Load what the first request would have to wait for: Label Studio waits 3 s for /setup.

        Called once before the server takes requests.

        Raises:
            ClipError: the settings, the encoder's weights or the store cannot be used.
        """
        runtime = process_runtime()
        runtime.encoder.load()
        _project_names(runtime)

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


class _ProjectNames:
    """Names projects as Label Studio does, ``<id>.<unix time>``; of that 2.x passes the id only.

    What was learned for a project is kept under its full name, so that without the time there would
    be neither its heads nor its statistics, and other versions than those that workers predict.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._known: dict[str, str] = {}
        try:
            self._studio: LabelStudioClient | None = LabelStudioClient(settings)
        except StudioTokenError:
            # The runtime has said so.
            self._studio = None

    def full(self, named: str) -> str:
        """The full name of a project; what is given where Label Studio cannot be asked."""
        if self._studio is None or not named.isdecimal():
            return named
        if named not in self._known:
            try:
                self._known[named] = project_key(self._studio.projects.get(int(named)))
            except StudioError as error:
                log.warning("project %s is predicted as if nothing was learned: %s", named, error)
                return named
        return self._known[named]


@cache
def _project_names(runtime: Runtime) -> _ProjectNames:
    return _ProjectNames(runtime.settings)
