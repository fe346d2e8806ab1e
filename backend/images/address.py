"""Image addresses in task data: how to fetch, store and log them."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import parse_qs, quote, urlsplit

CLOUD_SCHEMES = ("s3://", "gs://", "azure-blob://")


def fetch_address(value: str, task: int | None) -> str:
    """The address to fetch: Label Studio's resolve route for a cloud URI, otherwise ``value``.

    Args:
        value: the address in the task's data.
        task: the task's id; None: unknown, so that a cloud URI cannot be resolved.
    """
    if task is not None and value.lower().startswith(CLOUD_SCHEMES):
        encoded = base64.urlsafe_b64encode(value.encode()).decode()
        return f"/tasks/{task}/resolve/?fileuri={quote(encoded)}"
    return value


def loggable(value: str) -> str:
    """An address fit for a log: one short line, without the query and the login (secrets)."""
    if value.startswith("data:"):
        return value[:40] + "…"
    plain = re.sub(r"//[^/]*@", "//", value.split("?", 1)[0])[:200]
    return "".join(character if character.isprintable() else "�" for character in plain)


def compact_address(value: str) -> str:
    """The address itself; for a ``data:`` URI, which holds the whole image, its sha256."""
    if value[:5].lower() != "data:":
        return value
    return f"data:{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"


def store_address(value: str, label_studio_url: str, public_url: str = "") -> str:
    """The key of an image in the store; the same for every request.

    Relative paths are joined with Label Studio's URL, a resolve route is replaced by the cloud URI
    that it carries, and a ``data:`` URI by its hash.

    Args:
        value: the address in the task's data, or from `fetch_address`.
        label_studio_url: without a trailing slash.
        public_url: what Label Studio calls itself in task data, without a trailing slash; what it
            names so has the same key as what it names by a path.
    """
    value = compact_address(value.strip())
    if public_url and value.startswith(f"{public_url}/"):
        value = value.removeprefix(public_url)
    if not value.startswith("/") or value.startswith("//"):
        return value
    # Nearly all values are uploads and local files, and parsing each would slow down large runs.
    if "/resolve/" not in value:
        return label_studio_url + value
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    uri = parse_qs(parts.query).get("fileuri")
    # Of several, Label Studio would use another one than we.
    if uri and len(uri) == 1 and parts.path.endswith("/resolve/"):
        try:
            cloud = base64.urlsafe_b64decode(uri[0] + "=" * (-len(uri[0]) % 4)).decode()
        except ValueError:
            cloud = ""
        # Any other content could be crafted to impersonate an image from elsewhere.
        if cloud.lower().startswith(CLOUD_SCHEMES):
            return cloud
    return label_studio_url + value


def is_fixed(address: str, label_studio_url: str) -> bool:
    """Whether an address always leads to the same image.

    So does a ``data:`` URI, and so does an upload: Label Studio gives each file a name of its own.

    Args:
        address: from `store_address`.
        label_studio_url: without a trailing slash.
    """
    if address.startswith("data:"):
        return True
    if not address.startswith(f"{label_studio_url}/"):
        return False
    # Under a sub-path, Label Studio includes that path in some of its addresses only.
    path = address.removeprefix(label_studio_url).removeprefix(urlsplit(label_studio_url).path)
    return path.startswith("/data/upload/")
