"""Random but fixed holdout tasks of a project: a hash decides, nothing is stored.

Blind tasks are shown without suggestions, so that quality and effort can be measured without
anchoring (suggestions sway reviewers, arXiv 2509.08514). Audit tasks are shown with them. Heads are
judged on both and trained on neither.
"""

from __future__ import annotations

import hashlib


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


def blind_score(project: str, task: int, model_version: str) -> float:
    """A random confidence for a blind task, so that Label Studio serves it among the others.

    Spread as the confidences of other tasks are: 1 / (1 + e) for e from 0 to 4 expected changes,
    small ones more often. In (0, 1], 6 digits.
    """
    changes = 4.0 * _fraction(f"score {model_version}", project, task) ** 2
    return round(1.0 / (1.0 + changes), 6)


def _fraction(purpose: str, project: str, task: int) -> float:
    """In [0, 1), evenly spread over tasks."""
    digest = hashlib.sha256(f"{purpose}/{project}/{task}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
