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
from backend.messages.message import Message, in_sequence
from backend.projects.registration import TITLE
from backend.projects.renaming import probable_renames
from backend.storage.project_state import ProjectState

_TASK_DATA = Message("the task's data")


def project(context: Context) -> Iterator[Finding]:
    """The project exists and may be seen."""
    if not context.project.get("task_number"):
        yield Finding(
            "project",
            Severity.NOTE,
            Message("The project has no tasks."),
            Message("There is nothing to make suggestions for."),
            Message("Import images, then run ls-clip connect {number}.", number=context.number),
        )


def config(context: Context) -> Iterator[Finding]:
    """The labeling config has controls that we support."""
    context.config.require_controls()
    for reason in context.config.skipped:
        yield Finding(
            "config",
            Severity.NOTE,
            Message("Left out: {reason}", reason=reason),
            Message("It gets no suggestions."),
            CONFIG_FIX,
        )


def evidence(context: Context) -> Iterator[Finding]:
    """The probabilities are shown while labeling."""
    if context.config.evidence is None:
        yield Finding(
            "evidence",
            Severity.NOTE,
            Message("The labeling config has no place for the probabilities."),
            Message("Annotators see ticked boxes, but not how probable they are."),
            Message(
                'Add <TextArea name="{evidence_name}" toName="{to_name}" editable="false" '
                'maxSubmissions="0" rows="1"/> to the labeling config.',
                evidence_name=EVIDENCE_NAME,
                to_name=context.config.controls[0].to_name,
            ),
        )


def labels(context: Context) -> Iterator[Finding]:
    """The text tower can read the labels."""
    unread = unreadable_labels(context.encoder, context.config)
    if unread:
        message, fix = unreadable_message(context.encoder, unread)
        consequence = Message("A suggestion for them would be chance.")
        yield Finding("labels", Severity.WARNING, message, consequence, fix)


def renames(context: Context) -> Iterator[Finding]:
    """Nobody has to say whether a label was renamed."""
    state = ProjectState(context.store, project_key(context.project))
    for found in probable_renames(state, context.config, context.project_number):
        yield Finding(
            "labels-renamed",
            Severity.NOTE,
            found.question,
            Message(
                "If it is the same label, what was approved under the old name does not count."
            ),
            Message("In that case: {command}.", command=found.command),
        )
    for control, pairs in state.former_names().items():
        listed = ", ".join(f"{old!r} as {new!r}" for old, new in pairs.items())
        yield Finding(
            "labels-renamed",
            Severity.OK,
            Message(
                "Renamed labels are understood in {control!r}: {listed}.",
                control=control,
                listed=listed,
            ),
        )


def registered(context: Context) -> Iterator[Finding]:
    """The project has our backend, once."""
    url = context.settings.backend_url
    mine = _our_backends(context)
    connect = Message("Run ls-clip connect {number}.", number=context.number)
    if not mine:
        yield Finding(
            "backend-registered",
            Severity.ERROR,
            Message("This backend is not registered in the project."),
            Message("Tasks that are opened or created later get no suggestions."),
            connect,
        )
    elif len(mine) > 1:
        yield Finding(
            "backend-registered",
            Severity.WARNING,
            Message("The project has the backend {count} times.", count=len(mine)),
            Message("Label Studio asks each of them, and keeps a prediction of each."),
            connect,
        )
    elif mine[0]["url"].rstrip("/") != url:
        yield Finding(
            "backend-registered",
            Severity.WARNING,
            Message(
                "The project's backend is at {there}, the settings say {url}.",
                there=mine[0]["url"],
                url=url,
            ),
            Message("Label Studio asks another server than the one examined here."),
            Message("Correct LS_CLIP_PUBLIC_URL or LS_CLIP_PORT, or: {connect}", connect=connect),
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
            in_sequence(
                Message(
                    "Label Studio calls the backend at {url} {state}.",
                    url=backend["url"],
                    state=str(name).lower(),
                ),
                reply,
            ),
            Message("It does not ask this backend for suggestions, and reports that nowhere else."),
            Message(
                "If ls-clip serve runs, its address must be reachable from Label Studio's machine "
                "(LS_CLIP_PUBLIC_URL), and Label Studio must know the login: ls-clip connect "
                "{number}.",
                number=context.number,
            ),
        )


def webhook(context: Context) -> Iterator[Finding]:
    """Our webhook is there, with the secret."""
    url = f"{context.settings.backend_url}/webhook?project={context.number}"
    fix = Message("Run ls-clip connect {number}.", number=context.number)
    mine = [hook for hook in context.webhooks if hook["url"] == url]
    if not mine:
        yield Finding(
            "webhook",
            Severity.WARNING,
            Message("The project has no webhook to this backend."),
            Message("Events never arrive."),
            fix,
        )
        return
    hook = mine[0]
    if not hook["is_active"]:
        yield Finding(
            "webhook",
            Severity.WARNING,
            Message("Our webhook is switched off."),
            Message("Events never arrive."),
            fix,
        )
    secret = context.settings.webhook_secret.get_secret_value()
    sent = (hook.get("headers") or {}).get(SECRET_HEADER, "")
    if secret and sent != secret:
        yield Finding(
            "webhook",
            Severity.WARNING,
            Message("Our webhook carries another secret.")
            if sent
            else Message("Our webhook carries no secret."),
            Message("The backend refuses its events, and Label Studio tells nobody."),
            fix,
        )
    missing = sorted(EVENT_ACTIONS - set(hook["actions"]))
    if missing and not hook["send_for_all_actions"]:
        yield Finding(
            "webhook",
            Severity.WARNING,
            Message("Our webhook leaves out {names}.", names=", ".join(missing)),
            Message("These events never arrive."),
            fix,
        )
    if not hook["send_payload"]:
        yield Finding(
            "webhook",
            Severity.WARNING,
            Message("Our webhook sends the bare name of an event."),
            Message("What was annotated has to be guessed."),
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
            Message("The webhook that Label Studio made by itself is still there."),
            Message("It carries no secret: each event is refused once, and delays the annotator."),
            Message(
                "Run ls-clip connect {number}, or delete it under Settings > Webhooks.",
                number=context.number,
            ),
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
            Message(
                "{count} of {images} tried, from {host}, cannot be used ({reason}; {tasks}): "
                "{message}",
                count=len(failed),
                images=counted(len(tasks), "image"),
                host=host,
                reason=reason,
                tasks=named_tasks(failed),
                message=error.message,
            ),
            Message("Tasks without an image stay without suggestions."),
            error.fix,
        )


def _image_failure(context: Context, task: dict[str, Any]) -> tuple[str, ImageError] | None:
    """The host of a task's first image that cannot be used, and why; None if all can."""
    for control in context.config.controls:
        values = images_of_task(control, task)
        if not values:
            missing = ImageError(
                ImageReason.NO_IMAGE,
                Message(
                    "the data of task {id} holds no address in {image_field!r}.",
                    id=task["id"],
                    image_field=control.image_field,
                ),
                Message("Correct the task's data, or the value of the <Image> tag."),
            )
            return _TASK_DATA, missing
        for value in values:
            try:
                context.decoder.decoded(context.fetcher.fetch(value), lambda image: None)
            except ImageError as error:
                if value.startswith("data:"):
                    return _TASK_DATA, error
                return ("Label Studio" if value.startswith("/") else _host(value)), error
    return None


def _host(value: str) -> str:
    try:
        return urlsplit(value).hostname or _TASK_DATA
    except ValueError:
        return _TASK_DATA


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
        Message("The project can be read."),
        Message("It cannot be checked."),
        project,
        ("token",),
        project=True,
    ),
    Check(
        "config",
        Message("The labeling config has controls that can be predicted."),
        Message("Without it nothing is suggested."),
        config,
        ("project",),
        project=True,
    ),
    Check(
        "evidence",
        Message("The probabilities are shown while labeling."),
        Message("People cannot see them."),
        evidence,
        ("config",),
        project=True,
    ),
    Check(
        "labels",
        Message("The encoder can read the labels."),
        Message("Suggestions start from them."),
        labels,
        ("config", "encoder"),
        project=True,
    ),
    Check(
        "labels-renamed",
        Message("No label seems to have been renamed unnoticed."),
        Message("Approvals count for the label that they name."),
        renames,
        ("config", "store"),
        project=True,
    ),
    Check(
        "backend-registered",
        Message("The backend is registered in the project."),
        Message("Label Studio asks it."),
        registered,
        ("project", "ssrf"),
        project=True,
    ),
    Check(
        "backend-state",
        Message("Label Studio reaches the backend."),
        Message("It asks only connected ones."),
        state,
        ("project", "backend", "backend-registered"),
        project=True,
    ),
    Check(
        "webhook",
        Message("Our webhook is registered."),
        Message("Events come through it."),
        webhook,
        ("project", "backend-registered"),
        project=True,
    ),
    Check(
        "webhook-automatic",
        Message("No webhook without a secret is left."),
        Message("Its events are refused."),
        automatic_webhook,
        ("project",),
        project=True,
    ),
    Check(
        "images",
        Message("Images can be fetched and read."),
        Message("Suggestions are made from them."),
        images,
        ("config",),
        project=True,
    ),
)
