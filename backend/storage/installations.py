"""Installations: whose work a store holds. Each has a folder of its own below the store's URI.

Project numbers and even creation times are the same in a copy of a Label Studio, so the folder
keeps two installations on one store from reading, sweeping or erasing each other's work.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from backend.errors import StoreError
from backend.settings import Settings
from backend.storage.artifacts import Artifacts
from backend.storage.locks import Locks
from backend.storage.migrations import (
    FIRST_LAYOUT,
    LAYOUT,
    migrate,
    move_into_installation,
    root_content,
)
from backend.storage.store import Store

log = logging.getLogger(__name__)

RECORD = "installation"
"""Name of the artifact in an installation's folder that says whose it is."""
UPGRADE_SECONDS = 3600.0
"""How long a process waits for another one that brings the store to the present layout."""
_LOCK = "installations"


def open_store(settings: Settings) -> Store:
    """The installation's store, created or brought to the present layout where necessary.

    Args:
        settings: the store's URI, and the installation's id and name.

    Raises:
        StoreError: the store cannot be opened, or a newer release wrote it.
    """
    uri, installation = settings.store_uri.rstrip("/"), settings.installation_id
    root = Artifacts(uri)
    name = f"{installation}/{RECORD}"
    record = root.read(name)
    if record is None or root_content(root) or record.get("layout") != LAYOUT:
        locks = Locks(uri)
        with locks.hold_if_free(_LOCK) as is_free:
            if is_free:
                _prepare(root, installation, settings.installation_name)
        if not is_free:
            log.warning("waiting for another process, which brings the store at %s up to date", uri)
            with locks.hold(_LOCK, UPGRADE_SECONDS):
                _prepare(root, installation, settings.installation_name)
    return Store(f"{uri}/{installation}")


def installation_names(uri: str) -> dict[str, str]:
    """Id -> name of the installations in a store.

    Raises:
        StoreError: the store cannot be read.
    """
    root = Artifacts(uri.rstrip("/"))
    records = {folder: root.read(f"{folder}/{RECORD}") for folder in root.folder_names("")}
    return {
        folder: str(record.get("name", folder))
        for folder, record in sorted(records.items())
        if record is not None
    }


def namesakes(uri: str, installation: str, project: str) -> list[str]:
    """Names of the other installations in a store that know a project with the same key.

    Such an installation is this one under another name, or one of the two is a copy of the other.

    Args:
        uri: of the store.
        installation: id of this installation.
        project: the project's key, ``<id>.<unix time of creation>``.

    Raises:
        StoreError: the store cannot be read.
    """
    root = Artifacts(uri.rstrip("/"))
    return [
        name
        for folder, name in installation_names(uri).items()
        if folder != installation
        and any(
            project in root.folder_names(f"{folder}/{part}")
            for part in ("heads", "projects", "statistics")
        )
    ]


def adopt(settings: Settings, former: str) -> str:
    """Give another installation's work to this one: Label Studio has got another address.

    Addresses of images on Label Studio itself are rewritten, so that none is embedded again.

    Args:
        settings: of this installation.
        former: id or name of the other one.

    Returns:
        The other one's name.

    Raises:
        StoreError: the store has no such installation, or this one has work of its own.
    """
    uri, installation = settings.store_uri.rstrip("/"), settings.installation_id
    root = Artifacts(uri)
    with Locks(uri).hold(_LOCK):
        known = installation_names(uri)
        source = next((key for key, name in known.items() if former in {key, name}), None)
        if source is None or source == installation:
            raise StoreError(
                f"The store at {uri} has no other installation {former!r}.",
                f"It has: {', '.join(known.values()) or 'none'}.",
            )
        for part in ("heads", "projects"):
            if root.folder_names(f"{installation}/{part}"):
                raise StoreError(
                    f"{settings.installation_name} has work of its own in the store at {uri}.",
                    f"Set LS_CLIP_INSTALLATION={known[source]} to go on with the work of "
                    f"{known[source]}.",
                )
        record = root.read(f"{source}/{RECORD}") or {}
        root.erase("", installation.__eq__)
        root.move(source, installation)
        record = {**record, "name": settings.installation_name}
        root.write(f"{installation}/{RECORD}", record, replace=True)
    store = Store(f"{uri}/{installation}")
    for scheme in ("http", "https"):
        for name in ("addresses", "task_images", "validators"):
            store.tables.replace_prefix(
                name, "address", f"{scheme}://{known[source]}/", f"{settings.label_studio_url}/"
            )
    return known[source]


def _prepare(root: Artifacts, installation: str, name: str) -> None:
    """Write an installation's record; what an older release kept at the root becomes its own."""
    path = f"{installation}/{RECORD}"
    record = root.read(path)
    made = {"name": name, "created": datetime.now(UTC).isoformat()}
    if root_content(root):
        log.warning("the store at %s is of an older release; it becomes that of %s", root.uri, name)
        move_into_installation(root, installation)
        record = {**(record or made), "layout": FIRST_LAYOUT}
        root.write(path, record, replace=True)
    if record is None:
        record = root.write(path, {**made, "layout": LAYOUT})
    layout = record.get("layout")
    if not isinstance(layout, int) or not FIRST_LAYOUT <= layout <= LAYOUT:
        raise StoreError(
            f"The store at {root.uri} has layout {layout}; this release reads layouts up to "
            f"{LAYOUT}.",
            "Upgrade label-studio-clip here, or set LS_CLIP_STORE to another place.",
        )
    for step in range(layout, LAYOUT):
        log.warning("the store at %s is brought from layout %d to %d", root.uri, step, step + 1)
        migrate(root, installation, step)
        root.write(path, {**record, "layout": step + 1}, replace=True)
