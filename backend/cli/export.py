"""The command ``ls-clip export``."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from backend.cli.console import LEFT_OUT_CODE, ProjectArgument, configured, console, plain
from backend.cli.progress import progress_bar
from backend.errors import SettingsError, counted, with_verb

if TYPE_CHECKING:
    from backend.projects.export.export import Request, Written
    from backend.projects.label_states import State

export_app = typer.Typer()

NEAR = 0.92
"""The cosine from which on images are near-duplicates: photos that are scaled, compressed again or
cropped a little are above it, other photos of COCO below 0.82, with the offline encoder."""
_LARGE_SHARE = 0.5
"""A group of near-duplicates with more of the images than this is said to be large ..."""
_LARGE_SIZE = 20
"""... if it has so many."""

Choice = TypeVar("Choice", bound=StrEnum)


@export_app.command()
def export(
    project: ProjectArgument,
    *,
    format_name: Annotated[
        str, typer.Option("--format", help="csv, parquet, coco, imagefolder or labelstudio.")
    ] = "csv",
    rows: Annotated[
        str | None,
        typer.Option(
            help="What a row of csv and parquet is: label, the default, or image, with a column "
            "per label."
        ),
    ] = None,
    include: Annotated[
        str | None,
        typer.Option(
            help="human, the default: no suggestions; human,pseudo: suggestions too, for labels "
            "that nobody has looked at."
        ),
    ] = None,
    states: Annotated[
        str | None,
        typer.Option(
            help="Only labels in these states, instead of --include: some of approved, known, "
            "pseudo and unknown, e.g. approved,known."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file, or folder; default: project-N.csv and so on.")
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images", help="Copy the images beside the file, with their first names."),
    ] = False,
    sizes: Annotated[
        bool | None,
        typer.Option(
            "--sizes/--no-sizes",
            help="Fetch the images for their width and height; default: only for coco.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split the images, near-duplicates together: shares of training, validation and "
            "test, e.g. 80/10/10."
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            help="The file that keeps which image is in which split; default: "
            "project-N.splits.csv beside the output."
        ),
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            min=0.5, max=1.0, help="Images are near-duplicates from this cosine on, with --split."
        ),
    ] = NEAR,
    encoder: Annotated[
        str | None, typer.Option(hidden=True, help="Not needed any more, and ignored.")
    ] = None,
) -> None:
    """Write a project's labels with their state, probability, provenance and version.

    Label Studio and the store are only read. Exits with 1 if an image that was needed could not be
    had, and with 3 if answers were left out; the file is written nevertheless.
    """
    settings = configured()
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.export.export import SUFFIXES, Format, Request, RowsPer
    from backend.projects.export.export import export as run
    from backend.projects.export.splits import Shares

    chosen = _choice(Format, format_name, "--format")
    is_table = chosen in {Format.CSV, Format.PARQUET}
    per = RowsPer.LABEL if is_table else RowsPer.IMAGE
    if rows is not None:
        per = _choice(RowsPer, rows, "--rows")
        if not is_table and per == RowsPer.LABEL:
            raise SettingsError(
                f"--format {chosen} has no rows of labels.", "Give --format csv or parquet."
            )
    if images and chosen == Format.LABELSTUDIO:
        raise SettingsError(
            "--images does not go with --format labelstudio: its tasks keep their addresses.",
            "Give another format, e.g. --format csv.",
        )
    if split is None and splits is not None:
        raise SettingsError("--splits has no use without --split.", "Add --split 80/10/10.")
    for option, given in (("--output", output), ("--splits", splits)):
        if given is not None and given.name in {"", ".."}:
            raise SettingsError(
                f"{option} names no file: {given}.",
                f"Give the name of a file with {option}, e.g. {option} out.csv.",
            )
    path = output or Path(f"project-{project}.{SUFFIXES[chosen]}")
    request = Request(
        project=project,
        format=chosen,
        rows=per,
        states=_states(include, states),
        path=path,
        images=images or chosen == Format.IMAGEFOLDER,
        sizes=chosen == Format.COCO if sizes is None else sizes,
        shares=None if split is None else Shares.parse(split),
        near=near,
        splits=splits or path.with_name(f"project-{project}.splits.csv"),
    )
    if split is not None and request.splits.absolute() == path.absolute():
        raise SettingsError(
            f"{path} cannot hold both the export and the splits.",
            "Give another file with --output or --splits.",
        )
    studio = LabelStudioClient(settings)
    with progress_bar() as progress:
        written = run(settings, studio, request, progress)
    _tell(request, written)
    if written.missing.count:
        raise typer.Exit(1)
    if written.unread:
        raise typer.Exit(LEFT_OUT_CODE)


def _choice(kind: type[Choice], value: str, option: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise SettingsError(f"{option} {value} is not known.", f"Give one of: {known}.") from None


def _states(include: str | None, states: str | None) -> tuple[State, ...]:
    """The states that are asked for, in the order of `State`."""
    from backend.projects.label_states import State

    if include is not None and states is not None:
        raise SettingsError("--include and --states say the same thing.", "Give one of them.")
    if states is not None:
        asked = {part.strip() for part in states.split(",")}
        if not asked <= {*State}:
            raise SettingsError(
                f"--states {states} is not known.",
                f"Give some of {', '.join(State)}, with commas between them.",
            )
        return tuple(state for state in State if state in asked)
    parts = {part.strip() for part in (include or "human").split(",")}
    if "human" not in parts or parts - {"human", "pseudo"}:
        raise SettingsError(f"--include {include} is not known.", "Give human or human,pseudo.")
    return tuple(state for state in State if state != State.PSEUDO or "pseudo" in parts)


def _tell(request: Request, written: Written) -> None:
    """Say what was written, and what was not."""
    tally = written.tally
    labels = ", ".join(f"{number} {state}" for state, number in sorted(tally.states.items()))
    console.print(
        f"{with_verb(tally.tasks, 'task', 'was', 'were').capitalize()} written to "
        f"{plain(str(request.path))}; labels: {labels or 'none'}.",
        highlight=False,
    )
    if tally.imported:
        came = "its annotations" if tally.imported == 1 else "their annotations"
        console.print(
            f"{counted(tally.imported, 'task')} came with {came}: nothing is known to be absent "
            "there.",
            highlight=False,
        )
    for count, lack in (
        (tally.no_image, "without an image"),
        (tally.no_label, "without a label in the states that are asked for"),
    ):
        if count:
            console.print(f"Left out: {counted(count, 'task')} {lack}.", highlight=False)
    for reason, count in written.unread.items():
        console.print(
            f"Left out: {plain(reason)} {with_verb(count, 'task', 'has', 'have')} answers there; "
            "--format labelstudio keeps them.",
            highlight=False,
        )
    if written.splits is not None:
        _tell_splits(request, written)
    missing = written.missing
    if missing.count:
        what = "left out" if request.images else "without width and height"
        console.print(
            f"[yellow]{counted(missing.count, 'image')} could not be had, {what}:[/]",
            highlight=False,
        )
        for task, reason in missing.reasons.items():
            console.print(f"  task {task}: {plain(reason)}", highlight=False)


def _tell_splits(request: Request, written: Written) -> None:
    from backend.projects.export.splits import Split

    splits = written.splits
    assert splits is not None
    parts = ", ".join(f"{n} {name}" for name, n in sorted(written.tally.splits.items()))
    console.print(
        f"Images by split: {parts or 'none'}. {plain(str(request.splits))} keeps them: with it, "
        "every later export gives the same image the same split.",
        highlight=False,
    )
    aside = Counter(splits.splits.of.values())[Split.ASIDE]
    if aside:
        console.print(
            f"Set aside: {counted(aside, 'image')} near to images of different splits.",
            highlight=False,
        )
    if splits.not_embedded:
        console.print(
            f"[yellow]Note:[/] {counted(splits.not_embedded, 'image')} not embedded, so that their "
            f"near-duplicates cannot be told: ls-clip predict {request.project} first.",
            highlight=False,
        )
    total = len(splits.splits.of)
    if splits.splits.largest >= max(_LARGE_SIZE, _LARGE_SHARE * total):
        console.print(
            f"[yellow]Note:[/] {splits.splits.largest} of {counted(total, 'image')} count as "
            "near-duplicates of each other, and are in one split. Raise --near if they differ.",
            highlight=False,
        )
