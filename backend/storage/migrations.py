"""Layouts of a store, and the steps from each to the next.

A step may be interrupted at any point and is then repeated as a whole: it does nothing twice.

Layout 1 had no installations: what layout 2 keeps in an installation's folder lay at the root. Its
tables kept all superseded versions, and everybody on the machine could read it. Layout 2 kept the
embeddings of regions as float16, under encoder ids that did not say how they are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backend.errors import StoreError
from backend.messages.message import Message
from backend.storage import region_codes
from backend.storage.artifacts import Artifacts, DamagedArtifactError, first_line
from backend.storage.durability import FORMER_VECTORS, sync_table
from backend.storage.store import Store
from backend.storage.tables import LOOKUP_KEYS, NO_LIMIT
from backend.storage.vectors import encoder_digest, table_name, vector_schema

log = logging.getLogger(__name__)

FIRST_LAYOUT = 1
LAYOUT = 3
"""The layout that this release reads and writes."""
_FOLDERS = frozenset({"doctor", "heads", "projects", "runs", "statistics", "tables"})
"""Folders at the root of a store of layout 1, besides its tables."""
_MOVED = "moved-tables"
"""Name of the artifact that lists the tables of which everything was copied."""


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
        # The next step replaces those.
        if not name.startswith(FORMER_VECTORS):
            store.tables.compactor.compact(name)
    if "://" not in root.uri:
        # Where another user owns it, ls-clip doctor says what to do.
        with suppress(PermissionError):
            folder = Path(root.uri)
            folder.chmod(folder.stat().st_mode & ~0o007)


def _shorten_regions(root: Artifacts, store: Store) -> None:
    artifacts = store.artifacts
    moved = list((artifacts.read(_MOVED) or {"names": []})["names"])
    for name in store.tables.names():
        if not name.startswith(FORMER_VECTORS):
            continue
        if name not in moved:
            _shorten_table(store, name)
            moved.append(name)
            # From now on the table is only deleted: half of one cannot be read.
            artifacts.write(_MOVED, {"names": moved}, replace=True)
        artifacts.erase("", f"{name}.lance".__eq__)
    for project in artifacts.folder_names("heads"):
        for name in artifacts.names(f"heads/{project}"):
            # ls-clip store check finds damaged ones.
            with suppress(DamagedArtifactError):
                content = artifacts.read(f"heads/{project}/{name}") or {}
                _rename_artifacts(artifacts, str(content.get("encoder", "")))
    artifacts.erase("", f"{_MOVED}.json".__eq__)
    store.generation.change()


def _shorten_table(store: Store, name: str) -> None:
    """Copy the rows of a table of layout 2 into one of layout 3."""
    try:
        table = store.tables.database.open_table(name)
        former = table.schema.metadata[b"encoder"].decode()
        dim = table.schema.field("image").type.list_size
        log.warning("embeddings that are converted: %d", table.count_rows())
        encoder = region_codes.present_id(former)
        batch: pa.RecordBatch
        for batch in table.search().limit(NO_LIMIT).to_batches(LOOKUP_KEYS):
            # What an interrupted step has copied is there.
            there = store.vectors.has(encoder, dim, batch["key"].to_pylist())
            rows = batch.filter(pc.invert(pc.is_in(batch["key"], pa.array(there, pa.string()))))
            if len(rows):
                store.tables.append(table_name(encoder), _shortened(rows, encoder, dim))
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            Message(
                "The table {name} of the store at {uri} cannot be read: {error}.",
                name=name,
                uri=store.uri,
                error=first_line(error),
            ),
            Message(
                "Restore {name}.lance from a backup, or move it to another place: its images are "
                "embedded again when they are needed.",
                name=name,
            ),
        ) from error
    # All of it, before the old one goes.
    with store.tables.errors("written"):
        sync_table(store.uri, table_name(encoder), 0.0)
    _rename_artifacts(store.artifacts, former)


def _shortened(rows: pa.RecordBatch, encoder: str, dim: int) -> pa.Table:
    schema = vector_schema(encoder, dim)
    regions = [
        None if row is None else region_codes.encode(np.asarray(row).reshape(9, dim)).ravel()
        for row in rows["regions"].to_numpy(zero_copy_only=False)
    ]
    columns = [rows["key"], rows["image"], pa.array(regions, schema.field("regions").type)]
    return pa.Table.from_arrays(columns, schema=schema)


def _rename_artifacts(artifacts: Artifacts, former: str) -> None:
    """Give an encoder's table of probabilities and its statistics the encoder's present id."""
    encoder = region_codes.present_id(former)
    if encoder == former:
        return
    before, now = encoder_digest(former), encoder_digest(encoder)
    projects = [f"statistics/{project}" for project in artifacts.folder_names("statistics")]
    for folder in ("tables", *projects):
        names = artifacts.names(folder)
        for name in names:
            if not name.startswith(before):
                continue
            target = now + name.removeprefix(before)
            if target in names:
                # In a bucket a move that was interrupted leaves both.
                artifacts.erase(folder, f"{name}.json".__eq__)
            else:
                artifacts.move(f"{folder}/{name}.json", f"{folder}/{target}.json")


_STEPS: Mapping[int, Callable[[Artifacts, Store], None]] = {
    1: _drop_superseded_versions,
    2: _shorten_regions,
}
"""Layout -> the step that leads to the next one."""
