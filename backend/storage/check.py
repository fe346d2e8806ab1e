"""Verifies what a store holds, and repairs what can be computed or copied again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from backend.errors import StoreError, with_verb
from backend.storage.artifacts import DRAFT, DamagedArtifactError, first_line
from backend.storage.banks import FOLDER as BANKS
from backend.storage.banks import BankRecord, Banks
from backend.storage.durability import holds_vectors, is_recomputable
from backend.storage.head_pointer import PointerFile
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.project_state import ProjectState
from backend.storage.score_files import DAMAGE, checked
from backend.storage.score_files import FOLDER as SCORES
from backend.storage.store import Store
from backend.storage.tables import NO_LIMIT
from backend.vlpl.confidences import Confidences
from backend.vlpl.zero_shot import Statistics

SET_ASIDE = "damaged"
"""The folder of the store into which damaged files are moved."""
DRAFT_SECONDS = 3600.0
"""After which a file that was never given its name is left over from a process that died."""
_BATCH = 1024
_STATE_READERS: Mapping[str, Callable[[ProjectState], object]] = {
    "former-labels": ProjectState.label_history,
    "known-label": ProjectState.known_field,
    "labels": ProjectState.label_ages,
    "renames": ProjectState.renames,
    "review-order": ProjectState.orders,
    "review-round": ProjectState.round,
    "trained-on": ProjectState.trained_on,
}
"""Name of a file of a project's state -> what reads it."""
_MEASURED: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "statistics": Statistics.from_dict,
    "confidences": Confidences.from_dict,
}
"""Folder of what is measured once for a project -> what reads it."""
_CHECKED = frozenset({"heads", BANKS, *_MEASURED})
"""Folders that have a check of their own."""


@dataclass(frozen=True)
class Problem:
    """Something in the store that is not as it should be.

    Attributes:
        place: name of a table, or path of a file, within the store.
        what: what is wrong.
        repaired: what was done about it; empty: nothing.
        fix: what a person can do; empty: nothing is left to do.
    """

    place: str
    what: str
    repaired: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """The problem as ``ls-clip store check --json`` prints it."""
        return asdict(self)


def check_store(store: Store, repair: bool = False) -> Iterator[Problem]:
    """Read everything that an installation keeps, and find what is damaged.

    Args:
        store: of the installation; nobody else should write to it while it is repaired.
        repair: compute or copy again what can be. What cannot stays as it is.

    Yields:
        What was found.

    Raises:
        StoreError: the store cannot be read at all.
    """
    for name in store.tables.names():
        yield from _check_table(store, name, repair)
    yield from _check_measured(store, repair)
    yield from _check_heads(store, repair)
    yield from _check_files(store, repair)


def _check_table(store: Store, name: str, repair: bool) -> Iterator[Problem]:
    try:
        broken = _not_finite(store.tables.database.open_table(name), name)
    except Exception as error:
        yield _repaired_table(store, name, first_line(error), repair)
        return
    if not broken:
        return
    what = f"{with_verb(len(broken), 'embedding', 'is', 'are')} not finite"
    if not repair:
        yield Problem(name, what, fix=_REPAIR)
        return
    with store.tables.errors("written"):
        for key in broken:
            store.tables.database.open_table(name).delete(f"key = '{key}'")
    yield Problem(name, what, "deleted; the images are embedded again when they are needed")


def _not_finite(table: Any, name: str) -> list[str]:
    """Read all of a table; returns the keys of embeddings that are not finite."""
    broken: list[str] = []
    batch: pa.RecordBatch
    for batch in table.search().limit(NO_LIMIT).to_batches(_BATCH):
        if not holds_vectors(name):
            continue
        finite = np.isfinite(batch["image"].flatten().to_numpy(zero_copy_only=False))
        whole = finite.reshape(len(batch), -1).all(axis=1) if len(batch) else finite
        keys = batch["key"].to_pylist()
        broken += [str(key) for key, ok in zip(keys, whole, strict=True) if not ok]
    return broken


def _repaired_table(store: Store, name: str, why: str, repair: bool) -> Problem:
    what = f"it cannot be read: {why}"
    if not repair:
        return Problem(name, what, fix=_REPAIR)
    try:
        table = store.tables.database.open_table(name)
        for version in sorted((entry["version"] for entry in table.list_versions()), reverse=True):
            table.checkout(version)
            try:
                if not table.count_rows():
                    break
                _not_finite(table, name)
            except Exception:  # The next older one may be intact.
                continue
            table.restore()
            return Problem(name, what, f"its version {version} is intact and used again")
    except Exception as error:
        what = f"{what}; {first_line(error)}"
    if not is_recomputable(name):
        return Problem(name, what, fix="Restore its folder from a backup.")
    target = f"{SET_ASIDE}/{name}-{time.time_ns()}.lance"
    store.artifacts.move(f"{name}.lance", target)
    done = f"moved to {target}; the images are embedded again when they are needed"
    return Problem(name, what, done)


def _check_measured(store: Store, repair: bool) -> Iterator[Problem]:
    """What is measured once for a project and then kept."""
    for folder, read in _MEASURED.items():
        yield from _check_folder(store, folder, partial(_ignore_project, read), repair)
    yield from _check_folder(store, BANKS, partial(_read_bank, Banks(store)), repair)


def _ignore_project(
    read: Callable[[Mapping[str, Any]], object], project: str, content: Mapping[str, Any]
) -> object:
    return read(content)


def _read_bank(banks: Banks, project: str, content: Mapping[str, Any]) -> object:
    return banks.load(project, BankRecord.from_dict(content).digest)


def _check_folder(
    store: Store,
    folder: str,
    read: Callable[[str, Mapping[str, Any]], object],
    repair: bool,
) -> Iterator[Problem]:
    for project in store.artifacts.folder_names(folder):
        for name in store.artifacts.names(f"{folder}/{project}"):
            path = f"{folder}/{project}/{name}"
            try:
                read(project, store.artifacts.read(path) or {})
            except (DamagedArtifactError, KeyError, TypeError, ValueError) as error:
                what = f"it is damaged: {first_line(error)}"
                if not repair:
                    yield Problem(path, what, fix=_REPAIR)
                    continue
                target = f"{SET_ASIDE}/{path}-{time.time_ns()}.json"
                store.artifacts.move(f"{path}.json", target)
                store.generation.change()
                done = f"moved to {target}; the next run measures it anew, as a new model version"
                yield Problem(path, what, done)


def _check_heads(store: Store, repair: bool) -> Iterator[Problem]:
    registry = HeadRegistry(store)
    for project in store.artifacts.folder_names("heads"):
        number = project.partition(".")[0]
        for name, message in registry.damage(project).items():
            yield Problem(
                f"heads/{project}/{name}",
                message,
                fix=f"Restore it from a backup, or go back to another head: ls-clip rollback "
                f"{number} HEAD.",
            )
    for project in store.artifacts.folder_names("projects"):
        yield from _check_pointer(store, registry, project, repair)


def _check_pointer(
    store: Store, registry: HeadRegistry, project: str, repair: bool
) -> Iterator[Problem]:
    pointer = PointerFile(store, project)
    path = f"projects/{project}/serving"
    damage: StoreError | None = None
    try:
        pointer.read_file()
    except DamagedArtifactError as error:
        damage = error
    try:
        now = pointer.read()
    except DamagedArtifactError as error:
        yield Problem(path, error.message, fix=error.fix)
        return
    if damage is not None and not repair:
        yield Problem(path, damage.message, fix=_REPAIR)
        return
    if damage is not None:
        pointer.change(lambda read: read)
        yield Problem(path, damage.message, "written anew from its copy")
    serving = now.history[-1] if now.history else ZERO_SHOT
    if serving not in {ZERO_SHOT, *registry.names(project)}:
        number = project.partition(".")[0]
        yield Problem(
            path,
            f"the head that it names, {serving}, is not there",
            fix=f"Restore it from a backup, or go back to another: ls-clip rollback {number} HEAD.",
        )


def _check_files(store: Store, repair: bool) -> Iterator[Problem]:
    for path in store.artifacts.files(""):
        folder, _, name = path.rpartition("/")
        if folder.partition("/")[0] == SET_ASIDE or ".lance/" in path:
            continue
        if DRAFT.fullmatch(name):
            if time.time() - store.artifacts.modified(path) < DRAFT_SECONDS:
                continue
            if repair:
                store.artifacts.erase(folder, name.__eq__)
            what = "left over from a process that died while it wrote"
            yield Problem(path, what, "deleted" if repair else "", "" if repair else _REPAIR)
        elif folder.startswith(f"{SCORES}/"):
            yield from _check_scores(store, path, repair)
        elif name.endswith(".json") and folder.partition("/")[0] not in _CHECKED:
            try:
                _read(store, path.removesuffix(".json"))
            except DamagedArtifactError as error:
                if not name.startswith("serving"):
                    yield _damaged_file(store, path, error, repair)


def _check_scores(store: Store, path: str, repair: bool) -> Iterator[Problem]:
    folder, _, name = path.rpartition("/")
    try:
        checked(name, store.artifacts.read_bytes(path) or b"")
    except DAMAGE as error:
        what = f"it is damaged: {first_line(error)}"
        if repair:
            store.artifacts.erase(folder, name.__eq__)
            yield Problem(path, what, "deleted; the next run scores its tasks again")
        else:
            yield Problem(path, what, fix=_REPAIR)


def _read(store: Store, name: str) -> None:
    """Read an artifact as its readers do.

    Raises:
        DamagedArtifactError: it does not hold what it should.
    """
    folder, _, file = name.rpartition("/")
    if folder.startswith("projects/") and file in _STATE_READERS:
        _STATE_READERS[file](ProjectState(store, folder.removeprefix("projects/")))
    else:
        store.artifacts.read(name)


def _damaged_file(store: Store, path: str, error: StoreError, repair: bool) -> Problem:
    if path != "generation.json":
        return Problem(path, error.message, fix=error.fix)
    if not repair:
        return Problem(path, error.message, fix=_REPAIR)
    store.generation.change()
    return Problem(path, error.message, "written anew")


_REPAIR = "Stop serve and the workers, then run: ls-clip store check --repair."
