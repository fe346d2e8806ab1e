"""A project's trained heads: immutable head sets, and a pointer to the one that serves.

A head set holds one head per control, and is never overwritten. The pointer is a small file, and
moving it is the last step of a promotion; all processes read it from the store.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import replace

from backend.errors import StoreError
from backend.messages.message import Message
from backend.storage.artifacts import DamagedArtifactError, safe_name
from backend.storage.head_pointer import Pointer, PointerFile
from backend.storage.head_set import SCHEMA, HeadSet
from backend.storage.store import Store
from backend.vlpl.head import HeadError

log = logging.getLogger(__name__)

ZERO_SHOT = "zero-shot"
"""The name of the head set without heads, which every project has."""
CACHED_SETS = 64
_NAME = re.compile("h[1-9][0-9]*")


class DamagedHeadError(StoreError):
    """A head set is missing, or its file does not hold one."""


class HeadRegistry:
    """The head sets of all projects. Thread-safe.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Sets never change, but after a purge another set may get the same name: hence the stamp.
        self._cache: dict[str, tuple[str, HeadSet]] = {}
        self._lock = threading.Lock()

    def names(self, project: str) -> list[str]:
        """Names of a project's head sets, oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        names = self._store.artifacts.names(f"heads/{safe_name(project)}")
        # Other files in the folder (a copy, an editor's backup) are ignored.
        return sorted(filter(_NAME.fullmatch, names), key=lambda name: int(name[1:]))

    def get(self, project: str, name: str) -> HeadSet:
        """One head set.

        Raises:
            DamagedHeadError: there is none of this name, or its file is damaged.
            StoreError: its file is of a newer version of this plugin, or the store cannot be read.
        """
        path = f"heads/{safe_name(project)}/{name}"
        stamp = self._store.artifacts.stamp(path)
        with self._lock:
            cached = self._cache.get(path)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        another = f"ls-clip rollback {_number(project)} VERSION"
        try:
            content = self._store.artifacts.read(path)
        except DamagedArtifactError as error:
            raise DamagedHeadError(
                error.message,
                Message(
                    "Restore it from a backup, or go back to another head: {another}.",
                    another=another,
                ),
            ) from error
        if content is None:
            raise DamagedHeadError(
                Message("The project has no head {name!r}.", name=name),
                Message("ls-clip heads {number} lists those it has.", number=_number(project)),
            )
        try:
            if int(content.get("schema", SCHEMA)) > SCHEMA:
                raise StoreError(
                    Message(
                        "The head {name} was written by a newer version of label-studio-clip.",
                        name=name,
                    ),
                    Message(
                        "Update label-studio-clip here, or go back to another head: {another}.",
                        another=another,
                    ),
                )
            head_set = HeadSet.from_dict(content)
        except (HeadError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedHeadError(
                Message(
                    "The head {name} in the store is damaged ({error}).", name=name, error=error
                ),
                Message("Go back to another one: {another}.", another=another),
            ) from error
        with self._lock:
            if len(self._cache) > CACHED_SETS:
                self._cache.clear()
            self._cache[path] = stamp, head_set
        return head_set

    def next_name(self, project: str) -> str:
        """The name for the next head set.

        Raises:
            StoreError: the store cannot be read.
        """
        return f"h{1 + max((int(name[1:]) for name in self.names(project)), default=0)}"

    def save(self, project: str, head_set: HeadSet) -> None:
        """Write a head set. A set of the same name that exists already is not overwritten.

        Raises:
            StoreError: the store cannot be written.
        """
        path = f"heads/{safe_name(project)}/{head_set.name}"
        self._store.artifacts.write(path, head_set.as_dict())

    def serving(self, project: str) -> str:
        """The name of the head set that serves; `ZERO_SHOT` if none does.

        That is the last one of the `history` that is intact: where a later one is damaged, an error
        in the log says so.

        Raises:
            StoreError: the store cannot be read, or a newer release wrote the head set.
        """
        history = self.history(project)
        for name in reversed(history):
            if name == ZERO_SHOT or self._is_intact(project, name):
                if name != history[-1]:
                    log.error(
                        "project %s: the head %s, which should serve, is damaged; %s serves. Way "
                        "back: restore the head from a backup, or ls-clip rollback %s %s",
                        *(_number(project), history[-1], name, _number(project), name),
                    )
                return name
        return ZERO_SHOT

    def damage(self, project: str) -> dict[str, str]:
        """Name -> what is wrong with it, of the project's damaged head sets.

        Raises:
            StoreError: the store cannot be read.
        """
        damaged = {}
        for name in self.names(project):
            try:
                self.get(project, name)
            except DamagedHeadError as error:
                damaged[name] = error.message
        return damaged

    def history(self, project: str) -> list[str]:
        """Names of the head sets that have served, in order; the last one was to serve now.

        Raises:
            StoreError: the store cannot be read, or the pointer is damaged.
        """
        return list(self._pointer(project).read().history)

    def set_serving(self, project: str, name: str, *, rollback: bool = False) -> None:
        """Let a head set serve: the last step of a promotion or of a rollback.

        Another set that is the candidate stays so, unless this is a rollback.

        Args:
            project: its key.
            name: of the head set, or `ZERO_SHOT`.
            rollback: whether a person went back to this set, see `rolled_back`.

        Raises:
            StoreError: there is no such set (any more), or the store cannot be written.
        """
        if name != ZERO_SHOT:
            self.get(project, name)

        def serve(now: Pointer) -> Pointer:
            history = now.history or (ZERO_SHOT,)
            if history[-1] != name:
                history = (*history, name)
            candidate = "" if rollback or now.candidate == name else now.candidate
            return Pointer(history, candidate, rolled_back=rollback)

        self._pointer(project).change(serve)

    def candidate(self, project: str) -> str:
        """The name of the accepted head set that is to serve next; empty if there is none.

        Raises:
            StoreError: the store cannot be read, or the pointer is damaged.
        """
        return self._pointer(project).read().candidate

    def set_candidate(self, project: str, name: str) -> None:
        """Set the head set that is to serve next; empty: none.

        Raises:
            StoreError: the store cannot be written.
        """
        self._pointer(project).change(lambda now: replace(now, candidate=name))

    def withdraw_candidate(self, project: str) -> str:
        """Let no head set be the next one; returns the one that was, or an empty text.

        Raises:
            StoreError: the store cannot be written.
        """
        withdrawn = ""

        def withdraw(now: Pointer) -> Pointer:
            nonlocal withdrawn
            withdrawn = now.candidate
            return replace(now, candidate="")

        self._pointer(project).change(withdraw)
        return withdrawn

    def rolled_back(self, project: str) -> bool:
        """Whether a person went back to the serving set, and no training was decided on since.

        Raises:
            StoreError: the store cannot be read, or the pointer is damaged.
        """
        return self._pointer(project).read().rolled_back

    def clear_rollback(self, project: str) -> None:
        """Note that the rollback was taken into account: see `rolled_back`.

        Raises:
            StoreError: the store cannot be written.
        """
        self._pointer(project).change(lambda now: replace(now, rolled_back=False))

    def _is_intact(self, project: str, name: str) -> bool:
        try:
            self.get(project, name)
        except DamagedHeadError:
            return False
        return True

    def _pointer(self, project: str) -> PointerFile:
        return PointerFile(self._store, project)


def _number(project: str) -> str:
    """A project's id in Label Studio, from its key."""
    return project.partition(".")[0]
