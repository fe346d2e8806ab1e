"""The pointer to the head set that serves a project: a small file, and a copy of it.

The backend, workers and the command line read, change and write it, so each does so under a lock
that holds across processes and machines. The copy is written after the pointer: where the pointer
is damaged, the copy is what was valid before or after the last change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.messages.message import Message
from backend.storage.artifacts import Artifacts, DamagedArtifactError, safe_name
from backend.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pointer:
    """What the pointer says.

    Attributes:
        history: names of the head sets that have served, in order; the last one serves now.
        candidate: name of the accepted head set that is to serve next; empty: none.
        rolled_back: whether a person went back to the serving set, and no training was decided on
            since.
    """

    history: tuple[str, ...] = ()
    candidate: str = ""
    rolled_back: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "history": list(self.history),
            "accepted": self.candidate,
            "back": self.rolled_back,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pointer:
        """Inverse of `as_dict`; missing fields have their defaults.

        Raises:
            ValueError: the content is no pointer's.
        """
        history, candidate = content.get("history", []), content.get("accepted", "")
        rolled_back = content.get("back", False)
        if (
            not isinstance(history, list)
            or not all(isinstance(name, str) for name in history)
            or not isinstance(candidate, str)
            or not isinstance(rolled_back, bool)
        ):
            raise ValueError("it is no pointer")
        return cls(tuple(history), candidate, rolled_back)


class PointerFile:
    """The pointer of one project. Thread-safe.

    Args:
        store: where it is kept.
        project: its key, ``<id>.<unix time of creation>``.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        folder = safe_name(project)
        self._name = f"projects/{folder}/serving"
        self._copy = f"projects/{folder}/serving-copy"
        self._lock = f"pointer of {folder}"
        self._number = project.partition(".")[0]

    def read(self) -> Pointer:
        """What it says now; from the copy, with an error in the log, where it is damaged.

        Raises:
            DamagedArtifactError: pointer and copy are damaged.
            StoreError: the store cannot be read.
        """
        try:
            return self.read_file() or Pointer()
        except DamagedArtifactError as error:
            copy = self._intact_copy()
            if copy is None:
                raise DamagedArtifactError(
                    Message(
                        "The pointer to the serving head of project {number} is damaged, and "
                        "there is no copy of it: {message}",
                        number=self._number,
                        message=error.message,
                    ),
                    Message(
                        "Say which head serves: ls-clip rollback {number} HEAD (ls-clip heads "
                        "{number} lists them; zero-shot is one).",
                        number=self._number,
                    ),
                ) from error
            log.error(
                "%s Its copy is used, until the next training or rollback writes both anew.", error
            )
            return copy

    def change(self, change: Callable[[Pointer], Pointer]) -> Pointer:
        """Change it; nobody else does in between.

        Args:
            change: gets what it says now, and returns what it is to say. Where pointer and copy
                are damaged it gets an empty one.

        Returns:
            What it says now.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._store.locks.hold(self._lock):
            try:
                before = self.read()
            except DamagedArtifactError:
                before = Pointer()
            after = change(before)
            content = after.as_dict()
            self._store.artifacts.write(self._name, content, replace=True)
            self._store.artifacts.write(self._copy, content, replace=True)
        self._store.generation.change()
        return after

    def read_file(self) -> Pointer | None:
        """What the file itself says, whatever is in its copy; None if there is none.

        Raises:
            DamagedArtifactError: it is damaged.
            StoreError: the store cannot be read.
        """
        return self._read(self._name)

    def _intact_copy(self) -> Pointer | None:
        try:
            return self._read(self._copy)
        except DamagedArtifactError:
            return None

    def _read(self, name: str) -> Pointer | None:
        artifacts: Artifacts = self._store.artifacts
        content = artifacts.read(name)
        if content is None:
            return None
        try:
            return Pointer.from_dict(content)
        except ValueError as error:
            raise artifacts.damaged(name, str(error)) from error
