"""From annotations to approvals: a state per label, and how the task was reviewed.

Label Studio without its paid review step has no "approved": every annotation that was submitted,
and is neither cancelled nor a draft, counts. Its fields do not record whether a suggestion was
accepted unchanged (``origin`` is "changed" also after a change back), so the choices are compared
with the prediction log (`backend.training.provenance`). See docs/training.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.inference.holdout import is_audit
from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.labels.visibility import Ticks
from backend.training.provenance import Shown, known_keys, provenance_of, unix_time
from backend.vlpl.decisions import NEGATIVE, POSITIVE, PROVENANCE_WEIGHTS, UNKNOWN, Provenance

PARTIAL = frozenset({Provenance.IMPORTED, Provenance.KNOWN})
"""Provenances that name labels which are on the image and say nothing of the others."""
REVIEWED = frozenset({Provenance.BLIND, Provenance.UNAIDED, Provenance.EDITED, Provenance.ACCEPTED})
"""Provenances of tasks that a person looked at one by one; only these may judge a head."""
UNSWAYED = REVIEWED - {Provenance.ACCEPTED}
"""Provenances of tasks that correct and calibrate percentages: a suggestion that was accepted
unchanged, perhaps unchecked, would confirm itself (docs/training.md)."""

NO_CONFIG = LabelConfig((), None, ())


@dataclass(frozen=True)
class Approval:
    """The known states of one control's labels on one task.

    Attributes:
        task: its id.
        states: per label, `decisions.POSITIVE`, ``NEGATIVE`` or ``UNKNOWN``.
        provenance: how it was reviewed.
        updated: unix time of the newest annotation that it rests on; 0 where there is none.
        created: unix time when the first annotation that it rests on was made; 0 where there is
            none.
    """

    task: int
    states: tuple[int, ...]
    provenance: Provenance
    updated: float = 0.0
    created: float = 0.0


@dataclass(frozen=True)
class Past:
    """What is known of the labeling configs that a control's annotations were made with.

    Attributes:
        since: label key -> unix time from which an annotation can tell whether it is absent.
        began: unix time from which the config's changes are known; 0: from the first.
        former: keys of labels that the control is known to have had.
        config: the labeling config of today, with former names of labels.
    """

    since: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    former: frozenset[str] = frozenset()
    config: LabelConfig = NO_CONFIG


def approval(
    task: Mapping[str, Any], control: Control, past: Past, shown: Shown
) -> Approval | None:
    """Combine a task's annotations.

    Bulk and imported annotations count only where nobody looked at the task. Each person's last
    annotation that has any label state counts, or that was made without seeing the control: then it
    says nothing, and neither do that person's earlier ones. The majority of those with a state for
    a label decides it; a tie leaves it unknown. The provenance is that of the best-reviewed
    annotation.

    Args:
        task: ``id`` and ``annotations`` as Label Studio lists them.
        control: with this task's labels.
        past: what is known of the control's former labels.
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
    by_id = {int(annotation["id"]): annotation for annotation in task.get("annotations") or []}
    for annotation in sorted(annotations, key=lambda item: (_when(item), int(item["id"]))):
        vote = _vote(annotation, by_id, control, past, shown)
        if vote is not None:
            votes.append((_person(annotation), vote))
    # Where somebody looked, annotations that nobody looked at do not count.
    looked = [(person, vote) for person, vote in votes if vote.provenance in REVIEWED]
    counted = [vote for vote in dict(looked or votes).values() if any(vote.states)]
    if not counted:
        return None
    states = []
    for place in range(len(control.labels)):
        balance = sum(vote.states[place] for vote in counted)
        states.append(POSITIVE if balance > 0 else NEGATIVE if balance < 0 else UNKNOWN)
    best = max(counted, key=lambda vote: PROVENANCE_WEIGHTS[vote.provenance])
    updated = max(vote.updated for vote in counted)
    created = min(vote.created for vote in counted)
    return Approval(int(task["id"]), tuple(states), best.provenance, updated, created)


def known_approval(task: int, control: Control, known: Iterable[int]) -> Approval | None:
    """The approval that a task's data alone gives: its known labels; None if it names none."""
    places = frozenset(known)
    if not places:
        return None
    states = [POSITIVE if place in places else UNKNOWN for place in range(len(control.labels))]
    return Approval(task, tuple(states), Provenance.KNOWN)


def is_judged(project: str, approval: Approval, audit_share: float) -> bool:
    """Whether heads are judged on this approval: of a task that was chosen at random.

    Args:
        project: ``<id>.<unix time of creation>``.
        approval: of one of its tasks.
        audit_share: of all tasks, in [0, 1].
    """
    return approval.provenance == Provenance.BLIND or (
        approval.provenance in REVIEWED and is_audit(project, approval.task, audit_share)
    )


def as_far_as_seen(
    approval: Approval, images: Sequence[str], embedded: Collection[str]
) -> Approval:
    """What an approval says of the images that can be had: its labels may be on the others.

    Args:
        approval: of a task.
        images: the task's.
        embedded: those that can be had, perhaps with images of other tasks.
    """
    if all(image in embedded for image in images):
        return approval
    states = tuple(UNKNOWN if state == POSITIVE else state for state in approval.states)
    return replace(approval, states=states)


def of_each_image(approvals: Sequence[Approval], scores: NDArray[np.float32]) -> list[Approval]:
    """What an approval of a task with several images says of each of them.

    A label that the task has is on one of its images at least: it counts for the one where it is
    likeliest, and is unknown on the others. One that the task lacks is on none.

    Args:
        approvals: one per image; those of one task follow each other.
        scores: (N, C) of the images.
    """
    by_image: list[Approval] = []
    for _, group in groupby(range(len(approvals)), key=lambda place: approvals[place].task):
        places = list(group)
        best = scores[places].argmax(0).tolist()
        for at, place in enumerate(places):
            states = tuple(
                UNKNOWN if state == POSITIVE and best[label] != at else state
                for label, state in enumerate(approvals[place].states)
            )
            by_image.append(replace(approvals[place], states=states))
    return by_image


def provenance_counts(approvals: Sequence[Approval]) -> dict[str, int]:
    """Provenance -> number of approvals."""
    return dict(sorted(Counter(approval.provenance for approval in approvals).items()))


def _vote(
    annotation: Mapping[str, Any],
    others: Mapping[int, Mapping[str, Any]],
    control: Control,
    past: Past,
    shown: Shown,
) -> Approval | None:
    """What one annotation says; all states are unknown if its annotator did not see the control.

    None if it says nothing of the control for another reason.
    """
    result = annotation.get("result") or []
    keys = control.chosen(result)
    if keys is None:
        # The control was of another kind then, or on another image.
        return None
    chosen = known_keys(keys, control)
    provenance = provenance_of(annotation, others, chosen, control, shown)
    if provenance is None:
        return None
    when = _when(annotation)
    created = unix_time(annotation, "created_at", "updated_at") or 0.0
    ticks = past.config.ticks(result)
    if not control.is_shown(ticks):
        return Approval(0, (UNKNOWN,) * len(control.labels), provenance, when, created)
    only_present = provenance in PARTIAL or (
        when < past.began and _is_of_another_config(ticks, keys, control, past)
    )
    states = []
    for label in control.labels:
        if label.key in chosen:
            states.append(POSITIVE)
        elif not label.is_shown(ticks) or only_present or when < past.since.get(label.key, 0.0):
            states.append(UNKNOWN)
        else:
            states.append(NEGATIVE)
    if not any(states):
        # An import without our control.
        return None
    return Approval(0, tuple(states), provenance, when, created)


def _is_of_another_config(ticks: Ticks, keys: Iterable[str], control: Control, past: Past) -> bool:
    """Whether an annotation selects something that no config that we know of offers.

    That may be one of today's labels under another name, which is then not absent.
    """
    labels = {label.key for label in control.labels} | set(control.hidden)
    return bool(set(keys) - labels - past.former or ticks.keys() - past.config.names)


def _person(annotation: Mapping[str, Any]) -> Any:
    person = annotation.get("completed_by")
    return person.get("id") if isinstance(person, Mapping) else person


def _when(annotation: Mapping[str, Any]) -> float:
    """Unix time of its last change; 0 if it has none.

    Marking it as the ground truth is a change to Label Studio, though nobody need look at the form
    for that; so of such an annotation only the time of its creation is sure.
    """
    names = ("updated_at", "created_at")
    if annotation.get("ground_truth"):
        names = ("created_at", "updated_at")
    return unix_time(annotation, *names) or 0.0
