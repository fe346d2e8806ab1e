"""What is asked of a reader: the project that gets the tasks, and how its archive is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.projects.archives.spelling import LabelNames


@dataclass(frozen=True)
class ArchiveRequest:
    """The project that gets the tasks, and the options of the import.

    Attributes:
        config: of the project; it has a control.
        studio_path: the path of Label Studio's address; mostly empty.
        image_column: the column or field with the image; empty: the usual ones are tried.
        label_columns: columns, fields or controls with labels; empty: the usual ones are tried.
        separators: the characters between labels in one cell; empty: a cell is one label.
        known_field: of the tasks' data, which gets the labels; empty: it is not asked about.
        images: the folder or the address that file names are relative to; empty: none is named.
        encoding: of a text file; None: UTF-8, or UTF-16 with a mark.
    """

    config: LabelConfig
    studio_path: str = ""
    image_column: str = ""
    label_columns: tuple[str, ...] = ()
    separators: str = ""
    known_field: str = ""
    images: str = ""
    encoding: str | None = None

    @property
    def image_field(self) -> str:
        """The task-data field of the labeling config that holds the image."""
        return self.config.controls[0].image_field

    @property
    def _asked(self) -> tuple[Control, ...]:
        return self.config.with_skipped().controls

    @cached_property
    def names(self) -> LabelNames:
        """The labels of the config by what they may be called."""
        return LabelNames(self.config.with_skipped())

    @property
    def label_names(self) -> tuple[str, ...]:
        """The controls, or what else is named instead, that have the labels."""
        return self.label_columns or tuple(control.name for control in self._asked)

    def control(self, name: str) -> Control | None:
        """The control of this name."""
        found = (control for control in self._asked if control.name == name)
        return next(found, None)
