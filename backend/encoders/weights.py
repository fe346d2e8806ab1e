"""Weight files: a fingerprint of their content, and whether a model hub can be reached."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

CACHE = Path("~/.cache/label-studio-clip").expanduser()
PROBE_SECONDS = 3.0


def fingerprint(path: Path, cache_dir: Path = CACHE) -> str:
    """The first 12 hex digits of a file's sha256, cached by path, size and modification time.

    Raises:
        OSError: the file cannot be read. An unwritable cache is ignored.
    """
    stat = path.stat()
    key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    cache_file = cache_dir / "fingerprints.json"
    try:
        known = json.loads(cache_file.read_text())
    except (OSError, ValueError):
        known = {}
    if key in known:
        return str(known[key])
    with path.open("rb") as file:
        known[key] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        draft = cache_file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(known))
        draft.replace(cache_file)
    except OSError:
        pass
    return str(known[key])


def prepare_hub(offline: bool) -> bool:
    """Find out whether the model hub answers, and set its clients to offline mode if not.

    On a closed network the hub's own clients retry for almost a minute; in offline mode they use
    the files in their cache at once.

    Args:
        offline: do not contact the hub at all.

    Returns:
        Whether the hub answers.
    """
    # Costly to import, and not needed for an encoder's id, which Label Studio waits for.
    import requests

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    reachable = not offline and os.environ.get("HF_HUB_OFFLINE", "0") in {"", "0"}
    if reachable:
        try:
            requests.head(endpoint, timeout=PROBE_SECONDS, allow_redirects=False)
        except requests.RequestException:
            reachable = False
    if not reachable:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    return reachable
