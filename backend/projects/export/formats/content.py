"""What every format is told of an export, and how it names labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.projects.export.rows import ExportedTask
from backend.projects.label_states import State

LabelKey = tuple[str, str]
"""Name of a control, and key of one of its labels."""


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        project: number of the project.
        labels: of all images, in the config's order.
        states: the states that are in the file.
        version: the model version that the project shows; empty for none.
        known_field: of the tasks' data with labels known beforehand; empty for none.
    """

    project: int
    labels: Sequence[LabelKey]
    states: Sequence[State]
    version: str
    known_field: str

    def columns(self, taken: Collection[str]) -> dict[LabelKey, str]:
        """A column name for each label: the label, with its control where that alone is not clear.

        Args:
            taken: names that other columns have.
        """
        count = Counter(label for _, label in self.labels)
        used = set(taken)
        names = {}
        for control, label in self.labels:
            name = label if count[label] == 1 and label not in used else f"{control}/{label}"
            while name in used:
                name += "_"
            used.add(name)
            names[control, label] = name
        return names


class Writer(Protocol):
    """Writes a file, or fills a folder that is there."""

    def __call__(self, tasks: Iterable[ExportedTask], path: Path, content: Content) -> None:
        """Write tasks as they come.

        Raises:
            OSError: they cannot be written.
        """
