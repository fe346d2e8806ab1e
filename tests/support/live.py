"""What end-to-end tests know of the servers that run, and how they read what is shown."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from backend.demo.servers import (
    LocalBackend,
    LocalStudio,
)
from backend.inference.evidence import BLIND_LINES
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import SECRET_HEADER
from backend.processes import free_port
from backend.settings import Settings

PHOTOS = 30
MakeProject = Callable[..., int]
Review = Callable[..., list[int]]


@dataclass
class Servers:
    """The running servers and how to get in."""

    studio_url: str
    password: str
    settings: Settings
    files: Path
    backend: LocalBackend
    label_studio: LocalStudio


def leaks(text: str, settings: Settings, password: str) -> list[str]:
    """Lines of a log that hold a secret, a header that carries one, or a part of a body."""
    user, secret = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    forbidden = [
        password,
        secret,
        base64.b64encode(f"{user}:{secret}".encode()).decode(),
        settings.label_studio_api_key.get_secret_value(),
        settings.webhook_secret.get_secret_value(),
        # The start of every JSON web token.
        "eyJ",
        "Authorization",
        SECRET_HEADER + ":",
        "<View",
        "label_config",
        "access_token",
        '"tasks"',
    ]
    return [line for line in text.splitlines() if any(word in line for word in forbidden)]


def shown_predictions(studio: LabelStudioClient, project: int) -> dict[int, dict[str, Any]]:
    """Task -> prediction of the version that is shown: at most one per task."""
    shown = studio.projects.get(project)["model_version"]
    predictions = [
        prediction
        for prediction in studio.predictions.of_project(project)
        if prediction["model_version"] == shown
    ]
    counts = Counter(prediction["task"] for prediction in predictions)
    assert set(counts.values()) <= {1}
    return {prediction["task"]: prediction for prediction in predictions}


def choices_of(prediction: dict[str, Any], control: str = "tags") -> list[Any]:
    """What a prediction ticks in a control."""
    for item in prediction["result"]:
        if item["from_name"] == control:
            value = item["value"]
            return list(value.get("choices") or value.get("taxonomy"))
    return []


def shows_nothing(prediction: dict[str, Any]) -> bool:
    """Whether a prediction is a blind task's: it says so and nothing else."""
    return [item["value"].get("text") for item in prediction["result"]] == [[*BLIND_LINES]]


def ticking_early(config: str) -> str:
    """The config with a threshold at which some boxes are ticked before anything is learned."""
    return config.replace("<Choices ", '<Choices model_score_threshold="0.05" ', 1)


def review_what_has_no_box_ticked(studio: LabelStudioClient, project: int) -> None:
    """Submit "none" for such tasks, so that the label stream serves the others, at random."""
    for task, prediction in shown_predictions(studio, project).items():
        if not choices_of(prediction):
            studio.tasks.annotate(task, [], None, seconds=1.0)


def read_truth(servers: Servers) -> dict[str, list[str]]:
    """File -> labels of the photos."""
    content = json.loads((servers.files / "labels.json").read_text())
    return dict(content["images"])


def environment_of(settings: Settings) -> dict[str, str]:
    """Environment variables that give a command these settings."""
    names = Settings.environment_names()
    return {
        names[name]: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings
        if value is not None
    }


@contextmanager
def own_backend(settings: Settings, folder: Path, **values: Any) -> Iterator[Settings]:
    """A backend for one test, with a port of its own; its log is in ``folder``."""
    # The lowest that is free, so that a second one is where Label Studio knew the first.
    port = free_port(19190)
    url = f"http://127.0.0.1:{port}"
    mine = settings.model_copy(update={"port": port, "public_url": url, **values})
    with LocalBackend(mine, folder / "backend.log") as backend:
        backend.wait()
        yield mine
