"""Connect a Label Studio project: backend, webhook, settings, predictions; any number of times."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from backend.encoders.base import unreadable_labels
from backend.encoders.weights import CACHE
from backend.errors import StudioError
from backend.labels import EVIDENCE_NAME, LabelConfig, parse_config
from backend.predictor import Prediction, Predictor, Scorer, image_of
from backend.settings import Settings
from backend.studio import (
    EVENT_ACTIONS,
    IMPORT_SECONDS,
    SECRET_HEADER,
    Studio,
    UnansweredError,
    project_key,
)

log = logging.getLogger(__name__)

TITLE = "label-studio-clip"
VIEW_TITLE = "Suggestions"
SHARD = 256
"""Tasks embedded or scored at once: bounds the memory, whatever the project's size."""
IMPORT_ROUNDS = 3
SETTLE_SECONDS = 10.0
LOCKS = CACHE / "locks"
"""Two calls for one project at once would import its predictions twice."""
SHOWN_COLUMNS = ("predictions_score", "predictions_model_versions")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass
class ConnectReport:
    """What `connect` found and did.

    Attributes:
        tasks: tasks of the project.
        imported: predictions made by this call.
        model_version: what the project now shows.
        failures: task id -> why it has no prediction.
        warnings: what a person should know, one sentence each.
    """

    tasks: int = 0
    imported: int = 0
    model_version: str = ""
    failures: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def connect(
    settings: Settings,
    studio: Studio,
    predictor: Predictor,
    number: int,
    progress: Progress = lambda what, done, total: None,
) -> ConnectReport:
    """Make a project show suggestions, and keep it that way when called again.

    Args:
        settings: URL and credentials of the backend, which must be running.
        studio: the Label Studio.
        predictor: of this process.
        number: the project.
        progress: told how far it is.

    Raises:
        LabelConfigError: the project's labeling config has nothing for us.
        StudioError: Label Studio refuses a step, or lost predictions.
    """
    project = studio.project(number)
    lock = FileLock(LOCKS / f"{urlsplit(studio.url).netloc.replace(':', '-')}-{number}.lock")
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        with lock.acquire(timeout=0):
            return _connect(settings, studio, predictor, project, progress)
    except Timeout as error:
        raise StudioError(
            f"Project {number} is being connected already.", "Wait until that call has ended."
        ) from error


def _connect(
    settings: Settings,
    studio: Studio,
    predictor: Predictor,
    project: Mapping[str, Any],
    progress: Progress,
) -> ConnectReport:
    number = int(project["id"])
    config = parse_config(project["label_config"])
    config.require_controls()
    report = ConnectReport(warnings=_warnings(config, predictor))
    progress("registering the backend", 0, 1)
    former = _register_backend(settings, studio, number)
    _make_webhook(settings, studio, number, former)
    _show_scores(studio, number)
    tasks = list(studio.tasks(number))
    report.tasks = len(tasks)
    key = project_key(project)
    # Already predicted under today's version: nothing to fetch, encode or even load.
    predicted = _predicted(studio, number, predictor.scorer(config, key).model_version)
    _embed(predictor, config, _without(tasks, predicted), progress)
    predictor.freeze_statistics(config, key, tasks)
    scorer = predictor.scorer(config, key)
    report.model_version = scorer.model_version
    predicted = _predicted(studio, number, scorer.model_version)
    predictions = _predict(predictor, scorer, _without(tasks, predicted), progress)
    report.failures = {
        one.task: str(one.failure)
        for one in predictions
        if one.result is None and one.task is not None
    }
    report.imported = import_missing(studio, number, predictions, progress)
    if parse_config(studio.project(number)["label_config"]).digest != config.digest:
        raise StudioError(
            "The labeling config was changed while the tasks were predicted.",
            "Run ls-clip connect again.",
        )
    if len(report.failures) < len(tasks):
        studio.update_project(
            number,
            show_collab_predictions=True,
            sampling="Uncertainty sampling",
            model_version=scorer.model_version,
        )
        # Tasks that were deleted meanwhile are nobody's fault.
        still_there = {int(task["id"]) for task in studio.tasks(number)}
        expected = ({int(task["id"]) for task in tasks} & still_there) - set(report.failures)
        verify(studio, number, scorer.model_version, expected)
    return report


def import_missing(
    studio: Studio, number: int, predictions: Sequence[Prediction], progress: Progress
) -> int:
    """Import the predictions that Label Studio does not have yet, each exactly once.

    Returns:
        How many were imported.

    Raises:
        StudioError: Label Studio still lacks some after three rounds.
    """
    missing = [one for one in predictions if one.result is not None]
    total, imported = len(missing), 0
    failure: StudioError | None = None
    for _ in range(IMPORT_ROUNDS):
        if missing:
            # Somebody may have opened a task meanwhile, which is predicted live then.
            there = _predicted(studio, number, missing[0].model_version)
            missing = [one for one in missing if one.task not in there]
        progress("importing predictions", total - len(missing), total)
        if not missing:
            return imported
        items = [{"task": one.task, **one.as_item()} for one in missing]
        try:
            created = studio.import_predictions(number, items)
            failure = None
            if created < len(items):
                log.error("Label Studio made %d of %d predictions", created, len(items))
        except StudioError as error:
            log.warning("the import is repeated for what is missing: %s", error)
            failure = error
            if isinstance(error, UnansweredError):
                _settle(studio, number, missing[0].model_version, len(items))
            # One task that was deleted meanwhile makes Label Studio refuse all of them.
            alive = {int(task["id"]) for task in studio.tasks(number)}
            missing = [one for one in missing if one.task in alive]
            if not missing:
                return imported
        # After a time-out too, only what Label Studio itself lacks is sent again.
        there = _predicted(studio, number, missing[0].model_version)
        left = [one for one in missing if one.task not in there]
        imported += len(missing) - len(left)
        missing = left
    progress("importing predictions", total - len(missing), total)
    if not missing:
        return imported
    raise failure or StudioError(
        f"Label Studio dropped {len(missing)} predictions without saying why (tasks "
        f"{', '.join(str(one.task) for one in missing[:10])}): they do not fit its labeling "
        "config.",
        "Check that nobody changed the labels meanwhile, then run ls-clip connect again. Labels "
        "that come from the task's data, or nested ones, can only be predicted when a task is "
        "opened.",
    )


def _settle(studio: Studio, number: int, model_version: str, sent: int) -> None:
    """Wait until an import whose answer was lost is over: its count has not changed for a while.

    Label Studio makes about 1,000 predictions a second and shows them all at once at the end.
    """
    quiet = max(SETTLE_SECONDS, sent / 300)
    deadline = time.monotonic() + IMPORT_SECONDS
    count, since = -1, time.monotonic()
    while time.monotonic() < min(deadline, since + quiet):
        now = studio.model_versions(number).get(model_version, 0)
        if now != count:
            count, since = now, time.monotonic()
        if count >= sent:
            return
        time.sleep(1)


def verify(studio: Studio, number: int, model_version: str, tasks: set[int]) -> None:
    """Check through Label Studio that each task shows exactly one prediction of the version.

    Raises:
        StudioError: naming the tasks for which that does not hold.
    """
    found = Counter(
        item["task"]
        for item in studio.predictions(number)
        if item["model_version"] == model_version
    )
    wrong = sorted(task for task in tasks if found[task] != 1)
    if wrong:
        raise StudioError(
            f"{len(wrong)} tasks do not have exactly one prediction of {model_version}: "
            f"{', '.join(map(str, wrong[:10]))}.",
            "Delete that version's predictions in Label Studio, then run ls-clip connect again.",
        )
    shown = studio.project(number)["model_version"]
    if tasks and shown != model_version:
        raise StudioError(
            f"The project shows {shown!r} instead of {model_version!r}.",
            "Someone changed it meanwhile; run ls-clip connect again.",
        )


def _predicted(studio: Studio, number: int, model_version: str) -> set[int]:
    """The tasks that have a prediction of this version."""
    if model_version not in studio.model_versions(number):
        return set()
    return {
        int(item["task"])
        for item in studio.predictions(number)
        if item["model_version"] == model_version
    }


def _without(tasks: Sequence[Mapping[str, Any]], done: set[int]) -> list[Mapping[str, Any]]:
    return [task for task in tasks if task["id"] not in done]


def _warnings(config: LabelConfig, predictor: Predictor) -> list[str]:
    warnings = list(config.skipped)
    texts = [
        text
        for control in config.controls
        for label in control.labels
        for text in (label.prompts or (label.text,))
    ]
    unreadable = unreadable_labels(predictor.encoder, texts)
    if unreadable:
        warnings.append(
            f"The text tower of {predictor.encoder.short} reads English only, and does not know "
            f"{', '.join(unreadable[:5])}. Give each such <Choice> a "
            'model_prompt="a photo of ..." in English, or set LS_CLIP_ENCODER to a multilingual '
            "open_clip model, e.g. open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k."
        )
    if config.evidence is None:
        warnings.append(
            "The probabilities will not be shown while labeling. Add "
            f'<TextArea name="{EVIDENCE_NAME}" toName="{config.controls[0].to_name}" '
            'editable="false"/> to the labeling config to see them.'
        )
    return warnings


def _register_backend(settings: Settings, studio: Studio, number: int) -> set[str]:
    """Make ours the project's backend; returns the addresses that ours had before."""
    body: dict[str, Any] = {
        "project": number,
        "url": settings.backend_url,
        "title": TITLE,
        "is_interactive": False,
        "auth_method": "BASIC_AUTH" if settings.basic_auth_user else "NONE",
        "basic_auth_user": settings.basic_auth_user,
        "basic_auth_pass": settings.basic_auth_pass.get_secret_value(),
    }
    rows = [
        one
        for one in studio.backends(number)
        if one["title"] == TITLE or one["url"].rstrip("/") == settings.backend_url
    ]
    same = [one["id"] for one in rows]
    try:
        studio.save_backend(body, same[0] if same else None)
    except StudioError as error:
        if not same:
            # Label Studio may refuse the call and keep the row all the same.
            for one in studio.backends(number):
                if one["title"] == TITLE:
                    studio.delete_backend(one["id"])
        raise _backend_refused(settings, error) from error
    for extra in same[1:]:
        studio.delete_backend(extra)
    return {str(one["url"]).rstrip("/") for one in rows}


def _backend_refused(settings: Settings, error: StudioError) -> StudioError:
    """Label Studio's refusal of the backend in words that help."""
    if error.fix:
        return error
    if "401" in error.message:
        return StudioError(
            f"The backend at {settings.backend_url} wants other credentials.",
            "Give ls-clip serve and ls-clip connect the same BASIC_AUTH_USER and BASIC_AUTH_PASS; "
            "or another backend listens there, and LS_CLIP_PORT must change.",
        )
    return StudioError(
        f"Label Studio cannot use a backend at {settings.backend_url}.",
        "Is ls-clip serve running, and does Label Studio reach it there (LS_CLIP_PUBLIC_URL)?",
    )


def _make_webhook(settings: Settings, studio: Studio, number: int, former: set[str]) -> None:
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
    for hook in studio.webhooks(number):
        if hook["url"].partition("?")[0] not in mine:
            continue
        if hook["url"] == body["url"] and ours is None:
            ours = hook["id"]
        else:
            studio.delete_webhook(hook["id"])
    studio.save_webhook(body, ours)


def _show_scores(studio: Studio, number: int) -> None:
    """A Data Manager tab with the score columns, the least certain tasks first."""
    hidden = [
        f"{column['target']}:{column['id']}"
        for column in studio.columns(number)
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
    same = [one["id"] for one in studio.views(number) if one["data"].get("title") == VIEW_TITLE]
    studio.save_view(number, data, same[0] if same else None)


def _embed(
    predictor: Predictor,
    config: LabelConfig,
    tasks: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> None:
    for start in range(0, len(tasks), SHARD):
        progress("embedding images", start, len(tasks))
        images = [
            value
            for task in tasks[start : start + SHARD]
            for control in config.controls
            if (value := image_of(control, task)) is not None
        ]
        predictor.embedder.embed(images)
    progress("embedding images", len(tasks), len(tasks))


def _predict(
    predictor: Predictor,
    scorer: Scorer,
    tasks: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> list[Prediction]:
    predictions: list[Prediction] = []
    for start in range(0, len(tasks), SHARD):
        progress("scoring", start, len(tasks))
        predictions += predictor.predict(scorer, tasks[start : start + SHARD])
    progress("scoring", len(tasks), len(tasks))
    return predictions
