"""Random but fixed holdout tasks of a project: a hash decides, nothing is stored.

Blind tasks are shown without suggestions, so that quality and effort can be measured without
anchoring (suggestions sway reviewers, arXiv 2509.08514). Audit tasks are shown with them. Heads are
judged on both and trained on neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.storage.review_record import OrderPeriod, ReviewOrder, RoundRecord, order_at
from backend.vlpl.confidences import Confidences


@dataclass(frozen=True)
class Selection:
    """How a project's tasks come to be reviewed.

    Attributes:
        blind_share: share of blind tasks, in [0, 1].
        audit_share: share of audit tasks, in [0, 1].
        orders: the orders in which "Label All Tasks" served, oldest first.
        rounds: the rounds that the project's tab offered.
    """

    blind_share: float
    audit_share: float
    orders: Sequence[OrderPeriod] = ()
    rounds: RoundRecord = field(default_factory=RoundRecord)


def is_blind(project: str, task: int, share: float) -> bool:
    """Whether a task is shown without suggestions.

    Args:
        project: ``<id>.<unix time of creation>``.
        task: its id.
        share: of all tasks, in [0, 1].
    """
    return _fraction("blind", project, task) < share


def is_audit(project: str, task: int, share: float) -> bool:
    """Whether heads are judged on a task that is shown with suggestions; arguments as above."""
    return _fraction("audit", project, task) < share


def judged_share(blind_share: float, audit_share: float) -> float:
    """The share of all tasks that heads are judged on; all three are in [0, 1]."""
    return blind_share + (1.0 - blind_share) * audit_share


def is_random_pick(project: str, task: int, created: float, selection: Selection) -> bool:
    """Whether chance alone decided that a task was reviewed when it was.

    So its review is a fair sample of the project, on which heads may be judged: that of a blind or
    an audit task always, that of another one if tasks were served in random order at the time and
    this one was in no round that the coverage of images had chosen.

    Args:
        project: ``<id>.<unix time of creation>``.
        task: its id.
        created: unix time at which its annotation was made.
        selection: of the project.
    """
    if is_blind(project, task, selection.blind_share):
        return True
    if is_audit(project, task, selection.audit_share):
        return True
    is_random = order_at(selection.orders, created) is ReviewOrder.RANDOM
    return is_random and not selection.rounds.offered(task, created)


def blind_score(
    project: str, task: int, model_version: str, confidences: Confidences | None
) -> float:
    """A random confidence for a blind task, so that Label Studio serves it among the others.

    Spread as the confidences of the project's other tasks. While these are not measured: 1 / (1 +
    e) for e from 0 to 4 expected changes, small ones more often. In [0, 1], 6 digits.
    """
    share = _fraction(f"score {model_version}", project, task)
    if confidences is not None:
        return confidences.at(share)
    return round(1.0 / (1.0 + 4.0 * share**2), 6)


def _fraction(purpose: str, project: str, task: int) -> float:
    """In [0, 1), evenly spread over tasks."""
    digest = hashlib.sha256(f"{purpose}/{project}/{task}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
