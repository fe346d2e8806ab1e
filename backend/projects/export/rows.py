"""What an export is made of: tasks, their images, and a state for each label of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from backend.labels.controls import Control
from backend.labels.label import Label
from backend.projects.export.splits import Split
from backend.projects.label_states import State
from backend.vlpl.decisions import Provenance


class Presence(StrEnum):
    """Whether a label is on the image."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LabelState:
    """One label of one image.

    Attributes:
        control: that has the label.
        label: of the control.
        state: how we know about it.
        presence: whether it is on the image.
        probability: in [0, 1]; None where no score is kept.
        provenance: how the task was reviewed (`Provenance`); empty where it was not.
        version: the model version of the probability; empty where there is none.
    """

    control: Control
    label: Label
    state: State
    presence: Presence
    probability: float | None = None
    provenance: str = ""
    version: str = ""


@dataclass(frozen=True)
class ExportedImage:
    """One image of a task: the row type behind every format.

    Attributes:
        task: the task's id.
        image: its address in the task's data; a ``data:`` URI is replaced by its hash.
        source: the address to fetch it from.
        name: what it was called before it came to Label Studio; slashes between folders.
        reviewed: whether a person decided about all of its labels that are predicted.
        labels: its labels, in the config's order; of the asked-for states only.
        file_name: of the copy, relative to the file or folder that names it; empty without one.
        width: of the upright image, in pixels; None where it was not asked for or cannot be had.
        height: as ``width``.
        split: None where the images are not split.
    """

    task: int
    image: str
    source: str
    name: str
    reviewed: bool
    labels: tuple[LabelState, ...]
    file_name: str = ""
    width: int | None = None
    height: int | None = None
    split: Split | None = None

    def keys(self, presence: Presence) -> list[tuple[str, str]]:
        """(control name, label key) of its labels with this presence."""
        return [
            (state.control.name, state.label.key)
            for state in self.labels
            if state.presence == presence
        ]


@dataclass(frozen=True)
class ExportedTask:
    """One task.

    Attributes:
        task: its id.
        data: as Label Studio has it.
        images: those with a label that is exported.
        others: of each annotation what else it holds, as it is; only for formats that keep it.
        score: its confidence as it is shown; None where it shows no prediction.
        version: the model version that the project shows; empty where it shows none.
    """

    task: int
    data: Mapping[str, Any]
    images: tuple[ExportedImage, ...]
    score: float | None = None
    version: str = ""
    others: Sequence[Sequence[Mapping[str, Any]]] = ()

    @property
    def labels(self) -> Iterator[LabelState]:
        """The labels of all its images."""
        return (state for image in self.images for state in image.labels)

    def only(self, states: Set[State]) -> ExportedTask:
        """The task with labels in these states, and without images that have none."""
        images = (
            replace(image, labels=tuple(one for one in image.labels if one.state in states))
            for image in self.images
        )
        return replace(self, images=tuple(image for image in images if image.labels or self.others))


@dataclass
class Tally:
    """What was written, counted while it is read.

    Attributes:
        tasks: tasks in the file.
        no_image: tasks left out because they have no image.
        no_label: tasks left out because no label is in the asked-for states.
        imported: tasks in the file whose annotations came with them, so that no label is known
            to be absent.
        states: labels by state.
        splits: images by split.
    """

    tasks: int = 0
    no_image: int = 0
    no_label: int = 0
    imported: int = 0
    states: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def add(self, task: ExportedTask) -> None:
        """Count a task that is written."""
        self.tasks += 1
        self.imported += any(one.provenance == Provenance.IMPORTED for one in task.labels)
        self.states.update(str(state.state) for state in task.labels)
        self.splits.update(str(image.split) for image in task.images if image.split is not None)
