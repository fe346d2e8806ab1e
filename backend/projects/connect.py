"""Connect a Label Studio project: backend, webhook, settings, predictions; any number of times."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from backend.encoders.base import Encoder
from backend.encoders.label_texts import unreadable_message
from backend.encoders.weights import CACHE
from backend.errors import SettingsError, StudioError
from backend.inference.label_embeddings import unreadable_labels
from backend.labels.config import EVIDENCE_NAME, LabelConfig, parse_config
from backend.labels.controls import known_labels
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.labelstudio.projects import project_key
from backend.labelstudio.refusals import Refusal, read_refusal
from backend.logs import Progress
from backend.projects.filling import FillReport, fill_by_workers, fill_here
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.project_state import ProjectState
from jobs import queue
from jobs.polling import require_workers

log = logging.getLogger(__name__)

TITLE = "label-studio-clip"
VIEW_TITLE = "Suggestions"
LOCKS = CACHE / "locks"
"""Two calls for one project at once would import its predictions twice."""
WORKER_SECONDS = 15.0
"""A worker listens only once its encoder is loaded."""
SAMPLE = 200
"""Tasks looked at to find out whether a field holds labels."""
SHOWN_COLUMNS = ("predictions_score", "predictions_model_versions")


def connect(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    number: int,
    progress: Progress = lambda what, done, total: None,
    *,
    known_field: str | None = None,
) -> FillReport:
    """Make a project show suggestions, and keep it that way when called again.

    Args:
        settings: URL and credentials of the backend, which must be running.
        studio: the Label Studio.
        runtime: of this process.
        number: the project.
        progress: told how far it is.
        known_field: the task-data field with labels known beforehand, from now on; empty: none;
            None: as before.

    Raises:
        LabelConfigError: the project's labeling config has nothing for us.
        QueueError: a queue is set, and Redis does not answer or no worker listens.
        StudioError: Label Studio refuses a step, or lost predictions.
    """
    project = studio.projects.get(number)
    lock = FileLock(LOCKS / f"{urlsplit(studio.url).netloc.replace(':', '-')}-{number}.lock")
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        with lock.acquire(timeout=0):
            if known_field is not None:
                _require_known_labels(studio, project, known_field)
                ProjectState(runtime.store, project_key(project)).set_known_field(known_field)
            return _connect(settings, studio, runtime, project, progress)
    except Timeout as error:
        raise StudioError(
            f"Project {number} is being connected already.", "Wait until that call has ended."
        ) from error


def _require_known_labels(
    studio: LabelStudioClient, project: Mapping[str, Any], known_field: str
) -> None:
    """Refuse a field in which no task has a label of the config."""
    tasks = studio.tasks.sample(int(project["id"]), SAMPLE) if known_field else []
    controls = parse_config(project["label_config"]).controls
    if tasks and not any(
        known_labels(control.for_task(task["data"]), task["data"], known_field)
        for control in controls
        for task in tasks
    ):
        there = sorted({name for task in tasks for name in task["data"]})
        raise SettingsError(
            f"None of {len(tasks)} tasks has a label of the labeling config in {known_field!r}.",
            f"The tasks' data has the fields: {', '.join(there)}. Labels must be written as in the "
            "labeling config.",
        )


def _connect(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    project: Mapping[str, Any],
    progress: Progress,
) -> FillReport:
    number = int(project["id"])
    config = parse_config(project["label_config"])
    config.require_controls()
    warnings = _warnings(config, runtime.encoder)
    by_workers = bool(settings.redis_url.get_secret_value())
    if by_workers:
        # Before anything is changed in Label Studio.
        progress("looking for a worker", 0, 1)
        require_workers(settings, queue.connect(settings), seconds=WORKER_SECONDS)
    # From here on a label that is added is known to be younger than what was reviewed.
    ProjectState(runtime.store, project_key(project)).labels_since(config.label_keys(), time.time())
    progress("registering the backend", 0, 1)
    former = _register_backend(settings, studio, number)
    _make_webhook(settings, studio, number, former)
    _show_scores(studio, number)
    if by_workers:
        filled = fill_by_workers(settings, studio, number, progress)
    else:
        filled = fill_here(settings, studio, runtime, project, progress)
    filled.warnings[:0] = warnings
    return filled


def _warnings(config: LabelConfig, encoder: Encoder) -> list[str]:
    warnings = list(config.skipped)
    unread = unreadable_labels(encoder, config)
    if unread:
        warnings.append(" ".join(unreadable_message(encoder, unread)))
    if config.evidence is None:
        warnings.append(
            "The probabilities will not be shown while labeling. Add "
            f'<TextArea name="{EVIDENCE_NAME}" toName="{config.controls[0].to_name}" '
            'editable="false"/> to the labeling config to see them.'
        )
    return warnings


def _register_backend(settings: Settings, studio: LabelStudioClient, number: int) -> set[str]:
    """Make ours the project's backend; returns the addresses that ours had before."""
    body: dict[str, Any] = {
        "project": number,
        "url": settings.backend_url,
        "title": TITLE,
        "is_interactive": False,
        "auth_method": "NONE",
    }
    if settings.basic_auth_user:
        # Label Studio answers 500 to an empty password.
        body["auth_method"] = "BASIC_AUTH"
        body["basic_auth_user"] = settings.basic_auth_user
        body["basic_auth_pass"] = settings.basic_auth_pass.get_secret_value()
    rows = [
        one
        for one in studio.backends.of_project(number)
        if one["title"] == TITLE or one["url"].rstrip("/") == settings.backend_url
    ]
    same = [one["id"] for one in rows]
    try:
        studio.backends.save(body, same[0] if same else None)
    except StudioError as error:
        if not same:
            # Label Studio may refuse the call and keep the row all the same.
            for one in studio.backends.of_project(number):
                if one["title"] == TITLE:
                    studio.backends.delete(one["id"])
        raise _backend_refused(settings, error) from error
    for extra in same[1:]:
        studio.backends.delete(extra)
    return {str(one["url"]).rstrip("/") for one in rows}


def _backend_refused(settings: Settings, error: StudioError) -> StudioError:
    """Label Studio's refusal of the backend in words that help."""
    if error.fix:
        return error
    if read_refusal(error.reply) is Refusal.BACKEND_UNAUTHORIZED:
        return StudioError(
            f"The backend at {settings.backend_url} wants other credentials.",
            "Give ls-clip serve and ls-clip connect the same BASIC_AUTH_USER and BASIC_AUTH_PASS; "
            "or another backend listens there, and LS_CLIP_PORT must change.",
        )
    return StudioError(
        f"Label Studio cannot use a backend at {settings.backend_url}.",
        "Is ls-clip serve running, and does Label Studio reach it there (LS_CLIP_PUBLIC_URL)?",
    )


def _make_webhook(
    settings: Settings, studio: LabelStudioClient, number: int, former: set[str]
) -> None:
    """Ours alone: the one that Label Studio makes by itself carries no secret."""
    secret = settings.webhook_secret.get_secret_value()
    address = f"{settings.backend_url}/webhook"
    body = {
        "project": number,
        "url": f"{address}?project={number}",
        "send_payload": True,
        "send_for_all_actions": False,
        "headers": {SECRET_HEADER: secret} if secret else {},
        "actions": sorted(EVENT_ACTIONS),
        "is_active": True,
    }
    mine = {f"{url}/webhook" for url in former | {settings.backend_url}}
    ours = None
    for hook in studio.webhooks.of_project(number):
        if hook["url"].partition("?")[0] not in mine:
            continue
        if hook["url"] == body["url"] and ours is None:
            ours = hook["id"]
        else:
            studio.webhooks.delete(hook["id"])
    studio.webhooks.save(body, ours)


def _show_scores(studio: LabelStudioClient, number: int) -> None:
    """A Data Manager tab with the score columns, the least certain tasks first."""
    hidden = [
        f"{column['target']}:{column['id']}"
        for column in studio.views.columns(number)
        if not column.get("visibility_defaults", {}).get("explore", True)
        and column["id"] not in SHOWN_COLUMNS
    ]
    data = {
        "title": VIEW_TITLE,
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:predictions_score"],
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
        "filters": {"conjunction": "and", "items": []},
    }
    same = [
        one["id"]
        for one in studio.views.of_project(number)
        if one["data"].get("title") == VIEW_TITLE
    ]
    studio.views.save(number, data, same[0] if same else None)
