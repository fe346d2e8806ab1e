"""The commands on image files, without Label Studio: suggest, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.console import EncoderOption, JsonOption, progress_bar
from backend.errors import counted
from backend.logs import configure_logging
from backend.settings import load_settings

if TYPE_CHECKING:
    from backend.inference.suggest import Suggestion

images_app = typer.Typer()

MEASURES = {
    "map": ("mAP, labels with 10 images or more", "{:.1f} %"),
    "map_all": ("mAP, all labels that occur", "{:.1f} %"),
    "threshold": ("ticked from this probability on", "{:.2f}"),
    "labels_per_image": ("labels ticked, an image", "{:.2f}"),
    "true_labels_per_image": ("labels in truth, an image", "{:.2f}"),
    "clicks_per_image": ("clicks to correct an image", "{:.2f}"),
    "clicks_from_nothing": ("clicks from nothing, an image", "{:.2f}"),
    "micro_precision": ("precision, over all ticks", "{:.1f} %"),
    "micro_recall": ("recall, over all ticks", "{:.1f} %"),
    "micro_f1": ("F1, over all ticks", "{:.1f} %"),
    "macro_precision": ("precision, mean of the labels", "{:.1f} %"),
    "macro_recall": ("recall, mean of the labels", "{:.1f} %"),
    "macro_f1": ("F1, mean of the labels", "{:.1f} %"),
}
"""Name in JSON -> what a person reads, and how the value is printed."""


@images_app.command()
def suggest(
    photos: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Annotated[str, typer.Option(help='Comma-separated, e.g. "dog,cat,bicycle".')],
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Suggest labels from this probability on; default: the encoder's."
        ),
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Suggest labels for image files, without Label Studio.

    Each image is taken to have one of the labels, so that few of them are likelier than in a
    project.
    """
    settings = load_settings(encoder=encoder, threshold=threshold)
    configure_logging(settings)
    from backend.inference.suggest import suggest as run

    names = [label.strip() for label in labels.split(",") if label.strip()]
    with progress_bar() as progress:
        suggestions = run(settings, names, photos, progress)
    if as_json:
        typer.echo(
            json.dumps(
                [suggestion.as_dict() for suggestion in suggestions], ensure_ascii=False, indent=1
            )
        )
    else:
        _print_suggestions(suggestions, Console())
    if any(suggestion.error for suggestion in suggestions):
        raise typer.Exit(1)


@images_app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A folder with images/ and labels.json.")],
    encoder: EncoderOption = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the encoder's probability table on this folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the suggestions on labelled images.

    labels.json holds {"classes": LABELS, "images": {FILE: LABELS}}; LABELS are lists of names.
    """
    settings = load_settings(encoder=encoder)
    configure_logging(settings)
    from backend.evaluation.evaluate import evaluate as run

    with progress_bar() as progress:
        result = run(settings, folder, fit, progress)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_evaluation(result, Console())


def _print_suggestions(suggestions: Sequence[Suggestion], console: Console) -> None:
    """One row per file; then the files without a suggestion, with the reason."""
    table = Table("file", "suggested", "most probable")
    for suggestion in suggestions:
        if suggestion.error is not None:
            continue
        read = [item for item in suggestion.scores.items() if item[0] not in suggestion.unreadable]
        best = sorted(read, key=lambda item: -item[1])[:5]
        shown = ", ".join(f"{name} {100 * p:.0f} %" for name, p in best)
        table.add_row(
            Path(suggestion.file).name, ", ".join(suggestion.suggested) or "nothing", shown
        )
    if table.row_count:
        console.print(table)
    for suggestion in suggestions:
        if suggestion.error is not None:
            message = suggestion.error.message
            where = "" if suggestion.file in message else f"{suggestion.file}: "
            console.print(f"Error: {where}{message}", style="red", markup=False, soft_wrap=True)
            console.print(f"Fix: {suggestion.error.fix}", markup=False, soft_wrap=True)


def _print_evaluation(result: Mapping[str, Any], console: Console) -> None:
    """The measures as a table; then clicks, encoder, and the first images that cannot be read."""
    from backend.training.clicks_text import clicks_text
    from backend.vlpl.clicks import Clicks

    title = f"{counted(result['images'], 'image')}, {counted(result['labels'], 'label')}"
    table = Table("measure", "value", title=title)
    for key, (words, form) in MEASURES.items():
        value = "–" if result[key] is None else form.format(result[key])
        if key == "clicks_per_image":
            low, high = result["clicks_interval"]
            value += f" ({form.format(low)} to {form.format(high)})"
        table.add_row(words, value)
    console.print(table)
    clicks = Clicks.from_dict(result["clicks"])
    console.print(clicks_text(clicks), highlight=False, soft_wrap=True)
    console.print(f"encoder: {result['encoder']}", markup=False, highlight=False, soft_wrap=True)
    for file, reason in list(result["failed"].items())[:10]:
        console.print(f"{file}: {reason}", markup=False)
