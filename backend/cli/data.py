"""The commands that import and export labels: import-archive, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.console import (
    EncoderOption,
    ProjectArgument,
    console,
    plain,
    progress_bar,
)
from backend.errors import SettingsError, counted
from backend.logs import configure_logging
from backend.settings import load_settings

if TYPE_CHECKING:
    from backend.labels.config import LabelConfig
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.archive import Archive

data_app = typer.Typer()


@data_app.command("import-archive")
def import_archive(
    project: ProjectArgument,
    source: Annotated[
        str,
        typer.Argument(
            help="A CSV file, a folder with one subfolder per label, or the number of an annotated "
            "project."
        ),
    ],
    image_column: Annotated[str, typer.Option(help="CSV column with image addresses.")] = "image",
    label_column: Annotated[str, typer.Option(help="CSV column with labels.")] = "label",
    field: Annotated[
        str | None,
        typer.Option(
            help="The field of the tasks' data that gets the labels; default: the project's field "
            "for labels known beforehand, or known_label."
        ),
    ] = None,
) -> None:
    """Create tasks from images that already have one label each and need more.

    The label is put into the task data, where suggestions and training use it; files of a folder
    are uploaded. Can be repeated: only missing tasks are created.
    """
    settings = load_settings()
    configure_logging(settings)
    from backend.labels.config import parse_config
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.projects.archive import SOURCE, import_entries, unknown_labels
    from backend.storage.project_state import ProjectState
    from backend.storage.store import Store

    if source == str(project):
        raise SettingsError(
            f"Project {project} cannot be an archive of itself.",
            "Its annotations are learned from as they are. Name another project.",
        )
    studio = LabelStudioClient(settings)
    described = studio.projects.get(project)
    project_state = ProjectState(Store(settings.store_uri), project_key(described))
    known_field = project_state.known_field()
    field = field if field is not None else known_field or "known_label"
    if known_field and field != known_field:
        raise SettingsError(
            f"Project {project} has its known labels in {known_field!r} already.",
            f"Leave --field out, or first: ls-clip connect {project} --known-label ''.",
        )
    config = parse_config(described["label_config"])
    config.require_controls()
    image_field = config.controls[0].image_field
    taken = {SOURCE, *(control.image_field for control in config.controls)}
    taken |= {control.options_field for control in config.controls if control.options_field}
    if not field or field in taken:
        raise SettingsError(
            f"--field {field!r} cannot hold the labels: it has another use.",
            "Give a name that neither the labeling config nor the archive uses.",
        )
    archive = _archive(studio, source, config, (image_column, label_column, image_field))
    for note in archive.notes:
        console.print(f"[yellow]Left out:[/] {plain(note)}", highlight=False)
    entries = archive.entries
    if not entries:
        raise SettingsError(
            f"{source} holds no image with a label.",
            "A CSV file has one row per image; a folder has one subfolder per label "
            "(ARCHIVE/cat/1.jpg, ARCHIVE/dog/2.jpg); a project has annotations.",
        )
    unknown = unknown_labels(entries, config)
    if unknown:
        raise SettingsError(
            f"{counted(len(unknown), 'label')} not in the labeling config: "
            f"{', '.join(unknown[:10])}.",
            "Add them (Settings > Labeling Interface), or take them out of the archive.",
        )
    with progress_bar() as progress:
        progress("making tasks", 0, 1)
        imported = import_entries(studio, project, entries, image_field, field)
    project_state.set_known_field(field)
    existing = len(entries) - imported.made
    console.print(f"{counted(imported.made, 'task')} made; {existing} were there already.")
    if imported.differ:
        console.print(
            f"[yellow]Note:[/] {counted(imported.differ, 'task')} that were there hold other "
            f"labels in {plain(repr(field))} than the archive, and were left as they are.",
            highlight=False,
        )
    console.print(f"Next: ls-clip connect {project}, or ls-clip predict {project}.")


def _archive(
    studio: LabelStudioClient, source: str, config: LabelConfig, fields: tuple[str, str, str]
) -> Archive:
    from backend.projects.archive import from_csv, from_folder, from_project

    if source.isascii() and source.isdigit():
        return from_project(studio, int(source), config)
    path = Path(source).expanduser()
    if path.is_dir():
        return from_folder(path)
    return from_csv(path, *fields)


@data_app.command()
def export(
    project: ProjectArgument,
    format_name: Annotated[
        str, typer.Option("--format", help="coco, csv, parquet or labelstudio.")
    ] = "csv",
    include: Annotated[
        str,
        typer.Option(
            help="human: approved and known labels; human,pseudo: suggestions too, for labels "
            "that nobody has looked at."
        ),
    ] = "human",
    output: Annotated[
        Path | None, typer.Option(help="The file; default: project-N.csv and so on.")
    ] = None,
    encoder: EncoderOption = None,
) -> None:
    """Write a project's labels with their state, probability, provenance and version.

    Nothing is fetched: images that are not embedded have no probability.
    """
    settings = load_settings(encoder=encoder)
    configure_logging(settings)
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.export import FORMATS, exported, write
    from backend.runtime import Runtime
    from backend.training.head_trainer import HeadTrainer

    if format_name not in FORMATS:
        raise SettingsError(
            f"--format {format_name} is not known.", f"Give one of: {', '.join(FORMATS)}."
        )
    parts = {part.strip() for part in include.split(",")}
    if "human" not in parts or parts - {"human", "pseudo"}:
        raise SettingsError(f"--include {include} is not known.", "Give human or human,pseudo.")
    path = output or Path(f"project-{project}.{FORMATS[format_name]}")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"There is no folder {path.absolute().parent}.", "Make it first.")
    studio = LabelStudioClient(settings)
    studio.projects.get(project)
    with progress_bar() as progress:
        progress("loading the encoder", 0, 1)
        runtime = Runtime(settings)
        progress("reading what was approved", 0, 1)
        pulled = HeadTrainer(settings, studio, runtime.versions, runtime.embedder).pull(project)
        progress("writing", 0, 1)
        tasks = exported(studio, runtime, project, pulled, "pseudo" in parts)
        written = write(format_name, tasks, path)
    labels = ", ".join(f"{number} {state}" for state, number in sorted(written.states.items()))
    console.print(
        f"{counted(written.tasks, 'task')} written to {path}; labels: {labels or 'none'}."
    )
