"""Exports a project: reads it, splits it, copies its images, and writes the file.

Label Studio and the store are only read, and no encoder is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from backend.labels.controls import Control
from backend.labelstudio.client import LabelStudioClient
from backend.logs import Progress
from backend.projects.export.collecting import exported
from backend.projects.export.files import Target, drafts, reserved
from backend.projects.export.formats import coco, csv_file, imagefolder, labelstudio, parquet
from backend.projects.export.formats.content import Content, Writer
from backend.projects.export.image_files import (
    Copies,
    ImageFiles,
    Missing,
    with_copies,
    with_sizes,
)
from backend.projects.export.other_results import OtherResults
from backend.projects.export.rows import ExportedTask, Tally
from backend.projects.export.scores import KeptScores
from backend.projects.export.splits import Shares, Split, SplitFile
from backend.projects.export.survey import (
    ProjectSplits,
    config_labels,
    split_project,
    survey,
)
from backend.projects.label_states import State
from backend.settings import Settings
from backend.storage.installations import existing_store
from backend.storage.project_state import ProjectState
from backend.training.pulling import pull


class Format(StrEnum):
    """What can be written."""

    CSV = "csv"
    PARQUET = "parquet"
    COCO = "coco"
    IMAGEFOLDER = "imagefolder"
    LABELSTUDIO = "labelstudio"


class RowsPer(StrEnum):
    """What a row of a table is about."""

    LABEL = "label"
    IMAGE = "image"


SUFFIXES = {
    Format.CSV: "csv",
    Format.PARQUET: "parquet",
    Format.COCO: "coco.json",
    Format.IMAGEFOLDER: "imagefolder",
    Format.LABELSTUDIO: "json",
}
"""How the names of files end that are not named otherwise."""
WRITERS: Mapping[tuple[Format, RowsPer], Writer] = {
    (Format.CSV, RowsPer.LABEL): csv_file.write_labels,
    (Format.CSV, RowsPer.IMAGE): csv_file.write_images,
    (Format.PARQUET, RowsPer.LABEL): parquet.write_labels,
    (Format.PARQUET, RowsPer.IMAGE): parquet.write_images,
    (Format.COCO, RowsPer.IMAGE): coco.write,
    (Format.IMAGEFOLDER, RowsPer.IMAGE): imagefolder.write,
    (Format.LABELSTUDIO, RowsPer.IMAGE): labelstudio.write,
}


@dataclass(frozen=True)
class Request:
    """What is to be exported, and how.

    Attributes:
        project: its number.
        format: of the file.
        rows: what a row is about; formats that are no tables know images only.
        states: labels in other states are left out, and images that then have none.
        path: of the file, or of the folder.
        images: whether images are copied.
        sizes: whether width and height are found out, for which images are fetched.
        shares: of the splits; None: not split.
        near: the cosine from which on images are near-duplicates.
        splits: the file that keeps the splits.
    """

    project: int
    format: Format
    rows: RowsPer
    states: tuple[State, ...]
    path: Path
    images: bool = False
    sizes: bool = False
    shares: Shares | None = None
    near: float = 1.0
    splits: Path = Path()

    @property
    def images_folder(self) -> Path:
        """Where copies of images go that have a folder of their own."""
        return self.path.with_name(f"{self.path.stem}-images")


@dataclass(frozen=True)
class Written:
    """What an export has written.

    Attributes:
        tally: tasks, labels and splits.
        missing: images that could not be had.
        splits: None where it was not split.
        unread: why answers of people are not in it -> how many tasks have such answers.
    """

    tally: Tally
    missing: Missing
    splits: ProjectSplits | None
    unread: Mapping[str, int] = field(default_factory=dict)


def export(
    settings: Settings, studio: LabelStudioClient, request: Request, progress: Progress
) -> Written:
    """Write what a request asks for.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        SettingsError: it cannot be written, or there are no suggestions that were asked for.
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    targets = _targets(request)
    # From before the splits are read: what another export gave would be lost.
    with reserved(targets):
        return _export(settings, studio, request, targets, progress)


def _export(
    settings: Settings,
    studio: LabelStudioClient,
    request: Request,
    targets: Sequence[Target],
    progress: Progress,
) -> Written:
    before = SplitFile(request.splits) if request.shares is not None else None
    total = int(studio.projects.get(request.project)["task_number"])
    store = existing_store(settings)
    progress("reading what was approved", 0, 1)
    keeps = request.format == Format.LABELSTUDIO
    others = OtherResults(kept=keeps and State.APPROVED in request.states)
    share = settings.blind_share
    pulled = pull(
        studio, store, request.project, share, notes=False, skipped=True, look=others.look
    )
    version = str(studio.projects.get(request.project)["model_version"] or "")
    known_field = ProjectState(store, pulled.key).known_field()
    scores = KeptScores(store, pulled, version, known_field)
    pseudo = State.PSEUDO in request.states
    if pseudo:
        scores.require(request.project)
    progress("reading what was approved", 1, 1)
    labels, splits = config_labels(pulled.config), None
    if request.shares is not None or _needs_labels(request, pulled.config.controls):
        progress("looking at the images", 0, 1)
        found = survey(studio, request.project, pulled.config, settings.label_studio_url)
        labels = [*found.labels]
        if request.shares is not None and before is not None:
            splits = split_project(found, store, request.shares, request.near, before)
        progress("looking at the images", 1, 1)
    tally, missing = Tally(), Missing()
    tasks: Iterable[ExportedTask] = exported(
        studio, request.project, pulled, scores, pseudo=pseudo, others=others.of
    )
    tasks = _chosen(_shown(tasks, total, progress), request, tally)
    if splits is not None:
        tasks = _split(tasks, splits, request)
    with ExitStack() as stack:
        stack.enter_context(drafts(targets))
        if request.images or request.sizes:
            files = stack.enter_context(ImageFiles(settings))
            tasks = (
                with_copies(tasks, files, _copies(request), missing)
                if request.images
                else with_sizes(tasks, files, missing)
            )
        content = Content(request.project, labels, request.states, version, known_field)
        writer = WRITERS[request.format, request.rows]
        writer(_counted(tasks, tally), _main_target(request).draft, content)
        if before is not None and splits is not None:
            before.write(targets[-1].draft, splits.splits.of)
    return Written(tally, missing, splits, {} if keeps else others.tasks)


def _targets(request: Request) -> list[Target]:
    """What is written, in the order in which it gets its name.

    The splits come last: they may only be kept of an export that is there.
    """
    main = _main_target(request)
    targets = [main]
    if request.images and not main.is_folder:
        targets.insert(0, Target(request.images_folder, is_folder=True))
    if request.shares is not None:
        targets.append(Target(request.splits, option="--splits"))
    return targets


def _main_target(request: Request) -> Target:
    return Target(request.path, is_folder=request.format == Format.IMAGEFOLDER)


def _copies(request: Request) -> Copies:
    if request.format == Format.IMAGEFOLDER:
        return Copies(Target(request.path, is_folder=True).draft, by_split=True)
    folder = request.images_folder
    return Copies(Target(folder, is_folder=True).draft, f"{folder.name}/")


def _needs_labels(request: Request, controls: Iterable[Control]) -> bool:
    """Whether all labels have to be known before the first row, and tasks bring labels along."""
    is_wide = request.rows == RowsPer.IMAGE
    return is_wide and any(control.has_own_labels for control in controls)


def _shown(tasks: Iterable[ExportedTask], total: int, progress: Progress) -> Iterator[ExportedTask]:
    done = 0
    progress("writing", done, max(total, 1))
    for done, task in enumerate(tasks, start=1):
        yield task
        if done % 100 == 0 or done == total:
            progress("writing", done, max(total, done))


def _chosen(
    tasks: Iterable[ExportedTask], request: Request, tally: Tally
) -> Iterator[ExportedTask]:
    """The tasks with the labels that are asked for; those without any are counted."""
    for task in tasks:
        chosen = task.only(frozenset(request.states))
        if chosen.images:
            yield chosen
        elif task.images:
            tally.no_label += 1
        else:
            tally.no_image += 1


def _split(
    tasks: Iterable[ExportedTask], splits: ProjectSplits, request: Request
) -> Iterator[ExportedTask]:
    """The tasks with the splits of their images, without those that came since these were made."""
    of = {(image.task, image.image): split for image, split in splits.splits.of.items()}
    for task in tasks:
        images = (
            replace(image, split=of[image.task, image.image])
            for image in task.images
            if (image.task, image.image) in of
        )
        # A folder for what is set aside would be read by nobody.
        kept = tuple(
            image
            for image in images
            if request.format != Format.IMAGEFOLDER or image.split != Split.ASIDE
        )
        yield replace(task, images=kept)


def _counted(tasks: Iterable[ExportedTask], tally: Tally) -> Iterator[ExportedTask]:
    for task in tasks:
        if task.images:
            tally.add(task)
            yield task
