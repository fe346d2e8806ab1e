"""A project's state besides its heads: settings, last training, former labels, review order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from pydantic import TypeAdapter

from backend.errors import StoreError
from backend.messages.message import Message
from backend.storage.artifacts import safe_name
from backend.storage.label_history import SCHEMA, LabelHistory, Rename
from backend.storage.review_record import (
    PERIODS,
    ROUND,
    OrderPeriod,
    ReviewOrder,
    RoundRecord,
    periods_as_dict,
)
from backend.storage.store import Store

_AGES = TypeAdapter(dict[str, dict[str, float]])
_RENAMES = TypeAdapter(dict[str, list[Rename]])
_TASKS = TypeAdapter(dict[int, str])
_RENAMES_FIX = Message(
    "Restore it from a backup. Without one, delete it: labels that were renamed have to be "
    "renamed again (ls-clip rename)."
)
_REVIEW_FIX = Message(
    "Restore it from a backup. Without one, delete it: earlier reviews then count as chosen, not "
    "as random picks. Then run ls-clip connect."
)


class ProjectState:
    """The state of one project. Thread-safe.

    Args:
        store: where it is kept.
        project: its key, ``<id>.<unix time of creation>``.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._folder = f"projects/{safe_name(project)}"
        self._lock = f"labels of {self._folder}"
        self._review_lock = f"review of {self._folder}"

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

    def is_connected(self) -> bool:
        """Whether the project was ever connected, not only filled by an import of an archive.

        Raises:
            StoreError: the store cannot be read.
        """
        return {*self._store.artifacts.content(self._folder)} - {"known-label.json"} != set()

    def trained_on(self) -> tuple[dict[int, str], str]:
        """What the last training saw.

        Returns:
            Task id -> a hash of what was approved there; and a hash of everything that the last
            head set was made from, empty if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        name = f"{self._folder}/trained-on"
        content = self._store.artifacts.read(name) or {}
        try:
            tasks = _TASKS.validate_python(content.get("tasks", {}))
        except ValueError as error:
            raise self._damaged(name, error, "Delete it: the next training reads all.") from error
        return tasks, str(content.get("made_from", ""))

    def set_trained_on(self, approved: Mapping[int, str], made_from: str) -> None:
        """Set what `trained_on` returns.

        Raises:
            StoreError: the store cannot be written.
        """
        tasks = {str(task): digest for task, digest in approved.items()}
        content = {"tasks": tasks, "made_from": made_from}
        self._store.artifacts.write(f"{self._folder}/trained-on", content, replace=True)

    def orders(self) -> list[OrderPeriod]:
        """The orders in which the project's tasks were served, oldest first.

        Empty if none was recorded yet.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        name = f"{self._folder}/review-order"
        content = self._store.artifacts.read(name)
        try:
            return [] if content is None else PERIODS.validate_python(content["periods"])
        except (KeyError, ValueError) as error:
            raise self._damaged(name, error, _REVIEW_FIX) from error

    def note_order(self, order: ReviewOrder, now: float) -> None:
        """Note the order that holds from now on, unless it is the one that held already.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._store.locks.hold(self._review_lock):
            periods = self.orders()
            if not periods or periods[-1].order != order:
                content = periods_as_dict([*periods, OrderPeriod(order, now)])
                self._store.artifacts.write(f"{self._folder}/review-order", content, replace=True)

    def round(self) -> RoundRecord | None:
        """The round of tasks that the project's tab offers; None if there never was one.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        name = f"{self._folder}/review-round"
        content = self._store.artifacts.read(name)
        if content is None:
            return None
        try:
            return ROUND.validate_python(content)
        except ValueError as error:
            raise self._damaged(name, error, _REVIEW_FIX) from error

    def change_round(self, change: Callable[[RoundRecord], RoundRecord]) -> RoundRecord:
        """Change the record of `round`, which is made if there is none; returns it afterwards.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._store.locks.hold(self._review_lock):
            before = self.round()
            after = change(before or RoundRecord())
            if after != before:
                name = f"{self._folder}/review-round"
                self._store.artifacts.write(name, after.as_dict(), replace=True)
        return after

    def labels_since(
        self,
        labels: Mapping[str, Sequence[str]],
        now: float,
        conditions: Mapping[str, str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Since when annotations can tell about each label; what has changed is noted.

        Someone who reviewed a task before a label was added has not decided about that label. The
        labels of the first call count as old as the project. A control that is shown under another
        condition than before is asked anew.

        Args:
            labels: control name -> keys of its labels now, in order.
            now: unix time in seconds.
            conditions: control name -> a text that differs whenever the condition under which the
                control is shown differs; None: not looked at.

        Returns:
            Control name -> label key -> unix time in seconds, 0 for the labels of the first call.

        Raises:
            StoreError: the store cannot be read or written.
        """
        since, history = self.seen(labels, now, conditions)
        if self._is_noted(since, history):
            return since
        with self._store.locks.hold(self._lock):
            since, history = self.seen(labels, now, conditions)
            # First, so that a label is never gone from both files.
            self._store.artifacts.write(self._history_name, history.as_dict(), replace=True)
            # A label that was removed is dropped: when it comes back, it is new.
            self._store.artifacts.write(self._ages_name, since, replace=True)
        return since

    def _is_noted(self, since: Mapping[str, Mapping[str, float]], history: LabelHistory) -> bool:
        # As text: the order tells in whose place a new label is.
        return (
            json.dumps(self.label_ages()) == json.dumps(since)
            and self._store.artifacts.read(self._history_name) == history.as_dict()
        )

    def seen(
        self,
        labels: Mapping[str, Sequence[str]],
        now: float,
        conditions: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, dict[str, float]], LabelHistory]:
        """What `labels_since` returns, and the history after it; nothing is noted.

        Raises:
            StoreError: the store cannot be read.
        """
        before, history = self.label_ages(), self.label_history()
        if before is None:
            history = LabelHistory(began=now)
        first_seen = 0.0 if before is None else now
        shown = history.conditions if conditions is None else conditions
        since: dict[str, dict[str, float]] = {}
        for control, keys in labels.items():
            known = (before or {}).get(control, {})
            if history.conditions is not None and history.conditions.get(control) != (
                shown or {}
            ).get(control):
                known = {}
            since[control] = {key: known.get(key, first_seen) for key in keys}
        return since, history.after(before or {}, labels, shown, now)

    def label_ages(self) -> dict[str, dict[str, float]] | None:
        """Control name -> label key -> since when it is known, as noted; None before the first.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        content = self._store.artifacts.read(self._ages_name)
        try:
            return None if content is None else _AGES.validate_python(content)
        except ValueError as error:
            raise self._damaged(
                self._ages_name,
                error,
                "Restore it from a backup. Without one, delete it: all labels count as old as the "
                "project.",
            ) from error

    def label_history(self) -> LabelHistory:
        """The labels that the config does not have any more.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        content = self._store.artifacts.read(self._history_name)
        if content is None:
            return LabelHistory()
        try:
            return LabelHistory.from_dict(content)
        except (KeyError, ValueError) as error:
            raise self._damaged(self._history_name, error) from error

    def settle(self, control: str, key: str) -> None:
        """Note that a former label was not renamed: see `FormerLabel.settled`.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._store.locks.hold(self._lock):
            history = self.label_history()
            gone = {name: dict(labels) for name, labels in history.gone.items()}
            if key in gone.get(control, {}):
                gone[control][key] = replace(gone[control][key], settled=True)
                content = replace(history, gone=gone).as_dict()
                self._store.artifacts.write(self._history_name, content, replace=True)

    def renames(self) -> dict[str, list[Rename]]:
        """Control name -> the renames of its labels, oldest first.

        Raises:
            StoreError: the store cannot be read, or the file is damaged.
        """
        name = f"{self._folder}/renames"
        content = self._store.artifacts.read(name)
        if content is None:
            return {}
        try:
            return _RENAMES.validate_python(content["controls"])
        except (KeyError, ValueError) as error:
            raise self._damaged(name, error) from error

    def former_names(self) -> dict[str, dict[str, str]]:
        """Control name -> former key of a label -> the key that replaced it.

        Raises:
            StoreError: as for `renames`.
        """
        return {
            control: {rename.old: rename.new for rename in renames}
            for control, renames in self.renames().items()
        }

    def set_renames(
        self, control: str, renames: Sequence[Rename], since: Mapping[str, float]
    ) -> None:
        """Set the renames of a control's labels.

        Args:
            control: its name.
            renames: oldest first.
            since: label key -> since when annotations can tell about it, where that changes.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._store.locks.hold(self._lock):
            ages = self.label_ages() or {}
            if since and control in ages:
                ages[control] |= {key: when for key, when in since.items() if key in ages[control]}
                self._store.artifacts.write(self._ages_name, ages, replace=True)
            every = {**self.renames(), control: list(renames)}
            content = {
                "schema": SCHEMA,
                "controls": {name: [*map(asdict, of_it)] for name, of_it in every.items() if of_it},
            }
            self._store.artifacts.write(f"{self._folder}/renames", content, replace=True)
        self._store.generation.change()

    @property
    def _history_name(self) -> str:
        return f"{self._folder}/former-labels"

    @property
    def _ages_name(self) -> str:
        return f"{self._folder}/labels"

    def _damaged(self, name: str, error: Exception, fix: str = _RENAMES_FIX) -> StoreError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return self._store.artifacts.damaged(name, reason, fix)
