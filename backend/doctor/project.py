"""Checks of one project: its config, its backend, its webhooks, and its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity, named_tasks
from backend.encoders.label_texts import unreadable_message
from backend.errors import ImageError, ImageReason, counted
from backend.inference.label_embeddings import unreadable_labels
from backend.inference.task_images import images_of_task
from backend.labels.config import CONFIG_FIX, EVIDENCE_NAME
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.labelstudio.projects import project_key
from backend.projects.registration import TITLE
from backend.projects.renaming import probable_renames
from backend.storage.project_state import ProjectState


def project(context: Context) -> Iterator[Finding]:
    """The project exists and may be seen."""
    if not context.project.get("task_number"):
        yield Finding(
            "project",
            Severity.NOTE,
            "The project has no tasks.",
            "There is nothing to make suggestions for.",
            f"Import images, then run ls-clip connect {context.number}.",
        )


def config(context: Context) -> Iterator[Finding]:
    """The labeling config has controls that we support."""
    context.config.require_controls()
    for reason in context.config.skipped:
        yield Finding(
            "config", Severity.NOTE, f"Left out: {reason}", "It gets no suggestions.", CONFIG_FIX
        )


def evidence(context: Context) -> Iterator[Finding]:
    """The probabilities are shown while labeling."""
    if context.config.evidence is None:
        yield Finding(
            "evidence",
            Severity.NOTE,
            "The labeling config has no place for the probabilities.",
            "Annotators see ticked boxes, but not how probable they are.",
            f'Add <TextArea name="{EVIDENCE_NAME}" toName="{context.config.controls[0].to_name}" '
            'editable="false" maxSubmissions="0" rows="1"/> to the labeling config.',
        )


def labels(context: Context) -> Iterator[Finding]:
    """The text tower can read the labels."""
    unread = unreadable_labels(context.encoder, context.config)
    if unread:
        message, fix = unreadable_message(context.encoder, unread)
        consequence = "A suggestion for them would be chance."
        yield Finding("labels", Severity.WARNING, message, consequence, fix)


def renames(context: Context) -> Iterator[Finding]:
    """Nobody has to say whether a label was renamed."""
    state = ProjectState(context.store, project_key(context.project))
    for found in probable_renames(state, context.config, context.project_number):
        yield Finding(
            "labels-renamed",
            Severity.NOTE,
            found.question,
            "If it is the same label, what was approved under the old name does not count.",
            f"In that case: {found.command}.",
        )
    for control, pairs in state.former_names().items():
        listed = ", ".join(f"{old!r} as {new!r}" for old, new in pairs.items())
        yield Finding(
            "labels-renamed",
            Severity.OK,
            f"Renamed labels are understood in {control!r}: {listed}.",
        )


def registered(context: Context) -> Iterator[Finding]:
    """The project has our backend, once."""
    url = context.settings.backend_url
    mine = _our_backends(context)
    connect = f"Run ls-clip connect {context.number}."
    if not mine:
        yield Finding(
            "backend-registered",
            Severity.ERROR,
            "This backend is not registered in the project.",
            "Tasks that are opened or created later get no suggestions.",
            connect,
        )
    elif len(mine) > 1:
        yield Finding(
            "backend-registered",
            Severity.WARNING,
            f"The project has the backend {len(mine)} times.",
            "Label Studio asks each of them, and keeps a prediction of each.",
            connect,
        )
    elif mine[0]["url"].rstrip("/") != url:
        yield Finding(
            "backend-registered",
            Severity.WARNING,
            f"The project's backend is at {mine[0]['url']}, the settings say {url}.",
            "Label Studio asks another server than the one examined here.",
            f"Correct LS_CLIP_PUBLIC_URL or LS_CLIP_PORT, or: {connect}",
        )


def state(context: Context) -> Iterator[Finding]:
    """Label Studio reaches the backend and can log in to it."""
    for backend in _our_backends(context):
        if backend.get("state") == "CO":
            continue
        name = backend.get("readable_state") or backend.get("state")
        reply = str(backend.get("error_message") or "").split("\n")[0][:200]
        yield Finding(
            "backend-state",
            Severity.ERROR,
            f"Label Studio calls the backend at {backend['url']} {str(name).lower()}. "
            f"{reply}".strip(),
            "It does not ask this backend for suggestions, and reports that nowhere else.",
            "If ls-clip serve runs, its address must be reachable from Label Studio's "
            f"machine (LS_CLIP_PUBLIC_URL), and Label Studio must know the login: ls-clip connect "
            f"{context.number}.",
        )


def webhook(context: Context) -> Iterator[Finding]:
    """Our webhook is there, with the secret."""
    url = f"{context.settings.backend_url}/webhook?project={context.number}"
    fix = f"Run ls-clip connect {context.number}."
    mine = [hook for hook in context.webhooks if hook["url"] == url]
    if not mine:
        yield Finding(
            "webhook",
            Severity.WARNING,
            "The project has no webhook to this backend.",
            "Events never arrive.",
            fix,
        )
        return
    hook = mine[0]
    if not hook["is_active"]:
        yield Finding(
            "webhook", Severity.WARNING, "Our webhook is switched off.", "Events never arrive.", fix
        )
    secret = context.settings.webhook_secret.get_secret_value()
    sent = (hook.get("headers") or {}).get(SECRET_HEADER, "")
    if secret and sent != secret:
        yield Finding(
            "webhook",
            Severity.WARNING,
            f"Our webhook carries {'another' if sent else 'no'} secret.",
            "The backend refuses its events, and Label Studio tells nobody.",
            fix,
        )
    missing = sorted(EVENT_ACTIONS - set(hook["actions"]))
    if missing and not hook["send_for_all_actions"]:
        yield Finding(
            "webhook",
            Severity.WARNING,
            f"Our webhook leaves out {', '.join(missing)}.",
            "These events never arrive.",
            fix,
        )
    if not hook["send_payload"]:
        yield Finding(
            "webhook",
            Severity.WARNING,
            "Our webhook sends the bare name of an event.",
            "What was annotated has to be guessed.",
            fix,
        )


def automatic_webhook(context: Context) -> Iterator[Finding]:
    """The webhook that Label Studio makes by itself is gone."""
    address = f"{context.settings.backend_url}/webhook"
    extra = [hook for hook in context.webhooks if hook["url"].rstrip("/") == address]
    if extra:
        yield Finding(
            "webhook-automatic",
            Severity.WARNING,
            "The webhook that Label Studio made by itself is still there.",
            "It carries no secret: each event is refused once, and delays the annotator.",
            f"Run ls-clip connect {context.number}, or delete it under Settings > Webhooks.",
        )


def images(context: Context) -> Iterator[Finding]:
    """The images of a few tasks can be fetched and read."""
    tasks = context.sample
    failures: dict[tuple[str, str], ImageError] = {}
    numbers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for task in tasks:
        failure = _image_failure(context, task)
        if failure is not None:
            host, error = failure
            failures.setdefault((host, error.reason), error)
            numbers[host, error.reason].append(int(task["id"]))
    for (host, reason), error in failures.items():
        failed = numbers[host, reason]
        yield Finding(
            "images",
            Severity.ERROR if len(failed) == len(tasks) else Severity.WARNING,
            f"{len(failed)} of {counted(len(tasks), 'image')} tried, from {host}, cannot be used "
            f"({reason}; {named_tasks(failed)}): {error.message}",
            "Tasks without an image stay without suggestions.",
            error.fix,
        )


def _image_failure(context: Context, task: dict[str, Any]) -> tuple[str, ImageError] | None:
    """The host of a task's first image that cannot be used, and why; None if all can."""
    for control in context.config.controls:
        values = images_of_task(control, task)
        if not values:
            missing = ImageError(
                ImageReason.NO_IMAGE,
                f"the data of task {task['id']} holds no address in {control.image_field!r}.",
                "Correct the task's data, or the value of the <Image> tag.",
            )
            return "the task's data", missing
        for value in values:
            try:
                context.decoder.decoded(context.fetcher.fetch(value), lambda image: None)
            except ImageError as error:
                if value.startswith("data:"):
                    return "the task's data", error
                return ("Label Studio" if value.startswith("/") else _host(value)), error
    return None


def _host(value: str) -> str:
    try:
        return urlsplit(value).hostname or "the task's data"
    except ValueError:
        return "the task's data"


def _our_backends(context: Context) -> list[dict[str, Any]]:
    url = context.settings.backend_url
    return [
        backend
        for backend in context.backends
        if backend["title"] == TITLE or backend["url"].rstrip("/") == url
    ]


CHECKS = (
    Check(
        "project",
        "The project can be read.",
        "It cannot be checked.",
        project,
        ("token",),
        project=True,
    ),
    Check(
        "config",
        "The labeling config has controls that can be predicted.",
        "Without it nothing is suggested.",
        config,
        ("project",),
        project=True,
    ),
    Check(
        "evidence",
        "The probabilities are shown while labeling.",
        "People cannot see them.",
        evidence,
        ("config",),
        project=True,
    ),
    Check(
        "labels",
        "The encoder can read the labels.",
        "Suggestions start from them.",
        labels,
        ("config", "encoder"),
        project=True,
    ),
    Check(
        "labels-renamed",
        "No label seems to have been renamed unnoticed.",
        "Approvals count for the label that they name.",
        renames,
        ("config", "store"),
        project=True,
    ),
    Check(
        "backend-registered",
        "The backend is registered in the project.",
        "Label Studio asks it.",
        registered,
        ("project", "ssrf"),
        project=True,
    ),
    Check(
        "backend-state",
        "Label Studio reaches the backend.",
        "It asks only connected ones.",
        state,
        ("project", "backend", "backend-registered"),
        project=True,
    ),
    Check(
        "webhook",
        "Our webhook is registered.",
        "Events come through it.",
        webhook,
        ("project", "backend-registered"),
        project=True,
    ),
    Check(
        "webhook-automatic",
        "No webhook without a secret is left.",
        "Its events are refused.",
        automatic_webhook,
        ("project",),
        project=True,
    ),
    Check(
        "images",
        "Images can be fetched and read.",
        "Suggestions are made from them.",
        images,
        ("config",),
        project=True,
    ),
)
