"""What the checks examine. Each part is asked for once, and only when a check needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from secrets import token_hex
from typing import Any

import requests

from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.errors import StoreError
from backend.images.bucket_files import BucketFiles
from backend.images.decoder import Decoder
from backend.images.direct import DirectSource
from backend.images.fetcher import ImageFetcher
from backend.images.local_files import LocalFiles
from backend.inference.versions import ModelVersions
from backend.labels.config import LabelConfig, parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.server.settings_comparison import digests
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.store import Store
from jobs import queue
from jobs.run_store import RunStore

SECONDS = 5.0
SAMPLE = 12
"""Tasks whose images are tried."""


@dataclass(frozen=True)
class Answer:
    """A reply to a plain request.

    Attributes:
        status: HTTP status.
        body: parsed JSON, or None.
        date: the Date header.
        location: where it redirects to, if it does.
        seconds: until it was there.
    """

    status: int
    body: Any
    date: str
    location: str
    seconds: float


class Context:
    """This machine, Label Studio and, if a number is given, one of its projects.

    The properties ask on their first use; their errors belong to the check that asked.

    Args:
        settings: those that the server runs with.
        number: the project's number, or None.
    """

    def __init__(self, settings: Settings, number: int | None) -> None:
        self.settings = settings
        self.number = number
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, method: str, url: str, json: Any = None, login: bool = False) -> Answer:
        """One request without retries, redirects or proxies.

        Raises:
            requests.RequestException: no answer.
        """
        settings = self.settings
        user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
        started = time.monotonic()
        answer = self._session.request(
            method,
            url,
            json=json,
            auth=(user, password) if login and (user or password) else None,
            timeout=SECONDS,
            allow_redirects=False,
        )
        try:
            body = answer.json()
        except ValueError:
            body = None
        headers = answer.headers
        return Answer(
            answer.status_code,
            body,
            headers.get("Date", ""),
            headers.get("Location", "") if answer.is_redirect else "",
            time.monotonic() - started,
        )

    @property
    def project_number(self) -> int:
        """The number, where a check runs only with one."""
        assert self.number is not None
        return self.number

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder; raises EncoderError. A store that cannot be read has a check of its own."""
        try:
            return get_encoder(self.settings, self.store.vectors.has_any)
        except StoreError:
            return get_encoder(self.settings)

    @cached_property
    def store(self) -> Store:
        """The embedding store; raises StoreError."""
        return open_store(self.settings)

    @cached_property
    def studio(self) -> LabelStudioClient:
        """The client of Label Studio; raises StudioError."""
        return LabelStudioClient(self.settings)

    @cached_property
    def fetcher(self) -> ImageFetcher:
        """Fetches images as the server does; raises StudioError."""
        return ImageFetcher(self.settings, self.studio.headers)

    @cached_property
    def direct_sources(self) -> tuple[DirectSource, ...]:
        """What reads images where they lie, as far as the settings allow it."""
        return LocalFiles(self.settings, self.fetcher), BucketFiles(self.settings, self.fetcher)

    @cached_property
    def sample(self) -> list[dict[str, Any]]:
        """A few tasks, the oldest and the newest, whose images are tried."""
        return self.studio.tasks.sample(self.project_number, SAMPLE)

    @cached_property
    def decoder(self) -> Decoder:
        """Decodes images as the server does."""
        return Decoder(self.settings)

    @cached_property
    def project(self) -> dict[str, Any]:
        """The project as Label Studio's API gives it; raises StudioError."""
        return self.studio.projects.get(self.project_number)

    @cached_property
    def config(self) -> LabelConfig:
        """The project's labeling config, parsed; raises LabelConfigError."""
        return parse_config(self.project["label_config"])

    @cached_property
    def backends(self) -> list[dict[str, Any]]:
        """The project's ML backends; Label Studio has just asked each for /health and /setup."""
        return self.studio.backends.of_project(self.project_number)

    @cached_property
    def webhooks(self) -> list[dict[str, Any]]:
        """The project's webhooks."""
        return self.studio.webhooks.of_project(self.project_number)

    @cached_property
    def failures(self) -> dict[int, dict[str, str]]:
        """Task id -> why the project's last run left it out; empty without a queue.

        Raises:
            QueueError: Redis does not answer.
        """
        if not self.settings.redis_url.get_secret_value():
            return {}
        with queue.explained():
            runs = RunStore(queue.connect(self.settings, retries=0))
            history = runs.of_project(self.project_number)
            return runs.failures(history[0].id) if history else {}

    @cached_property
    def open_tasks(self) -> set[int]:
        """Ids of the tasks that nobody has annotated."""
        tasks = self.studio.tasks.iterate(self.project_number)
        return {int(task["id"]) for task in tasks if not task["total_annotations"]}

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        """All predictions of the project."""
        return self.studio.predictions.of_project(self.project_number)

    @cached_property
    def predicted_versions(self) -> set[str]:
        """The model versions that have predictions; Label Studio's own list names others too."""
        return {prediction["model_version"] for prediction in self.predictions}

    @cached_property
    def expected_version(self) -> str:
        """The version that these settings give for the project as it is now."""
        versions = ModelVersions(self.settings, self.encoder, self.store)
        return versions.get(self.config, project_key(self.project)).name

    def setup(self, of_project: bool) -> Answer:
        """What the backend answers to /setup, for the project or for none in particular.

        Raises:
            requests.RequestException: it does not answer.
        """
        body: dict[str, Any] = {"project": "0.0", "schema": "<View/>"}
        if of_project:
            project = self.project
            body = {"project": project_key(project), "schema": project["label_config"]}
        return self.ask("POST", f"{self.settings.backend_url}/setup", body, login=True)

    def compare(self) -> Answer:
        """What the backend answers to the question whether it runs with these settings.

        Raises:
            requests.RequestException: it does not answer.
        """
        salt = token_hex(8)
        body = {"salt": salt, "digests": digests(self.settings, salt)}
        return self.ask("POST", f"{self.settings.backend_url}/compare", body, login=True)
