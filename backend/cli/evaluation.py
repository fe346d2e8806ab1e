"""``ls-clip evaluate``, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.console import EncoderOption, JsonOption, configured, plain
from backend.cli.progress import progress_bar
from backend.errors import SettingsError, counted

if TYPE_CHECKING:
    from backend.settings import Settings
    from backend.training.project_measures import ProjectMeasures

evaluate_app = typer.Typer()

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
PRECISIONS = {"micro_precision", "macro_precision"}
"""Of ticks that are right, which mean nothing where there are none."""


@evaluate_app.command()
def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder with images/ and labels.json.")
    ] = None,
    project: Annotated[
        int | None,
        typer.Option(help="A project's number in Label Studio, in place of a folder."),
    ] = None,
    encoder: EncoderOption = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the encoder's probability table on this folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the suggestions on labelled images, or on a project's reviewed tasks.

    labels.json holds {"classes": LABELS, "images": {FILE: LABELS}}; LABELS are lists of names. Of a
    project those reviewed tasks count that are held out; nothing is scored again.
    """
    settings = configured(encoder=encoder)
    if project is not None:
        if folder is not None or fit:
            raise SettingsError(
                "With --project there is neither a folder nor --fit.",
                "Measure one of them at a time; --fit needs a folder.",
            )
        _evaluate_project(settings, project, as_json=as_json)
        return
    if folder is None:
        raise SettingsError(
            "There is nothing to measure.", "Name a folder, or a project with --project NUMBER."
        )
    from backend.evaluation.evaluate import evaluate as run

    with progress_bar() as progress:
        result = run(settings, folder, fit, progress)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_evaluation(result, Console())


def _evaluate_project(settings: Settings, project: int, *, as_json: bool) -> None:
    from backend.labelstudio.client import LabelStudioClient
    from backend.runtime import Runtime
    from backend.training.project_measures import measure_project

    runtime = Runtime(settings)
    studio = LabelStudioClient(settings)
    measured = measure_project(settings, studio, runtime.versions, runtime.embedder, project)
    if as_json:
        typer.echo(json.dumps({"project": project, **measured.as_dict()}, ensure_ascii=False))
    else:
        _print_project(measured, Console())


def _print_project(measured: ProjectMeasures, console: Console) -> None:
    from backend.cli.label_table import EXPLAINED, print_table
    from backend.training.clicks_text import clicks_text

    which = "held-out ones, which no head is trained on (blind and audit tasks)"
    if measured.clicks is None:
        missing = "has scores" if measured.held_out else "is reviewed yet"
        console.print(
            f"{measured.model_version} is measured on reviewed tasks: {which}. None {missing}.",
            highlight=False,
        )
        return
    reviewed = counted(measured.reviewed, "reviewed task")
    console.print(
        f"{measured.model_version}: measured on {measured.judged} of {reviewed}: {which}.",
        highlight=False,
    )
    for name, control in measured.controls.items():
        rates = control.rates
        console.print(
            f"{plain(name)}: precision {100 * rates.precision:.0f} %, recall "
            f"{100 * rates.recall:.0f} %, F1 {100 * rates.f1:.0f} %, over all ticks of "
            f"{counted(control.tasks, 'task')}",
            highlight=False,
        )
        print_table(console, control.labels)
    for line in EXPLAINED[:2]:
        console.print(line, highlight=False)
    console.print(clicks_text(measured.clicks), highlight=False, soft_wrap=True)


def _print_evaluation(result: Mapping[str, Any], console: Console) -> None:
    """The measures as a table; then clicks, encoder, and the first images that cannot be read."""
    from backend.training.clicks_text import clicks_text
    from backend.vlpl.clicks import Clicks

    title = f"{counted(result['images'], 'image')}, {counted(result['labels'], 'label')}"
    table = Table("measure", "value", title=title)
    for key, (words, form) in MEASURES.items():
        value = "–" if result[key] is None else form.format(result[key])
        if key in PRECISIONS and not result["labels_per_image"]:
            value = "nothing ticked"
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
