"""A marker that changes whenever something changes that model versions are made of.

Statistics, probability tables, heads, the pointers to the heads that serve, and known-label fields
lie in many small files. Whoever writes or deletes one of them changes the marker afterwards, so
that a process which has built a model version needs one read to see that it is still current. A
store that was deleted and made anew has another marker, too.
"""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from backend.storage.artifacts import Artifacts, DamagedArtifactError

NAME = "generation"
"""Name of the artifact, at the root of the store."""


class Generation:
    """The marker of one store. Thread-safe; shared by all processes that use the store.

    Args:
        artifacts: of the store.

    Attributes:
        seen: what `current` returned last in this process; empty before.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self.seen = ""

    def current(self) -> str:
        """The marker's value; empty in a store where nothing has changed it yet.

        One store read. A random id and no time: the clocks of file systems are coarse, and two
        changes within one tick must differ.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            self.seen = str((self._artifacts.read(NAME) or {}).get("id", ""))
        except DamagedArtifactError:
            # The next change writes it anew.
            self.seen = "damaged"
        return self.seen

    def ensure(self) -> None:
        """Give a new store its marker, so that it differs from one that was there before.

        Raises:
            StoreError: the store cannot be written.
        """
        with suppress(DamagedArtifactError):
            self._artifacts.write(NAME, {"id": uuid4().hex})

    def change(self) -> None:
        """Invalidate the model versions that processes hold. Call it after the change itself.

        Raises:
            StoreError: the store cannot be written.
        """
        self._artifacts.write(NAME, {"id": uuid4().hex}, replace=True)
