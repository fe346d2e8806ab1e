"""Deletes predictions in Label Studio, after a plan that says how long it takes.

Label Studio deletes about 200 predictions per second and holds its database's write lock meanwhile,
so nothing else in this project deletes predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.labelstudio.client import LabelStudioClient

PER_SECOND = 200.0
"""Predictions per second that Label Studio deletes by version."""
PER_SECOND_SINGLY = 8.0
"""Predictions per second that Label Studio deletes one by one."""


@dataclass(frozen=True)
class DeletionPlan:
    """What is to be deleted.

    Attributes:
        version: all predictions of this version are deleted; None for no version.
        count: how many predictions are deleted.
        duplicates: ids of predictions that are deleted one by one.
    """

    version: str | None
    count: int
    duplicates: Sequence[int]

    @property
    def seconds(self) -> float:
        """About how long Label Studio takes."""
        singly = len(self.duplicates)
        return (self.count - singly) / PER_SECOND + singly / PER_SECOND_SINGLY


def plan_deletion(
    studio: LabelStudioClient, project: int, version: str | None, duplicates: bool
) -> DeletionPlan:
    """Plan a deletion; nothing is deleted yet.

    Args:
        studio: the Label Studio.
        project: its number.
        version: delete all predictions of this version; None for none.
        duplicates: delete all but the oldest of several predictions of one task and version.

    Raises:
        StudioError: Label Studio cannot be asked.
    """
    by_version = 0 if version is None else studio.predictions.versions(project).get(version, 0)
    doubles: list[int] = []
    if duplicates:
        seen: set[tuple[int, str]] = set()
        predictions = studio.predictions.of_project(project)
        for prediction in sorted(predictions, key=lambda prediction: int(prediction["id"])):
            key = (int(prediction["task"]), str(prediction["model_version"]))
            if key in seen and prediction["model_version"] != version:
                doubles.append(int(prediction["id"]))
            seen.add(key)
    return DeletionPlan(version if by_version else None, by_version + len(doubles), doubles)


def delete(studio: LabelStudioClient, project: int, plan: DeletionPlan) -> int:
    """Carry out a plan; returns how many predictions were deleted.

    Raises:
        StudioError: Label Studio refuses.
    """
    for number in plan.duplicates:
        studio.predictions.delete(number)
    if plan.version is not None:
        studio.predictions.delete_version(project, plan.version)
    return plan.count
