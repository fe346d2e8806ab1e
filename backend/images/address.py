"""An image address: how it is fetched, how it is named in the store, how it is shown in a log."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import parse_qs, quote, urlsplit

CLOUD_SCHEMES = ("s3://", "gs://", "azure-blob://")


def resolvable(value: str, task: int | None) -> str:
    """A cloud address (``s3://...``) as the path at which Label Studio serves it; others as is."""
    if task is not None and value.lower().startswith(CLOUD_SCHEMES):
        encoded = base64.urlsafe_b64encode(value.encode()).decode()
        return f"/tasks/{task}/resolve/?fileuri={quote(encoded)}"
    return value


def shown(value: str) -> str:
    """An address fit for a log: no query and no login, which are secrets, and on one line."""
    if value.startswith("data:"):
        return value[:40] + "…"
    plain = re.sub(r"//[^/]*@", "//", value.split("?", 1)[0])[:200]
    return "".join(character if character.isprintable() else "�" for character in plain)


def named(value: str) -> str:
    """An image's address; one that stands there itself (``data:``) is named by its hash."""
    if value[:5].lower() != "data:":
        return value
    return f"data:{hashlib.sha256(value.encode()).hexdigest()}"


def store_address(value: str, label_studio_url: str) -> str:
    """A name for the image that stays the same from request to request.

    Relative paths are joined with Label Studio's URL; Label Studio's resolve route stands for the
    cloud address in it; ``data:`` URIs are replaced by their hash.

    Args:
        value: the address as it stands in the task's data, or from `resolvable`.
        label_studio_url: of Label Studio, without a trailing slash.
    """
    value = named(value.strip())
    if not value.startswith("/") or value.startswith("//"):
        return value
    # Nearly all values are uploads and local files; parsing them all costs large runs much.
    if "/resolve/" not in value:
        return label_studio_url + value
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    uri = parse_qs(parts.query).get("fileuri")
    # Of several, Label Studio would take another than we.
    if uri and len(uri) == 1 and parts.path.endswith("/resolve/"):
        try:
            cloud = base64.urlsafe_b64decode(uri[0] + "=" * (-len(uri[0]) % 4)).decode()
        except ValueError:
            cloud = ""
        # Anything else could be made to pass for an image from elsewhere.
        if cloud.lower().startswith(CLOUD_SCHEMES):
            return cloud
    return label_studio_url + value
