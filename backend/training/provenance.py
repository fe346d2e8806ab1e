"""How a task was reviewed: what its annotator can have seen, and what came of it.

A prediction that Label Studio got after the annotation was begun was not seen, whatever it ticks:
annotated tasks get predictions too. Which one an annotation was made from is its
``parent_prediction``; Label Studio empties that field when the prediction is deleted, so what is in
the prediction log counts as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Any

from backend.labels.controls import Control
from backend.storage.prediction_log import LoggedPrediction
from backend.vlpl.decisions import Provenance

CLOCK_SKEW = 60.0
"""Seconds by which the clocks of this machine and of Label Studio may differ."""


@dataclass(frozen=True)
class Shown:
    """What a task's annotators may have seen.

    Attributes:
        logged: model version -> the prediction that was shown.
        versions: prediction id -> its model version, of predictions that Label Studio still has.
        blind: whether it is a blind task by today's share.
        made: model version -> unix time, by Label Studio's clock, of the oldest prediction of that
            version that it still has.
    """

    logged: Mapping[str, LoggedPrediction]
    versions: Mapping[int, str]
    blind: bool = False
    made: Mapping[str, float] = field(default_factory=dict)

    def before(self, moment: float) -> dict[str, LoggedPrediction]:
        """What was there when an annotation was begun, at a unix time of Label Studio's clock."""
        return {
            version: entry
            for version, entry in self.logged.items()
            if self._was_there(version, entry.shown_at, moment)
        }

    def _was_there(self, version: str, logged_at: float | None, moment: float) -> bool:
        made = self.made.get(version)
        if made is not None and made <= moment:
            return True
        if made is None:
            # Deleted, so that only our own clock tells; in doubt it was seen.
            return logged_at is None or logged_at - CLOCK_SKEW <= moment
        # The one that is there now is younger, but it may not have been the first.
        return logged_at is not None and logged_at + CLOCK_SKEW <= moment


def provenance_of(
    annotation: Mapping[str, Any],
    others: Mapping[int, Mapping[str, Any]],
    chosen: Collection[str],
    control: Control,
    shown: Shown,
) -> Provenance | None:
    """How the task was reviewed when this annotation was made.

    Args:
        annotation: as Label Studio lists it.
        others: id -> annotation, of the same task.
        chosen: keys of the labels that it selects.
        control: with this task's labels.
        shown: what the annotators may have seen.

    Returns:
        None if nobody has decided anything: it was made from the prediction of a blind task.
    """
    if annotation.get("import_id") is not None:
        # Label Studio notes the id that it had in the file; the time of work is kept as well.
        return Provenance.IMPORTED
    origin = _origin(annotation, others)
    parent = origin.get("parent_prediction")
    version = shown.versions.get(parent) if isinstance(parent, int) else None
    seen = shown.before(_begun(origin))
    if version is not None and version in shown.logged:
        seen[version] = shown.logged[version]
    is_blind = all(entry.choices is None for entry in seen.values()) if seen else shown.blind
    if annotation.get("lead_time") is None:
        if parent is None:
            return Provenance.IMPORTED
        return None if is_blind else Provenance.BULK
    if is_blind:
        return Provenance.BLIND
    if version is not None:
        candidates = [seen[version]] if version in seen else []
    else:
        # The prediction is gone from Label Studio, or nothing says which one it was.
        candidates = list(seen.values())
    suggested = [entry.choices for entry in candidates if entry.choices is not None]
    ticked = [control.keys_of(choices.get(control.name, [])) for choices in suggested]
    if any(known_keys(keys, control) == chosen for keys in ticked):
        return Provenance.ACCEPTED
    if suggested:
        return Provenance.EDITED
    # A prediction was shown that is not in the log any more: assume the lower weight.
    return Provenance.ACCEPTED if parent is not None and not candidates else Provenance.UNAIDED


def known_keys(keys: Iterable[str], control: Control) -> frozenset[str]:
    """The keys that the control has now."""
    return frozenset(keys) & {label.key for label in control.labels}


def unix_time(record: Mapping[str, Any], *names: str) -> float | None:
    """The first of these fields of a Label Studio record that holds a time; None if none does."""
    for name in names:
        try:
            return datetime.fromisoformat(str(record[name]).replace("Z", "+00:00")).timestamp()
        except (KeyError, ValueError):
            continue
    return None


def _begun(annotation: Mapping[str, Any]) -> float:
    """When its annotator began: with a draft, if it was one; infinitely late if nothing says so.

    A later change (``updated_at``) does not count: Label Studio opens an annotation for that
    without ticking what is suggested.
    """
    times = [unix_time(annotation, name) for name in ("draft_created_at", "created_at")]
    return min((time for time in times if time is not None), default=inf)


def _origin(
    annotation: Mapping[str, Any], others: Mapping[int, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The annotation that this one is a copy of, or a copy of a copy; else itself."""
    passed: set[int] = set()
    parent = annotation.get("parent_annotation")
    while isinstance(parent, int) and parent in others and parent not in passed:
        passed.add(parent)
        annotation = others[parent]
        parent = annotation.get("parent_annotation")
    return annotation
