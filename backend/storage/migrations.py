"""Layouts of a store, and the steps from each to the next.

A step may be interrupted at any point and is then repeated as a whole: it does nothing twice.

Layout 1 had no installations: what layout 2 keeps in an installation's folder lay at the root. Its
tables kept all superseded versions, and everybody on the machine could read it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from backend.storage.artifacts import Artifacts
from backend.storage.store import Store

log = logging.getLogger(__name__)

FIRST_LAYOUT = 1
LAYOUT = 2
"""The layout that this release reads and writes."""
_FOLDERS = frozenset({"doctor", "heads", "projects", "runs", "statistics", "tables"})
"""Folders at the root of a store of layout 1, besides its tables."""


def root_content(root: Artifacts) -> list[str]:
    """Names of what a release with layout 1 has written at the root of a store.

    Raises:
        StoreError: the store cannot be read.
    """
    names = root.content("")
    return [name for name in names if name in _FOLDERS or name.endswith((".lance", ".json"))]


def move_into_installation(root: Artifacts, installation: str) -> None:
    """Move what layout 1 kept at the root of a store into an installation's folder.

    Raises:
        StoreError: something cannot be moved, or is at both places.
    """
    for name in root_content(root):
        root.move(name, f"{installation}/{name}")


def migrate(root: Artifacts, installation: str, layout: int) -> None:
    """Bring an installation from one layout to the next.

    Args:
        root: of the whole store; its lock for installations is held.
        installation: its id.
        layout: that it has.

    Raises:
        StoreError: the step failed; it is repeated when the store is opened again.
    """
    _STEPS[layout](root, Store(f"{root.uri}/{installation}"))


def _drop_superseded_versions(root: Artifacts, store: Store) -> None:
    for name in store.tables.names():
        store.tables.compactor.compact(name)
    if "://" not in root.uri:
        # Where another user owns it, ls-clip doctor says what to do.
        with suppress(PermissionError):
            folder = Path(root.uri)
            folder.chmod(folder.stat().st_mode & ~0o007)


_STEPS: Mapping[int, Callable[[Artifacts, Store], None]] = {1: _drop_superseded_versions}
"""Layout -> the step that leads to the next one."""
