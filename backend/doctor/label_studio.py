"""Checks of Label Studio itself: reachable, token, clocks, and which addresses it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity
from backend.errors import StudioError
from backend.labelstudio.failures import URL_FIX, unreachable
from backend.labelstudio.refusals import Refusal, read_refusal
from backend.labelstudio.tokens import StudioTokenError
from backend.messages.message import Message

ACCESS_SECONDS = 300
"""The life of the access tokens that a personal access token is exchanged for."""
NEEDED = (
    "projects.view",
    "projects.change",
    "tasks.view",
    "predictions.any",
    "models.change",
    "webhooks.change",
)
SSRF_FIX = Message(
    "Start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false (both: "
    "with the first alone the backend is added and its webhook is not), or give the backend a "
    "public address in LS_CLIP_PUBLIC_URL."
)


def reachable(context: Context) -> Iterator[Finding]:
    """The URL leads to a Label Studio."""
    url = context.settings.label_studio_url
    try:
        health = context.ask("GET", f"{url}/health")
        version = context.ask("GET", f"{url}/api/version")
        # Version and health are answered below the address of every page, the API is not.
        whoami = context.ask("GET", f"{url}/api/current-user/whoami")
    except requests.RequestException as error:
        raise unreachable(url, error) from error
    if health.location or version.location:
        raise StudioError(
            Message(
                "{url} redirects to {location}.",
                url=url,
                location=health.location or version.location,
            ),
            Message("Set LABEL_STUDIO_URL to the address that answers without a redirect."),
        )
    if health.status in {429, 502, 503, 504}:
        raise StudioError(
            Message("{url} answers {status}.", url=url, status=health.status),
            Message("Wait until Label Studio is up and less busy."),
        )
    is_studio = isinstance(version.body, dict) and "release" in version.body
    if not is_studio or whoami.status == 404:
        raise StudioError(
            Message("What answers at {url} is not Label Studio's API.", url=url),
            URL_FIX,
        )
    yield from ()


def clock(context: Context) -> Iterator[Finding]:
    """Both clocks agree."""
    date = context.ask("GET", f"{context.settings.label_studio_url}/health").date
    if not date:
        return
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) < ACCESS_SECONDS / 10:
        return
    fatal = abs(skew) > ACCESS_SECONDS * 0.8
    yield Finding(
        "clock",
        Severity.ERROR if fatal else Severity.WARNING,
        Message("This machine's clock is {seconds:.0f} s ahead of Label Studio's.", seconds=skew)
        if skew > 0
        else Message(
            "This machine's clock is {seconds:.0f} s behind Label Studio's.", seconds=-skew
        ),
        Message(
            "Access tokens live {access_seconds} s: on clocks that far apart they are renewed too "
            "late or refused.",
            access_seconds=ACCESS_SECONDS,
        ),
        Message("Let both machines take their time from the same NTP server."),
    )


def token(context: Context) -> Iterator[Finding]:
    """The token is accepted and its user may do what connect does."""
    try:
        user = context.studio.user()
    except StudioError as error:
        refusal = read_refusal(error.reply)
        if refusal is Refusal.LEGACY_TOKENS_OFF:
            raise StudioError(
                Message("The token is a legacy token, and Label Studio has those switched off."),
                Message(
                    "Create a personal access token (Account & Settings > Personal Access Token) "
                    "and set LABEL_STUDIO_API_KEY to it, or switch legacy tokens on under "
                    "Organization > API Tokens Settings."
                ),
            ) from error
        if refusal is Refusal.PERSONAL_TOKENS_OFF:
            raise StudioError(
                Message(
                    "The token is a personal access token, and Label Studio has those switched off."
                ),
                Message("Switch them on under Organization > API Tokens Settings."),
            ) from error
        if error.status in {403, 500} and not isinstance(error, StudioTokenError):
            raise StudioError(
                Message("The token is valid, but its user has no access to anything."),
                Message("Add the user to the organization again, or use the token of another one."),
            ) from error
        raise
    missing = [name for name in NEEDED if name not in user.get("permissions", NEEDED)]
    if missing:
        yield Finding(
            "token",
            Severity.ERROR,
            Message(
                "The user {email} lacks the rights {names}.",
                email=user.get("email"),
                names=", ".join(missing),
            ),
            Message("ls-clip connect changes the project and adds a backend and a webhook."),
            Message("Use the token of an owner or administrator."),
        )


def ssrf(context: Context) -> Iterator[Finding]:
    """Label Studio talks to addresses like the backend's."""
    url = context.settings.backend_url
    refused = {
        "ML_BLOCK_LOCAL_IP": context.studio.backends.refusal(url),
        "SSRF_PROTECTION_ENABLED": context.studio.webhooks.refusal(f"{url}/webhook"),
    }
    private = [name for name, why in refused.items() if why is Refusal.PRIVATE_ADDRESS]
    if private:
        ml = "ML_BLOCK_LOCAL_IP" in private
        yield Finding(
            "ssrf",
            Severity.ERROR,
            Message(
                "Label Studio refuses {url}: {setting} is on, which blocks private addresses.",
                url=url,
                setting=private[0],
            )
            if len(private) == 1
            else Message(
                "Label Studio refuses {url}: ML_BLOCK_LOCAL_IP and SSRF_PROTECTION_ENABLED are "
                "on, which blocks private addresses.",
                url=url,
            ),
            Message("The backend cannot be added.")
            if ml
            else Message("Events never reach the backend, and adding it fails half-way."),
            SSRF_FIX,
        )
    elif Refusal.UNKNOWN_HOST in refused.values():
        host = urlsplit(url).hostname
        yield Finding(
            "ssrf",
            Severity.ERROR,
            Message("Label Studio cannot resolve the backend's host {host}.", host=host),
            Message("It can neither ask for suggestions nor send events."),
            Message(
                "Set LS_CLIP_PUBLIC_URL to an address that works from Label Studio's machine or "
                "container."
            ),
        )


def webhook_url(context: Context) -> Iterator[Finding]:
    """Label Studio accepts the address of our webhook."""
    url = f"{context.settings.backend_url}/webhook"
    if context.studio.webhooks.refusal(url) is Refusal.INVALID_URL:
        yield Finding(
            "webhook-url",
            Severity.ERROR,
            Message(
                "Label Studio does not accept {url} as a webhook: a host without a dot.", url=url
            ),
            Message(
                "The backend can be added with it, but the webhook is left out without a word."
            ),
            Message(
                "Set LS_CLIP_PUBLIC_URL to an address with a dotted name (a network alias such as "
                "clip.internal) or an IP address."
            ),
        )


CHECKS = (
    Check(
        "studio",
        Message("Label Studio answers."),
        Message("Tasks, images and suggestions live there."),
        reachable,
    ),
    Check(
        "clock",
        Message("The clocks agree."),
        Message("Tokens live by the clock."),
        clock,
        ("studio",),
    ),
    Check(
        "token",
        Message("The token is accepted."),
        Message("Nothing can be read or written without it."),
        token,
        ("studio",),
    ),
    Check(
        "ssrf",
        Message("Label Studio talks to the backend's address."),
        Message("Both sides must reach each other."),
        ssrf,
        ("token",),
    ),
    Check(
        "webhook-url",
        Message("Label Studio accepts the webhook's address."),
        Message("Events come through it."),
        webhook_url,
        ("token",),
    ),
)
