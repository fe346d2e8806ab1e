"""What we remember about a project besides its heads: its known-label field, its labels' ages."""

from __future__ import annotations

from collections.abc import Mapping

from backend.labels.config import LabelConfig
from backend.storage.artifacts import safe_name
from backend.storage.store import Store


class ProjectState:
    """Of one project.

    Args:
        store: where it is kept.
        project: ``<id>.<unix time of creation>``.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._folder = f"projects/{safe_name(project)}"

    def known_field(self) -> str:
        """The task-data field that holds labels known beforehand; empty: there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        content = self._store.artifacts.read(f"{self._folder}/known-label") or {}
        return str(content.get("field", ""))

    def set_known_field(self, field: str) -> None:
        """Remember the field; empty forgets it.

        Raises:
            StoreError: the store cannot be written.
        """
        self._store.artifacts.write(f"{self._folder}/known-label", {"field": field}, replace=True)
        self._store.generation.change()

    def trained_on(self) -> tuple[dict[int, str], str]:
        """Task id -> a hash of what was approved there when heads were last trained; and a hash of
        all that the last head was made from, empty if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        content = self._store.artifacts.read(f"{self._folder}/trained-on") or {}
        tasks = {int(task): str(what) for task, what in content.get("tasks", {}).items()}
        return tasks, str(content.get("made_from", ""))

    def set_trained_on(self, approved: Mapping[int, str], made_from: str) -> None:
        """Remember both.

        Raises:
            StoreError: the store cannot be written.
        """
        tasks = {str(task): what for task, what in approved.items()}
        content = {"tasks": tasks, "made_from": made_from}
        self._store.artifacts.write(f"{self._folder}/trained-on", content, replace=True)

    def labels_since(self, config: LabelConfig, now: float) -> dict[str, dict[str, float]]:
        """Control name -> label key -> unix time from which an annotation can speak of it.

        Someone who reviewed a task before a label was added has said nothing about that label. The
        labels of the first call are as old as the project (0).

        Raises:
            StoreError: the store cannot be read or written.
        """
        name = f"{self._folder}/labels"
        before = self._store.artifacts.read(name)
        first = 0.0 if before is None else now
        since: dict[str, dict[str, float]] = {}
        for control in config.controls:
            old = (before or {}).get(control.name, {})
            since[control.name] = {label.key: old.get(label.key, first) for label in control.labels}
        if since != before:
            # A label that is gone is forgotten: when it comes back, it is new.
            self._store.artifacts.write(name, since, replace=True)
        return since
