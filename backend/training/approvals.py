"""From annotations to approvals: a state per label, and how the task was reviewed.

Label Studio without its paid review step has no "approved": every annotation that was submitted,
and is neither cancelled nor a draft, counts. Its fields do not record whether a suggestion was
accepted unchanged (``origin`` is "changed" also after a change back), so the choices are compared
with the prediction log. See docs/training.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.labels.controls import Control, label_key
from backend.storage.prediction_log import LoggedPrediction
from backend.vlpl.head import PROVENANCE_WEIGHTS, Provenance
from backend.vlpl.objectives import NEGATIVE, POSITIVE, UNKNOWN

PARTIAL = frozenset({Provenance.IMPORTED, Provenance.KNOWN})
"""Provenances that name labels which are on the image and say nothing of the others."""
REVIEWED = frozenset({Provenance.BLIND, Provenance.UNAIDED, Provenance.EDITED, Provenance.ACCEPTED})
"""Provenances of tasks that a person looked at one by one; only these may judge a head."""


@dataclass(frozen=True)
class Approval:
    """The known states of one control's labels on one task.

    Attributes:
        task: its id.
        states: per label, `objectives.POSITIVE`, ``NEGATIVE`` or ``UNKNOWN``.
        provenance: how it was reviewed.
        updated: unix time of the newest annotation that it rests on; 0 where there is none.
    """

    task: int
    states: tuple[int, ...]
    provenance: Provenance
    updated: float = 0.0


@dataclass(frozen=True)
class Shown:
    """What a task's annotators may have seen.

    Attributes:
        logged: model version -> the prediction that was shown.
        versions: prediction id -> its model version, of predictions that Label Studio still has.
        blind: whether it is a blind task.
    """

    logged: Mapping[str, LoggedPrediction]
    versions: Mapping[int, str]
    blind: bool = False


def approval(
    task: Mapping[str, Any], control: Control, since: Mapping[str, float], shown: Shown
) -> Approval | None:
    """Combine a task's annotations.

    Bulk and imported annotations count only where nobody looked at the task. Each person's last
    annotation that has any label state counts. The majority of those with a state for a label
    decides it; a tie leaves it unknown. The provenance is that of the best-reviewed annotation.

    Args:
        task: ``id`` and ``annotations`` as Label Studio lists them.
        control: with this task's labels.
        since: label key -> unix time from which an annotation can hold it.
        shown: what the annotators may have seen.

    Returns:
        None if no annotation counts.
    """
    votes: list[tuple[Any, Approval]] = []
    annotations = [
        annotation
        for annotation in task.get("annotations") or []
        if not annotation.get("was_cancelled")
    ]
    for annotation in sorted(annotations, key=lambda item: (_when(item), int(item["id"]))):
        vote = _vote(annotation, control, since, shown)
        if vote is not None:
            votes.append((_person(annotation), vote))
    # Where somebody looked, annotations that nobody looked at do not count.
    looked = [(person, vote) for person, vote in votes if vote.provenance in REVIEWED]
    counted = list(dict(looked or votes).values())
    if not counted:
        return None
    states = []
    for place in range(len(control.labels)):
        balance = sum(vote.states[place] for vote in counted)
        states.append(POSITIVE if balance > 0 else NEGATIVE if balance < 0 else UNKNOWN)
    best = max(counted, key=lambda vote: PROVENANCE_WEIGHTS[vote.provenance])
    updated = max(vote.updated for vote in counted)
    return Approval(int(task["id"]), tuple(states), best.provenance, updated)


def known_approval(task: int, control: Control, known: Iterable[int]) -> Approval | None:
    """The approval that a task's data alone gives: its known labels; None if it names none."""
    places = frozenset(known)
    if not places:
        return None
    states = [POSITIVE if place in places else UNKNOWN for place in range(len(control.labels))]
    return Approval(task, tuple(states), Provenance.KNOWN)


def provenance_counts(approvals: Sequence[Approval]) -> dict[str, int]:
    """Provenance -> number of approvals."""
    return dict(sorted(Counter(approval.provenance for approval in approvals).items()))


def _vote(
    annotation: Mapping[str, Any], control: Control, since: Mapping[str, float], shown: Shown
) -> Approval | None:
    keys = control.chosen(annotation.get("result") or [])
    if keys is None:
        # The control was of another kind then: the annotation says nothing about its labels.
        return None
    chosen = _known(keys, control)
    provenance = _provenance(annotation, chosen, control, shown)
    if provenance == Provenance.BULK and shown.blind:
        # Made from a prediction that holds back its suggestions: nobody has decided anything.
        return None
    when = _when(annotation)
    states = []
    for label in control.labels:
        if label.key in chosen:
            states.append(POSITIVE)
        elif provenance in PARTIAL or when < since.get(label.key, 0.0):
            states.append(UNKNOWN)
        else:
            states.append(NEGATIVE)
    if not any(states):
        # An import without our control.
        return None
    return Approval(0, tuple(states), provenance, when)


def _provenance(
    annotation: Mapping[str, Any], chosen: frozenset[str], control: Control, shown: Shown
) -> Provenance:
    parent = annotation.get("parent_prediction")
    if annotation.get("lead_time") is None:
        return Provenance.IMPORTED if parent is None else Provenance.BULK
    if shown.blind:
        return Provenance.BLIND
    version = shown.versions.get(parent) if isinstance(parent, int) else None
    if version is not None:
        candidates = [shown.logged[version]] if version in shown.logged else []
    else:
        # The prediction is gone from Label Studio, or nothing says which one it was.
        candidates = list(shown.logged.values())
    shown_choices = [entry.choices for entry in candidates if entry.choices is not None]
    ticked = [map(label_key, choices.get(control.name, [])) for choices in shown_choices]
    if any(_known(keys, control) == chosen for keys in ticked):
        return Provenance.ACCEPTED
    if shown_choices:
        return Provenance.EDITED
    # A prediction was shown that is not in the log any more: assume the lower weight.
    return Provenance.ACCEPTED if parent is not None and not candidates else Provenance.UNAIDED


def _known(keys: Iterable[str], control: Control) -> frozenset[str]:
    """The keys that the control still has."""
    return frozenset(keys) & {label.key for label in control.labels}


def _person(annotation: Mapping[str, Any]) -> Any:
    person = annotation.get("completed_by")
    return person.get("id") if isinstance(person, Mapping) else person


def _when(annotation: Mapping[str, Any]) -> float:
    """Unix time of its last change; 0 if it has none."""
    for name in ("updated_at", "created_at"):
        try:
            return datetime.fromisoformat(str(annotation[name]).replace("Z", "+00:00")).timestamp()
        except (KeyError, ValueError):
            continue
    return 0.0
