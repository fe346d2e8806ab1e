"""From annotations to what people approved: states per label, and how they were reviewed.

Label Studio without its paid review step has no "approved": an annotation that was submitted, and
neither cancelled nor a draft, counts. Its fields do not tell whether a suggestion was accepted
unchanged (``origin`` says "changed" also after a change back), so the choices are compared with our
own snapshot of what was shown. See docs/training.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.labels.controls import Control, key_of
from backend.storage.prediction_log import LoggedPrediction
from backend.vlpl.head import PROVENANCE_WEIGHTS
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN

PARTIAL = frozenset({"imported", "known"})
"""Provenances that name labels which are there and say nothing of the others."""
RANDOM_ONLY = frozenset({"blind", "unaided", "edited", "accepted"})
"""Provenances of tasks that a person looked at one by one; only these may judge a head."""


@dataclass(frozen=True)
class Approval:
    """What is known about one control of one task.

    Attributes:
        task: its id.
        states: per label, `objectives.POSITIVE`, ``NEGATIVE`` or ``UNKNOWN``.
        provenance: a key of `head.PROVENANCE_WEIGHTS`.
        updated: unix time of the newest annotation that it rests on; 0 where there is none.
        people: how many annotations it was combined from.
    """

    task: int
    states: tuple[int, ...]
    provenance: str
    updated: float = 0.0
    people: int = 1


@dataclass(frozen=True)
class Shown:
    """What a task's annotators may have seen.

    Attributes:
        snapshots: model version -> what was shown.
        versions: prediction id -> its model version, of predictions that Label Studio still has.
        blind: whether the task is of the blind slice.
    """

    snapshots: Mapping[str, LoggedPrediction]
    versions: Mapping[int, str]
    blind: bool = False


def approval(
    task: Mapping[str, Any], control: Control, since: Mapping[str, float], shown: Shown
) -> Approval | None:
    """Combine a task's annotations.

    Bulk and imported annotations count only where nobody looked at the task. Of each person the
    last annotation that says anything counts. A label is there, or not, if most of those who said
    anything about it say so; else it is unknown. The provenance is that of the best-reviewed one.

    Args:
        task: ``id`` and ``annotations`` as Label Studio lists them.
        control: with this task's labels.
        since: label key -> unix time from which an annotation can speak of it.
        shown: what the annotators may have seen.

    Returns:
        None if no annotation counts.
    """
    votes: list[tuple[Any, Approval]] = []
    annotations = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    for one in sorted(annotations, key=lambda one: (_when(one), int(one["id"]))):
        vote = _vote(one, control, since, shown)
        if vote is not None:
            votes.append((_person(one), vote))
    # Where somebody looked, what nobody looked at has no say.
    looked = [(person, vote) for person, vote in votes if vote.provenance in RANDOM_ONLY]
    counted = list(dict(looked or votes).values())
    if not counted:
        return None
    states = []
    for place in range(len(control.labels)):
        balance = sum(one.states[place] for one in counted)
        states.append(POSITIVE if balance > 0 else NEGATIVE if balance < 0 else UNKNOWN)
    best = max(counted, key=lambda one: PROVENANCE_WEIGHTS[one.provenance])
    updated = max(one.updated for one in counted)
    return Approval(int(task["id"]), tuple(states), best.provenance, updated, len(counted))


def known_approval(task: int, control: Control, known: Iterable[int]) -> Approval | None:
    """What the task's data alone says: labels that are there; None if it names none."""
    places = frozenset(known)
    if not places:
        return None
    states = [POSITIVE if place in places else UNKNOWN for place in range(len(control.labels))]
    return Approval(task, tuple(states), "known")


def provenance_counts(approvals: Sequence[Approval]) -> dict[str, int]:
    """How many approvals of each provenance there are."""
    return dict(sorted(Counter(one.provenance for one in approvals).items()))


def _vote(
    annotation: Mapping[str, Any], control: Control, since: Mapping[str, float], shown: Shown
) -> Approval | None:
    keys = control.chosen(annotation.get("result") or [])
    if keys is None:
        # Not a word about labels that could not be chosen in this way then.
        return None
    chosen = _known(keys, control)
    provenance = _provenance(annotation, chosen, control, shown)
    if provenance == "bulk" and shown.blind:
        # Made from a prediction that holds back what it thinks: nobody has said anything.
        return None
    when = _when(annotation)
    there = {place for place, label in enumerate(control.labels) if label.key in chosen}
    states = []
    for place, label in enumerate(control.labels):
        if place in there:
            states.append(POSITIVE)
        elif provenance in PARTIAL or when < since.get(label.key, 0.0):
            states.append(UNKNOWN)
        else:
            states.append(NEGATIVE)
    if not any(states):
        # An import without our control says nothing at all.
        return None
    return Approval(0, tuple(states), provenance, when)


def _provenance(
    annotation: Mapping[str, Any], chosen: frozenset[str], control: Control, shown: Shown
) -> str:
    parent = annotation.get("parent_prediction")
    if annotation.get("lead_time") is None:
        return "imported" if parent is None else "bulk"
    if shown.blind:
        return "blind"
    version = shown.versions.get(parent) if isinstance(parent, int) else None
    if version is not None:
        candidates = [shown.snapshots[version]] if version in shown.snapshots else []
    else:
        # The prediction is gone from Label Studio, or nothing says which one it was.
        candidates = list(shown.snapshots.values())
    seen = [one for one in candidates if one.choices is not None]
    ticked = [map(key_of, (one.choices or {}).get(control.name, [])) for one in seen]
    if any(_known(keys, control) == chosen for keys in ticked):
        return "accepted"
    if seen:
        return "edited"
    # A prediction was shown, and what it was is known no more: the least that it can be worth.
    return "accepted" if parent is not None and not candidates else "unaided"


def _known(keys: Iterable[str], control: Control) -> frozenset[str]:
    """Those of the keys that the control still has."""
    return frozenset(keys) & {label.key for label in control.labels}


def _person(annotation: Mapping[str, Any]) -> Any:
    person = annotation.get("completed_by")
    return person.get("id") if isinstance(person, Mapping) else person


def _when(annotation: Mapping[str, Any]) -> float:
    """Unix time of its last change; 0 if it does not tell."""
    for name in ("updated_at", "created_at"):
        try:
            return datetime.fromisoformat(str(annotation[name]).replace("Z", "+00:00")).timestamp()
        except (KeyError, ValueError):
            continue
    return 0.0
