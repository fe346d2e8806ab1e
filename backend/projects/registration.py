"""What a connected project has in Label Studio: our backend, our webhook, and a tab with scores."""

from __future__ import annotations

from typing import Any

from backend.errors import StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.events import EVENT_ACTIONS, SECRET_HEADER
from backend.labelstudio.refusals import Refusal, read_refusal
from backend.messages.message import Message
from backend.settings import Settings

TITLE = "label-studio-clip"
VIEW_TITLE = "Suggestions"
SHOWN_COLUMNS = ("predictions_score", "predictions_model_versions")


def register_backend(settings: Settings, studio: LabelStudioClient, number: int) -> set[str]:
    """Register our backend with a project.

    Returns:
        The addresses under which it was registered before.

    Raises:
        StudioError: Label Studio cannot use it, or does not answer.
    """
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
    backends = [
        backend
        for backend in studio.backends.of_project(number)
        if backend["title"] == TITLE or backend["url"].rstrip("/") == settings.backend_url
    ]
    same = [backend["id"] for backend in backends]
    try:
        studio.backends.save(body, same[0] if same else None)
    except StudioError as error:
        if not same:
            # Label Studio may refuse the call and keep the row all the same.
            for backend in studio.backends.of_project(number):
                if backend["title"] == TITLE:
                    studio.backends.delete(backend["id"])
        raise _backend_refused(settings, error) from error
    for extra in same[1:]:
        studio.backends.delete(extra)
    return {str(backend["url"]).rstrip("/") for backend in backends}


def _backend_refused(settings: Settings, error: StudioError) -> StudioError:
    """Label Studio's refusal of the backend as an error that names the fix."""
    if error.fix:
        return error
    if read_refusal(error.reply) is Refusal.BACKEND_UNAUTHORIZED:
        return StudioError(
            Message(
                "The backend at {backend_url} wants other credentials.",
                backend_url=settings.backend_url,
            ),
            Message(
                "Give ls-clip serve and ls-clip connect the same BASIC_AUTH_USER and "
                "BASIC_AUTH_PASS; or another backend listens there, and LS_CLIP_PORT must change."
            ),
        )
    return StudioError(
        Message(
            "Label Studio cannot use a backend at {backend_url}.", backend_url=settings.backend_url
        ),
        Message(
            "Is ls-clip serve running, and does Label Studio reach it there (LS_CLIP_PUBLIC_URL)?"
        ),
    )


def make_webhook(
    settings: Settings, studio: LabelStudioClient, number: int, former: set[str]
) -> None:
    """Make our webhook the only one for our backend.

    Label Studio makes one by itself when a backend is registered, but without the secret.

    Args:
        settings: the backend's address and the secret.
        studio: the Label Studio.
        number: the project's.
        former: addresses of our backend before.
    """
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
    our_addresses = {f"{url}/webhook" for url in former | {settings.backend_url}}
    kept = None
    for hook in studio.webhooks.of_project(number):
        if hook["url"].partition("?")[0] not in our_addresses:
            continue
        if hook["url"] == body["url"] and kept is None:
            kept = hook["id"]
        else:
            studio.webhooks.delete(hook["id"])
    studio.webhooks.save(body, kept)


def show_scores(studio: LabelStudioClient, number: int) -> None:
    """Make a Data Manager tab with the score columns, sorted by score, the lowest first."""
    hidden = studio.views.hidden_columns(number, SHOWN_COLUMNS)
    data = {
        "title": VIEW_TITLE,
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:predictions_score"],
        "hiddenColumns": {"explore": hidden, "labeling": hidden},
        "filters": {"conjunction": "and", "items": []},
    }
    same = [
        view["id"]
        for view in studio.views.of_project(number)
        if view["data"].get("title") == VIEW_TITLE
    ]
    studio.views.save(number, data, same[0] if same else None)
