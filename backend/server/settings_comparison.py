"""Whether another process runs with our settings, without either showing the other its secrets."""

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
    "webhook_secret",
    "threshold",
    "blind_share",
    "allowed_hosts",
    "offline",
    "redis_url",
    "max_image_bytes",
    "max_image_pixels",
)
"""Settings by which the server, the workers and the commands must agree."""


def digests(settings: Settings, salt: str) -> dict[str, str]:
    """Setting -> a hash of its value and the salt, see `COMPARED`."""
    found = {}
    for name in COMPARED:
        value = settings.store_uri if name == "store" else getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        text = f"{salt} {name} {value}".encode(errors="replace")
        found[name] = hashlib.sha256(text).hexdigest()
    return found


def differing(settings: Settings, salt: str, theirs: Mapping[str, object]) -> list[str]:
    """Environment variables of which they have another value than we.

    Args:
        settings: ours.
        salt: chosen by them.
        theirs: their `digests`; what is missing there is not compared.
    """
    names = Settings.environment_names()
    ours = digests(settings, salt)
    return [names[name] for name in COMPARED if theirs.get(name, ours[name]) != ours[name]]
