"""A project's heads as one training makes them: one per control, with how they were judged.

A set is one JSON file with the tensors (safetensors, base64) inside, so that it exists as a whole
or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any

from backend.labels.renames import Renames
from backend.storage.region_codes import present_id
from backend.vlpl.clicks import Clicks
from backend.vlpl.head import Head
from backend.vlpl.label_figures import LabelFigures

SCHEMA = 1
"""Version of the file format of a head set; files without a version are of the first."""


@dataclass(frozen=True)
class FittedControl:
    """One control's head and thresholds.

    Attributes:
        head: gives a probability per label; its card names the labels, in order.
        thresholds: per label, suggest from this probability on; above 1: never.
    """

    head: Head
    thresholds: tuple[float, ...]

    @cached_property
    def digest(self) -> str:
        """64 hex digits over tensors, card and thresholds; part of the model version."""
        content = self.head.to_bytes()[1] + json.dumps(self.thresholds).encode()
        return hashlib.sha256(content).hexdigest()

    def for_labels(
        self, labels: Sequence[str], a0: float, b0: float, threshold: float
    ) -> FittedControl:
        """The same head for other labels; labels that it does not know start at zero-shot.

        Args:
            labels: keys of the control's labels now, in order.
            a0: slope for new labels.
            b0: offset for new labels.
            threshold: for new labels.
        """
        if tuple(labels) == self.head.card.labels:
            return self
        known = dict(zip(self.head.card.labels, self.thresholds, strict=True))
        return FittedControl(
            self.head.carried_over(labels, a0, b0),
            tuple(known.get(label, threshold) for label in labels),
        )

    def renamed(self, renames: Renames) -> FittedControl:
        """The same head under the present names of its labels, see `Head.renamed`."""
        present = [renames.current(label) for label in self.head.card.labels]
        if present == list(self.head.card.labels):
            return self
        head, places = self.head.renamed(present)
        return FittedControl(head, tuple(self.thresholds[place] for place in places))


@dataclass(frozen=True)
class HeadSet:
    """The result of one training.

    Attributes:
        name: ``h1``, ``h2`` ...
        controls: control name -> its head; controls that could not be trained are missing.
        created: ISO 8601, UTC.
        encoder: id of the encoder whose embeddings the heads read, as it is called today.
        approvals: number of reviewed (task, control) pairs for training and judging.
        provenance: kind of review -> number of approvals.
        accepted: whether the judge found it no worse than the set that served then.
        reason: the judge's, for people.
        metrics: name -> value on the judged tasks, of this set and of the one that served then.
        clicks: of this set on the judged tasks; None where nothing was measured, and in sets of
            earlier releases.
        serving_clicks: the same of the set that served then.
        labels: control name -> figures of its labels; empty in sets of earlier releases.
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
    clicks: Clicks | None = None
    serving_clicks: Clicks | None = None
    labels: Mapping[str, tuple[LabelFigures, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The content of the set's file; JSON-serialisable."""
        controls = {}
        for name, control in self.controls.items():
            tensors, card = control.head.to_bytes()
            controls[name] = {
                "tensors": base64.b64encode(tensors).decode(),
                "card": json.loads(card),
                "thresholds": list(control.thresholds),
            }
        labels = {
            name: [figures.as_dict() for figures in control]
            for name, control in self.labels.items()
        }
        return {"schema": SCHEMA, **self.summary(), "labels": labels, "controls": controls}

    def summary(self) -> dict[str, Any]:
        """All but the heads themselves and what is known of each label; JSON-serialisable."""
        return {
            "name": self.name,
            "created": self.created,
            "encoder": self.encoder,
            "approvals": self.approvals,
            "provenance": dict(self.provenance),
            "accepted": self.accepted,
            "reason": self.reason,
            "metrics": dict(self.metrics),
            "clicks": None if self.clicks is None else self.clicks.as_dict(),
            "serving_clicks": None
            if self.serving_clicks is None
            else self.serving_clicks.as_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HeadSet:
        """Inverse of `as_dict`.

        Raises:
            HeadError: a head is damaged.
            AttributeError, KeyError, TypeError, ValueError: another field is damaged.
        """
        controls = {}
        for name, control in content["controls"].items():
            tensors = base64.b64decode(control["tensors"])
            head = Head.from_bytes(tensors, json.dumps(control["card"]).encode())
            thresholds = tuple(map(float, control["thresholds"]))
            if len(thresholds) != len(head.card.labels) or not all(map(isfinite, thresholds)):
                raise ValueError("a head needs one finite threshold for each label")
            controls[name] = FittedControl(head, thresholds)
        return cls(
            name=str(content["name"]),
            controls=controls,
            created=str(content["created"]),
            encoder=present_id(str(content["encoder"])),
            approvals=int(content["approvals"]),
            provenance=dict(content["provenance"]),
            accepted=bool(content["accepted"]),
            reason=str(content["reason"]),
            metrics=dict(content["metrics"]),
            clicks=_clicks(content.get("clicks")),
            serving_clicks=_clicks(content.get("serving_clicks")),
            labels={
                str(name): tuple(map(LabelFigures.from_dict, figures))
                for name, figures in content.get("labels", {}).items()
            },
        )


def _clicks(content: Mapping[str, Any] | None) -> Clicks | None:
    return None if content is None else Clicks.from_dict(content)
