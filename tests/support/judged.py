"""A project on the stub Label Studio whose tasks are all reviewed, half of them judged."""

from __future__ import annotations

from backend.inference.holdout import is_audit, is_blind
from tests.support.stub_label_studio import KEY

TASKS = range(1, 41)
BLIND_SHARE, AUDIT_SHARE = 0.2, 0.5


def judged() -> list[int]:
    """Ids of the blind and the audit tasks."""
    return [
        task
        for task in TASKS
        if is_blind(KEY, task, BLIND_SHARE) or is_audit(KEY, task, AUDIT_SHARE)
    ]
