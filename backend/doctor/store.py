"""Checks of the store: room and rights, whose it is, and the heads in it."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity
from backend.errors import StoreError
from backend.labelstudio.projects import project_key
from backend.messages.message import Message
from backend.storage.artifacts import DamagedArtifactError
from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import namesakes

MIN_FREE = 200_000_000
LOW_FREE = 2_000_000_000


def store(context: Context) -> Iterator[Finding]:
    """The store can be written, and there is room."""
    uri = context.store.uri
    if "://" in uri:
        context.store.artifacts.write("doctor/probe", {}, replace=True)
        locks = context.store.locks
        with locks.hold("doctor"), locks.hold_if_free("doctor") as is_free:
            if is_free:
                yield Finding(
                    "store",
                    Severity.ERROR,
                    Message(
                        "The server of {uri} replaces objects that it should not (If-Match).",
                        uri=uri,
                    ),
                    Message("Two processes that write at once lose each other's work."),
                    Message("Use a server that knows conditional writes, or a store on a disk."),
                )
        return
    try:
        with tempfile.TemporaryFile(dir=uri) as probe:
            probe.write(b"x")
    except OSError as error:
        raise StoreError(
            Message(
                "The store at {uri} cannot be written: {strerror}.",
                uri=uri,
                strerror=error.strerror,
            ),
            Message("Set LS_CLIP_STORE to a directory that this user may write to."),
        ) from error
    free = shutil.disk_usage(Path(uri)).free
    if free < LOW_FREE:
        yield Finding(
            "store",
            Severity.ERROR if free < MIN_FREE else Severity.WARNING,
            Message("The disk of {uri} has {free} MB left.", uri=uri, free=free // 1_000_000),
            Message(
                "Without room no embedding is kept, and every image is encoded again each time."
            ),
            Message("Free some space, or set LS_CLIP_STORE to another disk."),
        )


def store_access(context: Context) -> Iterator[Finding]:
    """Other users of this machine cannot read the store."""
    uri = context.settings.store_uri
    if "://" in uri or not context.store:
        return
    if Path(uri).stat().st_mode & stat.S_IRWXO:
        yield Finding(
            "store-access",
            Severity.WARNING,
            Message("Every user of this machine can read {uri}.", uri=uri),
            Message("Embeddings can be searched by words, and files of runs hold task data."),
            Message("chmod o-rwx {uri}", uri=uri),
        )


def installation(context: Context) -> Iterator[Finding]:
    """No other installation in the store has this project's work."""
    settings = context.settings
    key = project_key(context.project)
    for name in namesakes(settings.store_uri, settings.installation_id, key):
        yield Finding(
            "installation",
            Severity.WARNING,
            Message(
                "The store also holds work on this project by the installation {name}.", name=name
            ),
            Message(
                "Label Studio had that address before, one of the two is a copy, or "
                "LS_CLIP_INSTALLATION is missing or misspelt here."
            ),
            Message(
                "If Label Studio has moved, stop all processes and run: ls-clip store adopt "
                "{name}. If the server runs under that name, set LS_CLIP_INSTALLATION as there. A "
                "copy needs nothing.",
                name=name,
            ),
        )


def heads(context: Context) -> Iterator[Finding]:
    """The project's heads, and the pointer to the one that serves, can be read."""
    registry, key = HeadRegistry(context.store), project_key(context.project)
    try:
        history = registry.history(key)
        serving = registry.serving(key)
    except DamagedArtifactError as error:
        yield Finding(
            "heads", Severity.ERROR, error.message, Message("No head can serve."), error.fix
        )
        return
    for name, message in registry.damage(key).items():
        is_missed = bool(history) and name == history[-1] != serving
        yield Finding(
            "heads",
            Severity.ERROR if is_missed else Severity.WARNING,
            message,
            Message("It should be in use; {serving} serves instead.", serving=serving)
            if is_missed
            else "",
            Message(
                "Restore it from a backup, or keep {serving}: ls-clip rollback {project_number} "
                "{serving}.",
                serving=serving,
                project_number=context.project_number,
            ),
        )


CHECKS = (
    Check(
        "store", Message("The store can be written."), Message("Embeddings are kept there."), store
    ),
    Check(
        "store-access",
        Message("Nobody else can read the store."),
        Message("Embeddings can be searched by words."),
        store_access,
        needs=("store",),
    ),
)
PROJECT_CHECKS = (
    Check(
        "installation",
        Message("The project's work is of one installation."),
        Message("Another one's heads are not used here."),
        installation,
        needs=("store", "project"),
        project=True,
    ),
    Check(
        "heads",
        Message("The project's heads can be read."),
        Message("Suggestions come from the one that serves."),
        heads,
        needs=("store", "project"),
        project=True,
    ),
)
