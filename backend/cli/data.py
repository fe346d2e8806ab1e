"""The commands on a project's data: import-archive, export, prune, forget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.console import (
    EncoderOption,
    ProjectArgument,
    configured,
    console,
    plain,
)
from backend.cli.progress import progress_bar
from backend.cli.runs import run_store
from backend.errors import SettingsError, counted, with_verb

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
    settings = configured()
    from backend.labels.config import parse_config
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.projects.archive import SOURCE, import_entries, unknown_labels
    from backend.storage.installations import open_store
    from backend.storage.project_state import ProjectState

    if not source.strip():
        raise SettingsError(
            "SOURCE is empty.", "Give a CSV file, a folder, or the number of an annotated project."
        )
    if source == str(project):
        raise SettingsError(
            f"Project {project} cannot be an archive of itself.",
            "Its annotations are learned from as they are. Name another project.",
        )
    studio = LabelStudioClient(settings)
    described = studio.projects.get(project)
    project_state = ProjectState(open_store(settings), project_key(described))
    known_field = project_state.known_field()
    field = field if field is not None else known_field or "known_label"
    if known_field and field != known_field:
        raise SettingsError(
            f"Project {project} already has its known labels in {known_field!r}.",
            f"Leave --field out, or first: ls-clip connect {project} --known-label ''.",
        )
    config = parse_config(described["label_config"]).with_former(project_state.former_names())
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
    made = f"{with_verb(imported.made, 'task', 'was', 'were').capitalize()} made"
    before = f"; {existing} {'was' if existing == 1 else 'were'} there already" if existing else ""
    console.print(f"{made}{before}.")
    if imported.differ:
        differ = with_verb(imported.differ, "task", "holds", "hold")
        console.print(
            f"[yellow]Note:[/] {differ} other labels in {plain(repr(field))} than the archive, as "
            "before.",
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
    settings = configured(encoder=encoder)
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
        f"{with_verb(written.tasks, 'task', 'was', 'were').capitalize()} written to {path}; "
        f"labels: {labels or 'none'}."
    )


@data_app.command()
def prune(
    project: ProjectArgument,
    version: Annotated[
        str | None, typer.Option(help="Delete the predictions of this model version.")
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Delete all but one of several equal predictions.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete old predictions in Label Studio: the only command that deletes there.

    Without an option it lists the versions. Label Studio deletes about 200 per second, and nobody
    can submit during that time.
    """
    settings = configured()
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.deletion import delete, plan_deletion

    studio = LabelStudioClient(settings)
    shown = studio.projects.get(project)["model_version"]
    versions = studio.predictions.versions(project)
    if version is None and not duplicates:
        table = Table("model version", "predictions", "shown")
        for name, count in versions.items():
            table.add_row(name, str(count), "yes" if name == shown else "")
        Console().print(table)
        return
    if version is not None and version not in versions:
        raise SettingsError(
            f"Project {project} has no predictions of a version {version!r}.",
            f"ls-clip prune {project} lists the versions that it has.",
        )
    what = plan_deletion(studio, project, version, duplicates)
    if what.count == 0:
        console.print("There is nothing to delete.")
        return
    seconds = max(1, round(what.seconds))
    console.print(
        f"{counted(what.count, 'prediction')} of project {project} will be deleted in Label "
        f"Studio. That takes about {seconds} s, during which nobody can submit there. Which "
        "prediction an annotation came from is kept in our store, not in Label Studio."
    )
    if version == shown:
        console.print(
            f"[bold red]The project shows {plain(shown)}:[/] its tasks will open with nothing "
            f"ticked until ls-clip predict {project} or ls-clip connect {project} has run again.",
            highlight=False,
        )
    if not yes and not typer.confirm("Delete them?"):
        raise typer.Exit(1)
    console.print(f"{counted(delete(studio, project, what), 'prediction')} deleted.")


@data_app.command()
def forget(
    project: ProjectArgument,
    task: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Only this task; can be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase what is stored about a project or about some of its tasks.

    Erased are embeddings, image addresses, logged predictions, and task lists left over from runs;
    for a whole project also its heads and statistics, so that suggestions are zero-shot again and
    the next head is called h1. The field with the known labels, the date of each label and its
    former names are kept, and so are embeddings of images that another task uses too. Nothing in
    Label Studio is changed.
    """
    settings = configured()
    from backend.inference.task_images import LARGEST_ID
    from backend.storage.installations import open_store
    from backend.storage.prediction_log import PredictionLog
    from jobs import queue
    from jobs.run_files import FOLDER, erase_ended
    from jobs.training_state import TrainingStore

    if task and max(task) > LARGEST_ID:
        raise SettingsError(f"No task has the number {max(task)}.", "Give the task's id.")
    what = f"tasks {', '.join(map(str, task))}" if task else "all tasks and the heads"
    store = open_store(settings)
    prediction_log = PredictionLog(store)
    if task and not prediction_log.has(f"{project}.", task):
        console.print(f"Nothing is stored about project {project}, {what}.")
        return
    if not yes and not typer.confirm(f"Erase what is stored about project {project}, {what}?"):
        raise typer.Exit(1)
    gone = prediction_log.purge(f"{project}.", task or None)
    if gone.images or gone.predictions:
        heads = "" if task else ", its heads and statistics"
        erased = [
            f"embeddings of {counted(gone.images, 'image')}" if gone.images else "",
            counted(gone.predictions, "logged prediction") if gone.predictions else "",
        ]
        listed = ", ".join(part for part in erased if part)
        console.print(f"Erased: {listed}{heads}.", highlight=False)
        if not task:
            console.print(
                "Label Studio shows what it was given until "
                f"ls-clip predict {project} or ls-clip connect {project} has run."
            )
    else:
        console.print(f"Nothing is stored about project {project}, {what}.")
    if not settings.redis_url.get_secret_value():
        # Nobody else knows the runs of a store that has no queue.
        store.artifacts.erase(FOLDER, lambda _: True)
        return
    with queue.explained():
        erase_ended(store.artifacts, run_store(settings))
        if not task:
            TrainingStore(queue.connect(settings)).purge(project)
