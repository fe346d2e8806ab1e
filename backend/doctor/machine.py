"""Checks of this machine: encoder, store, credentials, and the backend that should run."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity
from backend.messages.message import Message, in_sequence
from backend.server.gunicorn import check_bind

HEALTH_SECONDS = 1.0
SETUP_SECONDS = 3.0


def encoder(context: Context) -> Iterator[Finding]:
    """The encoder's weights are available and readable."""
    context.encoder.load()
    yield from ()


def credentials(context: Context) -> Iterator[Finding]:
    """Who may call the backend."""
    settings = context.settings
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    secret = settings.webhook_secret.get_secret_value()
    check_bind(settings)
    if bool(user) != bool(password):
        missing = "BASIC_AUTH_PASS" if user else "BASIC_AUTH_USER"
        yield Finding(
            "credentials",
            Severity.ERROR,
            Message("{missing} is not set, although its counterpart is.", missing=missing),
            Message("Label Studio logs in only with both, so the backend refuses all its calls."),
            Message(
                "Set {missing}, restart ls-clip serve, then run ls-clip connect PROJECT.",
                missing=missing,
            ),
        )
    elif user and not secret:
        yield Finding(
            "credentials",
            Severity.WARNING,
            Message("LS_CLIP_WEBHOOK_SECRET is not set, though a login is."),
            Message("Label Studio's events carry no login, so the backend refuses them all."),
            Message(
                "Set LS_CLIP_WEBHOOK_SECRET, restart ls-clip serve, then run ls-clip connect "
                "PROJECT."
            ),
        )
    elif not user:
        yield Finding(
            "credentials",
            Severity.NOTE,
            Message("The backend has no login."),
            Message("Every program on this machine may use it, and it cannot be served to others."),
            Message("Set BASIC_AUTH_USER, BASIC_AUTH_PASS and LS_CLIP_WEBHOOK_SECRET."),
        )


def backend(context: Context) -> Iterator[Finding]:
    """The backend answers, is ours, and is quick enough for Label Studio."""
    url = context.settings.backend_url
    try:
        answer = context.ask("GET", f"{url}/health")
    except requests.RequestException as error:
        yield Finding(
            "backend",
            Severity.ERROR,
            Message("No backend answers at {url} ({kind}).", url=url, kind=type(error).__name__),
            Message("New tasks get no suggestion, and events are lost."),
            Message(
                "Run ls-clip serve and keep it running; set LS_CLIP_PUBLIC_URL if it has another "
                "address."
            ),
        )
        return
    ours = isinstance(answer.body, dict) and answer.body.get("model_class") == "ClipBackend"
    if not ours:
        yield Finding(
            "backend",
            Severity.ERROR,
            Message(
                "What answers at {url} is not this backend (status {status}).",
                url=url,
                status=answer.status,
            ),
            Message("Label Studio would ask another program for suggestions."),
            Message("Correct LS_CLIP_PORT or LS_CLIP_PUBLIC_URL, or stop the other program."),
        )
    elif answer.seconds > HEALTH_SECONDS:
        yield _slow("/health", answer.seconds, HEALTH_SECONDS)


def backend_login(context: Context) -> Iterator[Finding]:
    """The backend accepts the credentials that connect would give Label Studio."""
    try:
        answer = context.setup(of_project=False)
    except requests.RequestException as error:
        yield Finding(
            "backend-login",
            Severity.ERROR,
            Message("The backend does not answer /setup ({kind}).", kind=type(error).__name__),
            Message("Label Studio calls it disconnected."),
            Message("Read the log of ls-clip serve."),
        )
        return
    if answer.status == 401:
        yield Finding(
            "backend-login",
            Severity.ERROR,
            Message("The running backend refuses BASIC_AUTH_USER and BASIC_AUTH_PASS."),
            Message("ls-clip connect would give Label Studio credentials that do not work."),
            Message("Restart ls-clip serve with the same settings as ls-clip doctor."),
        )
        return
    version = answer.body.get("model_version") if isinstance(answer.body, dict) else None
    if answer.status != 200 or not isinstance(version, str) or not version:
        reply = answer.body.get("error", {}) if isinstance(answer.body, dict) else {}
        yield Finding(
            "backend-login",
            Severity.ERROR,
            in_sequence(
                Message("The backend answers {status} to /setup.", status=answer.status),
                reply.get("message", ""),
            ),
            Message("Without a model version Label Studio's label stream ends in an error."),
            reply.get("fix") or Message("Read the log of ls-clip serve."),
        )
    elif answer.seconds > SETUP_SECONDS:
        yield _slow("/setup", answer.seconds, SETUP_SECONDS)


def differing_settings(context: Context) -> str | None:
    """Names of the settings that the running backend has other values of.

    Returns:
        The names, with commas; empty if there are none; None if it does not tell.
    """
    try:
        answer = context.compare()
        return ", ".join(map(str, answer.body["differ"])) if answer.status == 200 else None
    except (requests.RequestException, KeyError, TypeError):
        return None


def backend_settings(context: Context) -> Iterator[Finding]:
    """The running backend was started with these settings."""
    differ = differing_settings(context)
    if differ is None:
        yield Finding(
            "backend-settings",
            Severity.WARNING,
            Message("The running backend cannot compare its settings with these."),
            Message("It may be of an older release."),
            Message("Restart ls-clip serve, then run ls-clip doctor again."),
        )
    elif differ:
        yield Finding(
            "backend-settings",
            Severity.WARNING,
            Message(
                "The running backend has another value of {names}.",
                names=differ,
            ),
            Message("The findings here may not apply to it: .env is read once, at the start."),
            Message(
                "Restart ls-clip serve (and ls-clip worker) with these settings, or run ls-clip "
                "doctor with theirs."
            ),
        )


def _slow(path: str, seconds: float, limit: float) -> Finding:
    return Finding(
        "backend" if path == "/health" else "backend-login",
        Severity.WARNING,
        Message("The backend took {seconds:.1f} s to answer {path}.", seconds=seconds, path=path),
        Message(
            "Label Studio waits {limit:g} s and calls it disconnected after that.", limit=limit
        ),
        Message("Give the machine of ls-clip serve less to do, or more cores."),
    )


CHECKS = (
    Check(
        "encoder",
        Message("The encoder can be loaded."),
        Message("Without it nothing can be suggested."),
        encoder,
    ),
    Check(
        "credentials",
        Message("The backend requires a login and a secret."),
        Message("The backend does not start like this."),
        credentials,
    ),
    Check(
        "backend", Message("The backend answers."), Message("It makes the suggestions."), backend
    ),
    Check(
        "backend-login",
        Message("The backend accepts the credentials."),
        Message("Label Studio has to log in to it."),
        backend_login,
        ("backend",),
    ),
    Check(
        "backend-settings",
        Message("The backend runs with these settings."),
        Message("What is found here should hold for it."),
        backend_settings,
        ("backend", "backend-login"),
    ),
)
