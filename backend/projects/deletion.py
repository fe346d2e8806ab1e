"""Deleting predictions in Label Studio, on purpose and with its price said.

Label Studio deletes about 200 predictions a second and holds the database's write lock meanwhile,
so nothing else here ever deletes any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.labelstudio.client import LabelStudioClient

PER_SECOND = 200.0
"""Predictions that Label Studio deletes by version."""
PER_SECOND_SINGLY = 8.0


@dataclass(frozen=True)
class DeletionPlan:
    """What is to be deleted.

    Attributes:
        version: all predictions of this version, or None.
        count: how many.
        single: ids of predictions that are deleted one by one.
    """

    version: str | None
    count: int
    single: Sequence[int]

    @property
    def seconds(self) -> float:
        """About how long Label Studio takes."""
        return (self.count - len(self.single)) / PER_SECOND + len(self.single) / PER_SECOND_SINGLY


def plan_deletion(
    studio: LabelStudioClient, project: int, version: str | None, duplicates: bool
) -> DeletionPlan:
    """What these options would delete.

    Args:
        studio: the Label Studio.
        project: its number.
        version: all of this version.
        duplicates: of predictions of one task and version all but the oldest.

    Raises:
        StudioError: Label Studio cannot be asked.
    """
    by_version = 0 if version is None else studio.predictions.versions(project).get(version, 0)
    single: list[int] = []
    if duplicates:
        seen: set[tuple[int, str]] = set()
        for item in sorted(studio.predictions.of_project(project), key=lambda one: int(one["id"])):
            key = (int(item["task"]), str(item["model_version"]))
            if key in seen and item["model_version"] != version:
                single.append(int(item["id"]))
            seen.add(key)
    return DeletionPlan(version if by_version else None, by_version + len(single), single)


def delete(studio: LabelStudioClient, project: int, what: DeletionPlan) -> int:
    """Delete; returns how many predictions are gone.

    Raises:
        StudioError: Label Studio refuses.
    """
    for number in what.single:
        studio.predictions.delete(number)
    if what.version is not None:
        studio.predictions.delete_version(project, what.version)
    return what.count
