"""A folder of labelled images: ``images/`` and ``labels.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import ImageError, ImageReason, SettingsError
from backend.images.validators import FetchedFile, Validators
from backend.labels.config import LabelConfig, config_of_labels


@dataclass(frozen=True)
class LabelledFolder:
    """What the folder's ``labels.json`` says.

    Attributes:
        path: of the folder.
        classes: the label names, each once.
        labels_of: file name below ``images/`` -> its labels.
    """

    path: Path
    classes: Sequence[str]
    labels_of: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> LabelledFolder:
        """Read ``{"classes": [label, ...], "images": {file: [label, ...]}}``.

        Raises:
            SettingsError: the folder is not of this form.
        """
        labels = path / "labels.json"
        try:
            content = json.loads(labels.read_text())
            classes, images = list(content["classes"]), dict(content["images"])
            words = [*classes, *(label for chosen in images.values() for label in chosen)]
            if not all(isinstance(word, str) for word in words) or len(set(classes)) < len(classes):
                raise ValueError("labels must be strings, and each class listed once")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{labels} cannot be used: {error}.",
                'Write {"classes": [label, ...], "images": {file: [label, ...]}}, photos in '
                "images/.",
            ) from error
        unknown = {label for chosen in images.values() for label in chosen} - set(classes)
        if unknown or not classes or not images:
            raise SettingsError(
                f"{labels} has no images, or labels that are not among its classes: "
                f"{', '.join(sorted(unknown)[:5])}.",
                "List every label under classes.",
            )
        return cls(path, classes, images)

    @property
    def names(self) -> list[str]:
        """The file names, in the order in which they are measured."""
        return sorted(self.labels_of)

    @property
    def config(self) -> LabelConfig:
        """A config with one control that has the folder's labels."""
        return config_of_labels(self.classes)

    def address(self, name: str) -> str:
        """``file:PATH#SIZE-TIME``: a changed file has another address."""
        path = (self.path / "images" / name).absolute()
        try:
            stat = path.stat()
        except OSError:
            return f"file:{path}#missing"
        return f"file:{path}#{stat.st_size}-{stat.st_mtime_ns}"

    def truth(self, names: Sequence[str]) -> torch.Tensor:
        """Whether each of N files has each of the C labels: boolean (N, C)."""
        rows = [[label in self.labels_of[name] for label in self.classes] for name in names]
        return torch.tensor(rows, dtype=torch.bool).reshape(len(names), len(self.classes))

    def no_image(self) -> SettingsError:
        """The error where not one of the images can be used."""
        return SettingsError(
            f"No image of {self.path} can be read.", "See images/ and labels.json."
        )


class FolderFiles:
    """Reads the files of a labelled folder by address, see `LabelledFolder.address`.

    Args:
        max_bytes: a larger file is refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        """The file at this address.

        Raises:
            ImageError: it is too large or cannot be read.
        """
        path = Path(value.removeprefix("file:").rpartition("#")[0])
        try:
            if path.stat().st_size > self._max_bytes:
                raise ImageError(
                    ImageReason.TOO_LARGE, f"{path} is too large.", "LS_CLIP_MAX_IMAGE_BYTES."
                )
            return FetchedFile(path.read_bytes())
        except OSError as error:
            raise ImageError(
                ImageReason.NOT_FOUND,
                f"{path} cannot be read: {error.strerror}.",
                "Check labels.json.",
            ) from error
