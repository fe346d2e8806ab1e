"""The command import-archive."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.console import (
    LEFT_OUT_CODE,
    ProjectArgument,
    configured,
    console,
    is_interactive,
    plain,
    ways_to_predict,
)
from backend.cli.progress import progress_bar
from backend.errors import SettingsError, counted, with_verb

if TYPE_CHECKING:
    from backend.projects.archives.rows import Archive
    from backend.projects.archives.spelling import LabelNames

archives_app = typer.Typer()


@archives_app.command("import-archive")
def import_archive(
    context: typer.Context,
    project: ProjectArgument,
    source: Annotated[
        str,
        typer.Argument(
            help="A CSV, TSV, JSON, JSON lines or Parquet file, an export of Label Studio, a COCO "
            "file, a folder with one subfolder per label or with metadata, or the number of an "
            "annotated project."
        ),
    ],
    *,
    image_column: Annotated[
        str | None,
        typer.Option(
            help="The column or field with image addresses; default: the project's field for the "
            "image, image or file_name."
        ),
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="The column, field or control with labels, can be repeated; default: label, those "
            "named like the project's controls, labels, or one column per label with 0 and 1."
        ),
    ] = None,
    separator: Annotated[
        str,
        typer.Option(
            help="The characters between several labels in a cell, such as ',' or ',;|'; default: "
            "a cell is one label."
        ),
    ] = "",
    images: Annotated[
        str,
        typer.Option(
            help="The folder or the address that file names are relative to; files are uploaded. "
            "Absolute paths are found below the folder by their ends."
        ),
    ] = "",
    encoding: Annotated[
        str | None,
        typer.Option(help="Of a text file that is neither UTF-8 nor marked, such as cp932."),
    ] = None,
    match_spelling: Annotated[
        bool,
        typer.Option(
            "--match-spelling",
            help="Take labels that differ from the project's in case, spacing or width only for "
            "these, without asking.",
        ),
    ] = False,
    skip_unknown_labels: Annotated[
        bool,
        typer.Option(
            "--skip-unknown-labels", help="Leave out labels that the project does not have."
        ),
    ] = False,
    field: Annotated[
        str | None,
        typer.Option(
            help="The field of the tasks' data that gets the labels; default: the project's field "
            "for labels known beforehand, or known_label."
        ),
    ] = None,
) -> None:
    """Create tasks from images that already have labels and need more.

    The labels are put into the task data, where suggestions and training use them; files of a
    folder are uploaded. Can be repeated: only missing tasks are created. Exits with 3 if something
    was left out.
    """
    settings = configured()
    from urllib.parse import urlsplit

    from backend.labels.config import parse_config
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.projects.archives.importing import import_rows, importing_alone
    from backend.projects.archives.keys import SOURCE
    from backend.projects.archives.reading import SOURCES, read_archive
    from backend.projects.archives.request import ArchiveRequest
    from backend.projects.archives.rows import Reason
    from backend.storage.installations import open_store
    from backend.storage.project_state import ProjectState

    if not source.strip():
        raise SettingsError("SOURCE is empty.", SOURCES)
    if source == str(project):
        raise SettingsError(
            f"Project {project} cannot be an archive of itself.",
            "Its annotations are learned from as they are. Name another project.",
        )
    studio = LabelStudioClient(settings)
    described = studio.projects.get(project)
    # Before the field of the labels is looked up, until the command ends.
    context.with_resource(importing_alone(studio, project))
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
    if not re.fullmatch(r"\w+", image_field):
        raise SettingsError(
            f"The address of project {project}'s images is {plain(repr(image_field))}, which is "
            "not one field of the tasks' data.",
            'Change the labeling config to <Image value="$image"/>; an import fills one field.',
        )
    asked = config.with_skipped().controls
    taken = {SOURCE, *(name for control in asked for name in control.data_fields)}
    if not field or field in taken:
        raise SettingsError(
            f"--field {field!r} cannot hold the labels: it has another use.",
            "Give a name that neither the labeling config nor the archive uses.",
        )
    request = ArchiveRequest(
        config,
        studio_path=urlsplit(studio.url).path,
        image_column=image_column or "",
        label_columns=tuple(label_column or ()),
        separators=separator,
        known_field=field,
        images=images,
        encoding=encoding,
    )
    archive = read_archive(source, request, studio)
    unlabelled = _about_unlabelled(source, ways_to_predict(settings, project))
    archive = _with_known_labels(
        archive, request.names, match_spelling, skip_unknown_labels, unlabelled
    )
    if archive.stripped:
        console.print(
            f"Paths are looked for below {plain(images)} without {plain(archive.stripped)}",
            highlight=False,
        )
    _print_left_out(archive)
    rows = archive.rows
    if not rows:
        raise SettingsError(
            f"{source} holds no image with a label.",
            "Name the folder that the file names are relative to, or that has the files of the "
            "paths: --images FOLDER."
            if {Reason.MISSING_FILE, Reason.AMBIGUOUS} & {*archive.left_out}
            else "A CSV file has one row per image; a folder has one subfolder per label "
            "(ARCHIVE/cat/1.jpg, ARCHIVE/dog/2.jpg); a project has annotations." + unlabelled,
        )
    # First: an import that breaks off leaves tasks whose labels count.
    project_state.set_known_field(field)
    with progress_bar() as progress:
        progress("making tasks", 0, 1)
        imported = import_rows(studio, project, rows, request.image_field, field)
    existing = len(rows) - imported.made
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
    if imported.made:
        console.print(f"Next: {ways_to_predict(settings, project)}.", highlight=False)
    if archive.is_incomplete:
        raise typer.Exit(LEFT_OUT_CODE)


def _about_unlabelled(source: str, commands: str) -> str:
    """What to do with photos in folders that are not called like labels; empty for no folder."""
    from backend.text_files import user_path

    if source.isdigit() or not user_path(source).is_dir():
        return ""
    return (
        " This command is for images whose labels are known: the folders are called like them. "
        f"Import photos without labels in Label Studio (Data Import), then run: {commands}"
    )


def _with_known_labels(
    archive: Archive, names: LabelNames, match_spelling: bool, skip_unknown: bool, unlabelled: str
) -> Archive:
    """The archive with labels of the project only; asks where a label is spelt in another way.

    Args:
        archive: as it was read.
        names: the project's labels.
        match_spelling: whether labels that are spelt in another way are taken without asking.
        skip_unknown: whether other labels are left out.
        unlabelled: to be said where labels are unknown.
    """
    from backend.projects.archives.spelling import respelled, unknown_labels, without_labels
    from backend.text_files import listed, shortened

    unknown = unknown_labels(archive, names)
    meant = dict(unknown.similar)
    if not match_spelling and is_interactive():
        for label, similar in unknown.similar.items():
            console.print(f"{plain(repr(shortened(label)))} is not in the labeling config.")
            if not typer.confirm(f"Did you mean {similar!r}?", err=True):
                del meant[label]
    elif not match_spelling and meant:
        pairs = listed(f"{label} (did you mean {similar}?)" for label, similar in meant.items())
        raise SettingsError(
            f"{counted(len(meant), 'label')} spelt in another way than in the labeling config: "
            f"{pairs}.",
            "If these are meant, repeat the command with --match-spelling.",
        )
    others = [*unknown.others, *(label for label in unknown.similar if label not in meant)]
    if others and not skip_unknown:
        fix = "Add them (Settings > Labeling Interface), or leave them out: --skip-unknown-labels."
        if any(character in label for label in others for character in ",;|"):
            fix += " Several labels in a cell: name what is between them, as in --separator ','."
        fix += unlabelled
        raise SettingsError(
            f"{counted(len(others), 'label')} not in the labeling config: {listed(others)}.", fix
        )
    return without_labels(respelled(archive, meant), others)


def _print_left_out(archive: Archive) -> None:
    """Print a line for each reason."""
    from backend.projects.archives.rows import Reason
    from backend.text_files import shortened

    sentences = {
        Reason.NO_IMAGE: "Rows without an image",
        Reason.NO_LABEL: "Rows or tasks without a label",
        Reason.SKIPPED: "Tasks that were skipped",
        Reason.NOT_SERVED: "Images that Label Studio cannot show",
        Reason.UNKNOWN_LABEL: "Labels that are not in the labeling config",
        Reason.NO_KNOWN_LABEL: "Images with no other label",
        Reason.DUPLICATE: "Rows that say nothing new",
        Reason.NOT_TEXT: "Names, addresses and tasks that are not Unicode (rename the files, or "
        "correct the text)",
        Reason.PAGES: "Tasks with several pages that would have to be uploaded (serve them: "
        "--images https://HOST/PATH)",
        Reason.NO_SUCH_IMAGE: "Annotations of images that the file does not list",
        Reason.MISSING_FILE: "Files that are not there",
        Reason.AMBIGUOUS: "Paths that do not lead to a file if the same is stripped of all (give "
        "the folder that all of them are below)",
        Reason.UNREADABLE_FILE: "Files that are empty or cannot be read",
        Reason.OUTSIDE: "Links and paths that lead out of the folder",
        Reason.OTHER_FORMAT: "Images in a format that Label Studio does not take (convert them to "
        "JPEG or PNG)",
        Reason.NOT_AN_IMAGE: "Files that are no images",
        Reason.LOOSE: "Images beside the folders of the labels",
        Reason.DEEPER: "Images in a folder below that of a label",
        Reason.UNLISTED: "Images that the metadata does not name",
        Reason.SYSTEM_FILE: "Files of the system",
    }
    for reason, left_out in archive.left_out.items():
        there = left_out.elsewhere and f" (there is {shortened(left_out.elsewhere)})"
        console.print(
            f"[yellow]Left out:[/] {sentences[reason]}: {left_out.count}, e.g. "
            f"{plain(shortened(left_out.example))}{plain(there)}.",
            highlight=False,
        )
