"""A project's state besides its heads: known-label field, last training, ages of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.storage.artifacts import safe_name
from backend.storage.store import Store


class ProjectState:
    """The state of one project. Thread-safe.

    Args:
        store: where it is kept.
        project: its key, ``<id>.<unix time of creation>``.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._folder = f"projects/{safe_name(project)}"

    def known_field(self) -> str:
        """The task-data field that holds labels known beforehand; empty if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        content = self._store.artifacts.read(f"{self._folder}/known-label") or {}
        return str(content.get("field", ""))

    def set_known_field(self, field: str) -> None:
        """Set the task-data field that holds labels known beforehand; empty: none.

        Raises:
            StoreError: the store cannot be written.
        """
        self._store.artifacts.write(f"{self._folder}/known-label", {"field": field}, replace=True)
        self._store.generation.change()

    def trained_on(self) -> tuple[dict[int, str], str]:
        """What the last training saw.

        Returns:
            Task id -> a hash of what was approved there; and a hash of everything that the last
            head set was made from, empty if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        content = self._store.artifacts.read(f"{self._folder}/trained-on") or {}
        tasks = {int(task): str(digest) for task, digest in content.get("tasks", {}).items()}
        return tasks, str(content.get("made_from", ""))

    def set_trained_on(self, approved: Mapping[int, str], made_from: str) -> None:
        """Set what `trained_on` returns.

        Raises:
            StoreError: the store cannot be written.
        """
        tasks = {str(task): digest for task, digest in approved.items()}
        content = {"tasks": tasks, "made_from": made_from}
        self._store.artifacts.write(f"{self._folder}/trained-on", content, replace=True)

    def labels_since(
        self, labels: Mapping[str, Sequence[str]], now: float
    ) -> dict[str, dict[str, float]]:
        """Since when annotations can tell about each label; new labels are noted.

        Someone who reviewed a task before a label was added has not decided about that label. The
        labels of the first call count as old as the project.

        Args:
            labels: control name -> keys of its labels now.
            now: unix time in seconds.

        Returns:
            Control name -> label key -> unix time in seconds, 0 for the labels of the first call.

        Raises:
            StoreError: the store cannot be read or written.
        """
        name = f"{self._folder}/labels"
        before = self._store.artifacts.read(name)
        first_seen = 0.0 if before is None else now
        since: dict[str, dict[str, float]] = {}
        for control, keys in labels.items():
            known = (before or {}).get(control, {})
            since[control] = {key: known.get(key, first_seen) for key in keys}
        if since != before:
            # A label that was removed is dropped: when it comes back, it is new.
            self._store.artifacts.write(name, since, replace=True)
        return since
