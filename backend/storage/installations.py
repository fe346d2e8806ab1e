"""Installations: whose work a store holds. Each has a folder of its own below the store's URI.

Project numbers and even creation times are the same in a copy of a Label Studio, so the folder
keeps two installations on one store from reading, sweeping or erasing each other's work.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from backend.errors import StoreError
from backend.messages.message import Message
from backend.settings import Settings
from backend.storage.artifacts import Artifacts, DamagedArtifactError
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
    if (
        record is None
        or root_content(root)
        or record.get("layout") != LAYOUT
        or settings.label_studio_url not in record.get("urls", [])
    ):
        locks = Locks(uri)
        with locks.hold_if_free(_LOCK) as is_free:
            if is_free:
                _prepare(root, settings)
        if not is_free:
            log.warning("waiting for another process, which brings the store at %s up to date", uri)
            with locks.hold(_LOCK, UPGRADE_SECONDS):
                _prepare(root, settings)
    return Store(f"{uri}/{installation}")


def existing_artifacts(settings: Settings) -> Artifacts | None:
    """The installation's small files, to be read: nothing is created and nothing converted.

    Args:
        settings: as for `open_store`.

    Returns:
        None if the store holds no such installation, or in another layout.

    Raises:
        StoreError: the store cannot be read.
    """
    folder = f"{settings.store_uri.rstrip('/')}/{settings.installation_id}"
    if "://" not in folder and not Path(folder).is_dir():
        return None
    artifacts = Artifacts(folder)
    record = artifacts.read(RECORD)
    return artifacts if record is not None and record.get("layout") == LAYOUT else None


def existing_store(settings: Settings) -> Store:
    """The installation's store, to be read: nothing is created, converted or locked.

    Args:
        settings: as for `open_store`.

    Raises:
        StoreError: the store holds no such installation, or in another layout, or cannot be read.
    """
    if existing_artifacts(settings) is None:
        raise StoreError(
            Message(
                "The store at {store_uri} holds nothing about {installation_name} yet, or an "
                "older release wrote it.",
                store_uri=settings.store_uri,
                installation_name=settings.installation_name,
            ),
            Message("Run ls-clip connect first, or correct LS_CLIP_STORE or LS_CLIP_INSTALLATION."),
        )
    folder = f"{settings.store_uri.rstrip('/')}/{settings.installation_id}"
    return Store(folder, read_only=True)


def installation_names(uri: str) -> dict[str, str]:
    """Id -> name of the installations in a store.

    Raises:
        StoreError: the store cannot be read.
    """
    root = Artifacts(uri.rstrip("/"))
    names = {}
    for folder in sorted(root.folder_names("")):
        try:
            record = root.read(f"{folder}/{RECORD}")
        except DamagedArtifactError as error:
            log.warning("%s", error)
            record = {}
        if record is not None:
            names[folder] = str(record.get("name", folder))
    return names


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
        # An adoption that was interrupted has moved the other one's record.
        is_moved = source == installation and known[source] != settings.installation_name
        if source is None or (source == installation and not is_moved):
            raise StoreError(
                Message(
                    "The store at {uri} has no other installation {former!r}.",
                    uri=uri,
                    former=former,
                ),
                Message("It has: {names}.", names=", ".join(known.values()) or Message("none")),
            )
        for part in ("heads", "projects"):
            if not is_moved and root.folder_names(f"{installation}/{part}"):
                raise StoreError(
                    Message(
                        "{installation_name} has work of its own in the store at {uri}.",
                        installation_name=settings.installation_name,
                        uri=uri,
                    ),
                    Message(
                        "Set LS_CLIP_INSTALLATION={known} to go on with the work of {known}.",
                        known=known[source],
                    ),
                )
        if not is_moved:
            root.erase("", installation.__eq__)
            root.move(source, installation)
        store = Store(f"{uri}/{installation}")
        record = root.read(f"{installation}/{RECORD}") or {}
        # Those that it was known by; before they were noted, the name was one without a scheme.
        named = [f"{scheme}://{known[source]}" for scheme in ("http", "https")]
        for url in dict.fromkeys([*record.get("urls", []), *named]):
            for name in ("addresses", "task_images", "validators"):
                store.tables.replace_prefix(
                    name, "address", f"{url}/", f"{settings.label_studio_url}/"
                )
        # Last: until then the same call goes on.
        record |= {"name": settings.installation_name, "urls": [settings.label_studio_url]}
        root.write(f"{installation}/{RECORD}", record, replace=True)
    return known[source]


def _prepare(root: Artifacts, settings: Settings) -> None:
    """Write an installation's record; what an older release kept at the root becomes its own."""
    installation, name = settings.installation_id, settings.installation_name
    path = f"{installation}/{RECORD}"
    record = root.read(path)
    made = {"name": name, "created": datetime.now(UTC).isoformat()}
    if root_content(root):
        log.warning("the store at %s is of an older release; it becomes that of %s", root.uri, name)
        record = {**(record or made), "layout": FIRST_LAYOUT}
        # First: what is moved must never be taken for work of the present layout.
        root.write(path, record, replace=True)
        move_into_installation(root, installation)
    if record is None:
        # Work without a record, which was lost: every step may be repeated.
        is_new = not root.content(installation)
        record = root.write(path, {**made, "layout": LAYOUT if is_new else FIRST_LAYOUT})
    layout = record.get("layout")
    if not isinstance(layout, int) or not FIRST_LAYOUT <= layout <= LAYOUT:
        raise StoreError(
            Message(
                "The store at {uri} has layout {layout}; this release reads layouts up to "
                "{readable}.",
                uri=root.uri,
                layout=layout,
                readable=LAYOUT,
            ),
            Message("Upgrade label-studio-clip here, or set LS_CLIP_STORE to another place."),
        )
    for step in range(layout, LAYOUT):
        log.warning("the store at %s is brought from layout %d to %d", root.uri, step, step + 1)
        migrate(root, installation, step)
        root.write(path, {**record, "layout": step + 1}, replace=True)
    urls = [*record.get("urls", []), settings.label_studio_url]
    record = {**record, "layout": LAYOUT, "urls": list(dict.fromkeys(urls))}
    root.write(path, record, replace=True)
