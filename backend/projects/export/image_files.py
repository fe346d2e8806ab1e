"""The image files of an export: their sizes, and copies of them beside the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from backend.errors import ImageError
from backend.images.decoder import Decoder
from backend.images.refusals import readable_format
from backend.images.validators import UNKNOWN
from backend.inference.image_source import image_source
from backend.projects.export.names import FileNames
from backend.projects.export.rows import ExportedImage, ExportedTask
from backend.settings import Settings

_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "HEIC": ".heic",
}
MOST_NAMED = 5
"""Images that cannot be had of which the reason is kept."""


@dataclass(frozen=True)
class _File:
    data: bytes
    size: tuple[int, int]


class ImageFiles:
    """Fetches images, some at once, for their sizes and to copy them. Use it as a context manager.

    Args:
        settings: as for a run; ``fetch_workers`` images are fetched at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._source = image_source(settings)
        self._decoder = Decoder(settings)
        self._workers = settings.fetch_workers
        self._pool = ThreadPoolExecutor(settings.fetch_workers, "export")

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._decoder.close()

    def of(self, tasks: Iterable[ExportedTask]) -> Iterator[tuple[ExportedTask, list[_Outcome]]]:
        """The tasks, in order, each with what was fetched of its images, or why it cannot be had.

        Raises:
            ClipError: Label Studio cannot be asked.
        """
        iterator = iter(tasks)
        # Only so many files are in memory at once.
        while part := list(islice(iterator, 2 * self._workers)):
            images = [image for task in part for image in task.images]
            outcomes = self._pool.map(self._outcome, images)
            for task in part:
                yield task, [*islice(outcomes, len(task.images))]

    def _outcome(self, image: ExportedImage) -> _Outcome:
        try:
            file = self._source.fetch_file(image.source, UNKNOWN)
            assert file is not None
            return _File(file.data, self._decoder.size(file.data))
        except ImageError as error:
            return error


_Outcome = _File | ImageError


@dataclass
class Missing:
    """Images that could not be had.

    Attributes:
        count: how many.
        reasons: task id -> why, of the first few.
    """

    count: int = 0
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, task: int, error: ImageError) -> None:
        """Count one."""
        self.count += 1
        if len(self.reasons) < MOST_NAMED:
            self.reasons[task] = str(error)


def with_sizes(
    tasks: Iterable[ExportedTask], files: ImageFiles, missing: Missing
) -> Iterator[ExportedTask]:
    """The tasks with the sizes of their images; an image that cannot be had stays without one."""
    for task, outcomes in files.of(tasks):
        images = []
        for image, outcome in zip(task.images, outcomes, strict=True):
            if isinstance(outcome, ImageError):
                missing.add(task.task, outcome)
                images.append(image)
            else:
                images.append(_sized(image, outcome))
        yield replace(task, images=tuple(images))


@dataclass(frozen=True)
class Copies:
    """Where copies of images go.

    Attributes:
        folder: that is filled.
        prefix: what the rows put before a file's path within the folder.
        by_split: whether each split has a folder of its own.
    """

    folder: Path
    prefix: str = ""
    by_split: bool = False


def with_copies(
    tasks: Iterable[ExportedTask], files: ImageFiles, copies: Copies, missing: Missing
) -> Iterator[ExportedTask]:
    """The tasks with copies of their images; an image that cannot be had is left out.

    Raises:
        OSError: a copy cannot be written.
    """
    names = FileNames(flat=copies.by_split)
    for task, outcomes in files.of(tasks):
        images = []
        for image, outcome in zip(task.images, outcomes, strict=True):
            if isinstance(outcome, ImageError):
                missing.add(task.task, outcome)
                continue
            suffix = _SUFFIXES.get(readable_format(outcome.data) or "", "")
            name = names.take(image.name, task.task, suffix)
            path = copies.folder / _folder(image, copies) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(outcome.data)
            images.append(replace(_sized(image, outcome), file_name=f"{copies.prefix}{name}"))
        yield replace(task, images=tuple(images))


def _folder(image: ExportedImage, copies: Copies) -> str:
    if not copies.by_split:
        return ""
    return "train" if image.split is None else image.split.value


def _sized(image: ExportedImage, file: _File) -> ExportedImage:
    return replace(image, width=file.size[0], height=file.size[1])
