"""``ls-clip suggest``, and what it prints and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from csv import writer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.console import (
    EncoderOption,
    JsonOption,
    configured,
    console,
    plain,
    reserved,
)
from backend.cli.contact_sheet import PAGE_IMAGES, contact_sheet, explained, percent
from backend.cli.progress import progress_bar
from backend.errors import SettingsError, counted
from backend.images.image_files import find_images
from backend.text_files import shortened

if TYPE_CHECKING:
    from backend.inference.suggestion import Suggestion, Suggestions
    from backend.labels.config import LabelConfig
    from backend.messages.catalogue import Language

suggest_app = typer.Typer()

LIKELIEST = 5
"""Labels that the table shows of each image, with their probabilities."""


@suggest_app.command()
def suggest(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders (with those below), or patterns in quotes: "
            '"photos/**/*.jpg".'
        ),
    ],
    *,
    labels: Annotated[
        str | None,
        typer.Option(help='Comma-separated, "dog,cat,bicycle", or a file with one label per line.'),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with the columns label and prompt: what the encoder reads in place of "
            'a label, e.g. "a photo of a dog|a puppy". Gives the labels, too, where --labels '
            "does not."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Suggest labels from this probability on; default: the encoder's."
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Also write all probabilities to this CSV file, which must not exist."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page with the images and their labels to this file, which must not "
            "exist. It holds small copies of the images and needs no other file."
        ),
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Suggest labels for image files, without Label Studio.

    Each image is taken to have one of the labels at least. A probability depends on how many labels
    are listed: the more there are, the less likely is each.
    """
    settings = configured(encoder=encoder, threshold=threshold)
    config = _config(labels, prompts)
    images = find_images(photos)
    _print_left_out(images.left_out)
    missing = {file: error for file, error in images.files.items() if error is not None}
    if len(missing) == len(images.files):
        # At once: to import the encoder takes longer than to see that there is nothing for it.
        from backend.inference.suggestion import Suggestion, Suggestions, printable

        of_files = [Suggestion(printable(file), error=error) for file, error in missing.items()]
        _print(Suggestions(of_files, (), None, settings.encoder), as_json=as_json)
        raise typer.Exit(1)
    with reserved({"--csv": csv, "--html": html}):
        from backend.inference.suggest import suggest as run

        with progress_bar() as progress:
            thumbnails = 0 if html is None else PAGE_IMAGES
            found = run(settings, config, images, progress, warn=_warn, thumbnails=thumbnails)
        _write(found, csv, html, settings.language)
    _print(found, as_json=as_json)
    for path in (csv, html):
        if path is not None:
            console.print(f"Written: {plain(str(path))}", highlight=False, soft_wrap=True)
    if found.failed:
        raise typer.Exit(1)


def _config(labels: str | None, prompts: Path | None) -> LabelConfig:
    """The labels and their prompts, as a project's labeling config would give them.

    Raises:
        SettingsError: there are none, a file cannot be read, or a prompt is for no label.
    """
    from backend.labels.config import config_of_labels
    from backend.labels.label_files import given_labels, read_prompts

    texts = {} if prompts is None else read_prompts(prompts)
    if labels is None and prompts is None:
        raise SettingsError(
            "No labels are given.", 'Add --labels "dog,cat,bicycle", or --labels FILE.'
        )
    names = [*texts] if labels is None else given_labels(labels)
    unknown = [name for name in texts if name not in names]
    if unknown:
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise SettingsError(
            f"{prompts} has prompts for what --labels does not name: {listed}.",
            "Spell them alike, or leave --labels out: the file's labels are taken then.",
        )
    return config_of_labels(names, required=True, prompts=texts)


def _print_left_out(names: Sequence[str]) -> None:
    if names:
        are = "is no image" if len(names) == 1 else "are no images"
        console.print(
            f"[yellow]Left out:[/] {counted(len(names), 'file')} that {are}, e.g. "
            f"{plain(shortened(names[0]))}.",
            highlight=False,
            soft_wrap=True,
        )


def _warn(problem: str, fix: str) -> None:
    console.print(f"[yellow]Note:[/] {plain(problem)}", highlight=False, soft_wrap=True)
    console.print(f"Fix: {plain(fix)}", highlight=False, soft_wrap=True)


def _print(found: Suggestions, *, as_json: bool) -> None:
    if as_json:
        answers: list[dict[str, Any]] = []
        for suggestion in found.of_files:
            answer = suggestion.as_dict()
            if suggestion.error is None:
                answer["threshold"] = found.threshold
            answers.append(answer)
        typer.echo(json.dumps(answers, ensure_ascii=False, indent=1))
        return
    out = Console()
    if found.scored:
        _print_table(found.scored, out)
        for line in explained(found):
            out.print(line, highlight=False, markup=False)
        if found.threshold is not None:
            out.print("--threshold sets another threshold.", highlight=False, markup=False)
    for suggestion in found.failed:
        assert suggestion.error is not None
        message = suggestion.error.message
        where = "" if suggestion.file in message else f"{suggestion.file}: "
        out.print(f"Error: {where}{message}", style="red", markup=False, soft_wrap=True)
        out.print(f"Fix: {suggestion.error.fix}", markup=False, soft_wrap=True)


def _print_table(scored: list[Suggestion], out: Console) -> None:
    table = Table("file", "suggested", "most probable")
    for suggestion in scored:
        shown = ", ".join(f"{label} {percent(p)}" for label, p in suggestion.likeliest[:LIKELIEST])
        suggested = ", ".join(suggestion.suggested) or "nothing"
        table.add_row(plain(suggestion.file), plain(suggested), plain(shown))
    out.print(table)


def _write(found: Suggestions, csv: Path | None, html: Path | None, language: Language) -> None:
    """Write the files that are asked for.

    Raises:
        SettingsError: one cannot be written.
    """
    try:
        if csv is not None:
            # With the mark by which spreadsheets recognise UTF-8.
            with csv.open("w", newline="", encoding="utf-8-sig") as file:
                writer(file).writerows(csv_rows(found))
        if html is not None:
            html.write_text(contact_sheet(found, language), encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{error.filename or csv or html} cannot be written: {error.strerror}.",
            "Make room, or name a file elsewhere.",
        ) from error


def csv_rows(found: Suggestions) -> Iterator[list[str]]:
    """A header, then one row per file: its labels, and the probability of each label.

    Labels with ``|`` between them are suggested; the reason takes the place of those that are
    missing. A label that the encoder cannot read has empty cells.
    """
    yield ["file", "suggested", "threshold", "error", *found.labels]
    threshold = "" if found.threshold is None else f"{found.threshold:.4f}"
    for suggestion in found.of_files:
        error = "" if suggestion.error is None else str(suggestion.error)
        given = [suggestion.scores.get(label) for label in found.labels]
        scores = ["" if p is None else f"{p:.4f}" for p in given]
        yield [suggestion.file, "|".join(suggestion.suggested), threshold, error, *scores]
