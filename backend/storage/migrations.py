"""Layouts of a store, and the steps from each to the next.

A step may be interrupted at any point and is then repeated as a whole: it does nothing twice.

Layout 1 had no installations: what layout 2 keeps in an installation's folder lay at the root. Its
tables kept all superseded versions, and everybody on the machine could read it. Layout 2 kept the
embeddings of regions as float16, under encoder ids that did not say how they are kept.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backend.storage import region_codes
from backend.storage.artifacts import Artifacts, DamagedArtifactError
from backend.storage.store import Store
from backend.storage.tables import LOOKUP_KEYS, NO_LIMIT
from backend.storage.vectors import table_name, vector_schema

log = logging.getLogger(__name__)

FIRST_LAYOUT = 1
LAYOUT = 3
"""The layout that this release reads and writes."""
_FOLDERS = frozenset({"doctor", "heads", "projects", "runs", "statistics", "tables"})
"""Folders at the root of a store of layout 1, besides its tables."""
_WIDE_VECTORS = "embeddings_"
"""Prefix of the tables of embeddings in layout 2."""
_WITH_REGIONS = re.compile(r"-(cells|tiles)-([a-z0-9]+)$")
"""The end of the id of an encoder with regions in layout 2."""


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


def _shorten_regions(root: Artifacts, store: Store) -> None:
    for name in store.tables.names():
        if name.startswith(_WIDE_VECTORS):
            _shorten_table(store, name)
    store.generation.change()


def _shorten_table(store: Store, name: str) -> None:
    """Move the rows of a table of layout 2, with what belongs to its encoder, and drop it."""
    with store.tables.errors("read"):
        table = store.tables.database.open_table(name)
        former = table.schema.metadata[b"encoder"].decode()
        dim = table.schema.field("image").type.list_size
        encoder = _WITH_REGIONS.sub(r"-\1-int8-\2", former)
        batch: pa.RecordBatch
        for batch in table.search().limit(NO_LIMIT).to_batches(LOOKUP_KEYS):
            # What an interrupted step has moved stays.
            there = store.vectors.has(encoder, dim, batch["key"].to_pylist())
            rows = batch.filter(pc.invert(pc.is_in(batch["key"], pa.array(there, pa.string()))))
            if len(rows):
                store.tables.append(table_name(encoder), _shortened(rows, encoder, dim))
        _move_artifacts(store.artifacts, former, encoder)
        store.tables.database.drop_table(name)


def _shortened(rows: pa.RecordBatch, encoder: str, dim: int) -> pa.Table:
    schema = vector_schema(encoder, dim)
    regions = [
        None if row is None else region_codes.encode(np.asarray(row).reshape(9, dim)).ravel()
        for row in rows["regions"].to_numpy(zero_copy_only=False)
    ]
    columns = [rows["key"], rows["image"], pa.array(regions, schema.field("regions").type)]
    return pa.Table.from_arrays(columns, schema=schema)


def _move_artifacts(artifacts: Artifacts, former: str, encoder: str) -> None:
    """Give the encoder's table of probabilities, its statistics and its heads its new id."""
    if encoder == former:
        return
    before, now = (hashlib.sha256(one.encode()).hexdigest()[:12] for one in (former, encoder))
    projects = [f"statistics/{project}" for project in artifacts.folder_names("statistics")]
    for folder in ("tables", *projects):
        for name in artifacts.names(folder):
            if name.startswith(before):
                target = now + name.removeprefix(before)
                artifacts.move(f"{folder}/{name}.json", f"{folder}/{target}.json")
    for project in artifacts.folder_names("heads"):
        for name in artifacts.names(f"heads/{project}"):
            path = f"heads/{project}/{name}"
            # ls-clip store check finds damaged ones.
            with suppress(DamagedArtifactError):
                content = artifacts.read(path)
                if content is not None and content.get("encoder") == former:
                    artifacts.write(path, {**content, "encoder": encoder}, replace=True)


_STEPS: Mapping[int, Callable[[Artifacts, Store], None]] = {
    1: _drop_superseded_versions,
    2: _shorten_regions,
}
"""Layout -> the step that leads to the next one."""
