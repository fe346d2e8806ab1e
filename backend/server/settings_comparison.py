"""Compares the settings of two processes by salted hashes, so that neither shows its secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import SecretStr

from backend.settings import Settings

COMPARED = (
    "label_studio_url",
    "label_studio_api_key",
    "encoder",
    "precision",
    "regions",
    "store",
    "installation",
    "webhook_secret",
    "threshold",
    "blind_share",
    "allowed_hosts",
    "offline",
    "redis_url",
    "max_image_bytes",
    "max_image_pixels",
    "language",
)
"""Settings by which the server, the workers and the commands must agree."""


def digests(settings: Settings, salt: str) -> dict[str, str]:
    """Setting -> hash (sha256) of its value and the salt, for the settings in `COMPARED`."""
    meant = {"store": settings.store_uri, "installation": settings.installation_id}
    hashes = {}
    for name in COMPARED:
        value = meant.get(name, getattr(settings, name))
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        text = f"{salt} {name} {value}".encode(errors="replace")
        hashes[name] = hashlib.sha256(text).hexdigest()
    return hashes


def differing(settings: Settings, salt: str, theirs: Mapping[str, object]) -> list[str]:
    """Environment variables whose values differ from those of another process.

    Args:
        settings: of this process.
        salt: chosen by the other process.
        theirs: `digests` of the other process; what is missing there is not compared.
    """
    names = Settings.environment_names()
    ours = digests(settings, salt)
    return [names[name] for name in COMPARED if theirs.get(name, ours[name]) != ours[name]]
