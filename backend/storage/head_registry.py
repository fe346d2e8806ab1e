"""A project's heads in the store: immutable sets, and which of them serves.

A set holds one head for each control and is one JSON file with the tensors (safetensors, base64)
inside, so that it is there whole or not at all. Nothing is ever written over it. A pointer of a few
bytes says which set serves; moving it is the last step of a promotion, and all processes follow,
since each asks the store.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from backend.errors import StoreError
from backend.storage.artifacts import safe_name
from backend.storage.store import Store
from backend.vlpl.head import Head, HeadError

ZERO_SHOT = "zero-shot"
"""The name of the set that has no heads; it is always there."""
_NAME = re.compile("h[1-9][0-9]*")


@dataclass(frozen=True)
class FittedControl:
    """One control's head and thresholds.

    Attributes:
        head: probabilities; its card names the labels, in order.
        thresholds: per label, suggest from this probability on; above 1: never.
    """

    head: Head
    thresholds: tuple[float, ...]

    @cached_property
    def digest(self) -> str:
        """A hash over tensors, card and thresholds."""
        content = self.head.to_bytes()[1] + json.dumps(self.thresholds).encode()
        return hashlib.sha256(content).hexdigest()

    def for_labels(
        self, labels: Sequence[str], a0: float, b0: float, threshold: float
    ) -> FittedControl:
        """The same for another label set: what is new starts at zero-shot (a0, b0, threshold)."""
        if tuple(labels) == self.head.card.labels:
            return self
        old = dict(zip(self.head.card.labels, self.thresholds, strict=True))
        return FittedControl(
            self.head.carried_over(labels, a0, b0),
            tuple(old.get(label, threshold) for label in labels),
        )


@dataclass(frozen=True)
class HeadSet:
    """What one training made.

    Attributes:
        name: ``h1``, ``h2`` ...
        controls: control name -> its head; controls that could not be trained are left out.
        created: ISO 8601, UTC.
        encoder: id of the encoder whose embeddings they are for.
        approvals: reviewed (task, control) pairs that it was trained and judged on.
        provenance: how those were reviewed -> how many.
        accepted: whether the judge found it no worse than the set that served then.
        reason: why.
        metrics: name -> value, of this set and of the one that served then, on the judged tasks.
    """

    name: str
    controls: Mapping[str, FittedControl]
    created: str
    encoder: str
    approvals: int
    provenance: Mapping[str, int] = field(default_factory=dict)
    accepted: bool = False
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        controls = {}
        for name, one in self.controls.items():
            tensors, card = one.head.to_bytes()
            controls[name] = {
                "tensors": base64.b64encode(tensors).decode(),
                "card": json.loads(card),
                "thresholds": list(one.thresholds),
            }
        return {**self.summary(), "controls": controls}

    def summary(self) -> dict[str, Any]:
        """What a person reads about it; JSON-able."""
        return {
            "name": self.name,
            "created": self.created,
            "encoder": self.encoder,
            "approvals": self.approvals,
            "provenance": dict(self.provenance),
            "accepted": self.accepted,
            "reason": self.reason,
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadSet:
        """Inverse of `as_dict`.

        Raises:
            HeadError: a head is damaged.
            KeyError, TypeError, ValueError: so is the rest.
        """
        controls = {}
        for name, one in data["controls"].items():
            head = Head.from_bytes(
                base64.b64decode(one["tensors"]), json.dumps(one["card"]).encode()
            )
            controls[name] = FittedControl(head, tuple(map(float, one["thresholds"])))
        return cls(
            str(data["name"]),
            controls,
            str(data["created"]),
            str(data["encoder"]),
            int(data["approvals"]),
            dict(data["provenance"]),
            bool(data["accepted"]),
            str(data["reason"]),
            dict(data["metrics"]),
        )


class HeadRegistry:
    """The sets of all projects. Thread-safe.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Sets never change, but after `forget` another one may get the name.
        self._known: dict[str, tuple[str, HeadSet]] = {}
        self._lock = threading.Lock()

    def names(self, project: str) -> list[str]:
        """Names of a project's sets, oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        found = self._store.artifacts.names(f"heads/{safe_name(project)}")
        # Whatever else lies there (a copy, an editor's backup) is no set.
        return sorted(filter(_NAME.fullmatch, found), key=lambda name: int(name[1:]))

    def get(self, project: str, name: str) -> HeadSet:
        """One set.

        Raises:
            StoreError: there is none of this name, it is damaged, or the store cannot be read.
        """
        path = f"heads/{safe_name(project)}/{name}"
        stamp = self._store.artifacts.stamp(path)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        content = self._store.artifacts.read(path)
        if content is None:
            raise StoreError(
                f"The project has no head {name!r}.",
                f"ls-clip heads {_number(project)} lists those it has.",
            )
        try:
            found = HeadSet.from_dict(content)
        except (HeadError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"The head {name} in the store is damaged ({error}).",
                f"Go back to another one: ls-clip rollback {_number(project)} VERSION.",
            ) from error
        with self._lock:
            if len(self._known) > 64:
                self._known.clear()
            self._known[path] = stamp, found
        return found

    def next_name(self, project: str) -> str:
        """The name of the next set."""
        return f"h{1 + max((int(name[1:]) for name in self.names(project)), default=0)}"

    def keep(self, project: str, made: HeadSet) -> None:
        """Write a set; one of this name that is there already stays.

        Raises:
            StoreError: the store cannot be written.
        """
        self._store.artifacts.write(f"heads/{safe_name(project)}/{made.name}", made.as_dict())

    def serving(self, project: str) -> str:
        """The name of the set that serves; `ZERO_SHOT` where none does.

        Raises:
            StoreError: the store cannot be read.
        """
        history = self.history(project)
        return history[-1] if history else ZERO_SHOT

    def history(self, project: str) -> list[str]:
        """Names in the order in which they came to serve, the present one last."""
        return [str(name) for name in self._pointer(project).get("history", [])]

    def serve(self, project: str, name: str, *, back: bool = False) -> None:
        """Point all processes at a set: the last step of a promotion, and of going back.

        A set that was accepted meanwhile still waits, unless somebody went back.

        Args:
            project: its key.
            name: of the set, or `ZERO_SHOT`.
            back: somebody went back to it, see `is_back`.

        Raises:
            StoreError: there is no such set (any more), or the store cannot be written.
        """
        if name != ZERO_SHOT:
            self.get(project, name)
        history = self.history(project) or [ZERO_SHOT]
        if history[-1] != name:
            history = [*history, name]
        accepted = self.accepted(project)
        if back or accepted == name:
            accepted = ""
        self._point(project, history=history, back=back, accepted=accepted)

    def accepted(self, project: str) -> str:
        """The name of an accepted set that does not serve yet; empty: there is none."""
        return str(self._pointer(project).get("accepted", ""))

    def accept(self, project: str, name: str) -> None:
        """Remember that a set is to serve next; empty: none is."""
        self._point(project, accepted=name)

    def is_back(self, project: str) -> bool:
        """Whether somebody went back to the set that serves, and nothing has been decided since."""
        return bool(self._pointer(project).get("back"))

    def stay(self, project: str) -> None:
        """What was approved until now does not count against the set that was gone back to."""
        self._point(project, back=False)

    def _pointer(self, project: str) -> dict[str, Any]:
        return self._store.artifacts.read(_pointer(project)) or {}

    def _point(self, project: str, **fields: Any) -> None:
        content = {**self._pointer(project), **fields}
        self._store.artifacts.write(_pointer(project), content, replace=True)
        self._store.generation.change()


def _number(project: str) -> str:
    """The project's number in Label Studio, from its key."""
    return project.partition(".")[0]


def _pointer(project: str) -> str:
    return f"projects/{safe_name(project)}/serving"
