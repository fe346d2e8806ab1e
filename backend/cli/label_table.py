"""``ls-clip heads PROJECT --labels``: how good a head is at each label."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from backend.cli.console import compact_table, console, plain
from backend.errors import SettingsError, counted
from backend.text_files import one_line
from backend.vlpl.fitting import HEAD_FROM
from backend.vlpl.label_figures import LabelFigures, Source

if TYPE_CHECKING:
    from backend.storage.head_registry import HeadRegistry

SOURCES = {
    Source.JUDGED: "judged tasks",
    Source.CROSS_VALIDATION: "cross-validation",
    Source.NONE: "",
}
EXPLAINED = (
    "reviewed: reviewed tasks with the label; judged: held-out ones of them, which no head is "
    "trained on (blind and audit tasks, docs/training.md).",
    "AP: how well the percentages rank the tasks; precision: how many ticks are right; recall: how "
    "many tasks with the label are ticked; all in percent.",
    "judged tasks: on held-out tasks. cross-validation: on "
    "the tasks that it was trained on, by heads that were fitted without them.",
)


def show_labels(
    registry: HeadRegistry, project: str, name: str | None, *, as_json: bool = False
) -> None:
    """Print a head's figures of each label.

    Args:
        registry: the heads of all projects.
        project: its key.
        name: of the head; None: the one in use, or the newest where none is.
        as_json: whether JSON is printed.

    Raises:
        SettingsError: the project has no head.
        StoreError: there is no such head, or the store cannot be read.
    """
    serving, names = registry.serving(project), registry.names(project)
    if name is None:
        if not names:
            raise SettingsError(
                "The project has no head, so nothing is known of its labels yet.",
                f"Review tasks: the first head is trained on {HEAD_FROM} of them.",
            )
        name = serving if serving in names else names[-1]
    head_set = registry.get(project, name)
    if as_json:
        controls = {
            control: [figures.as_dict() for figures in labels]
            for control, labels in head_set.labels.items()
        }
        answer = {
            "head": name,
            "in_use": name == serving,
            "recorded": bool(head_set.labels),
            "controls": controls,
        }
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    use = "in use" if name == serving else "not in use"
    out = Console()
    out.print(f"[bold]{name}[/], {use}", highlight=False)
    if not head_set.labels:
        console.print("Its figures were not recorded: an earlier release made this head.")
        return
    for control, labels in head_set.labels.items():
        if len(head_set.labels) > 1:
            out.print(f"[bold]{plain(control)}[/]", highlight=False)
        print_table(out, labels)
    for line in EXPLAINED:
        out.print(line, highlight=False)


def print_table(out: Console, labels: tuple[LabelFigures, ...]) -> None:
    """A row of figures for each label."""
    table = compact_table(
        "label", "reviewed", "judged", "AP", "precision", "recall", "measured on", "missing"
    )
    for figures in labels:
        rates = (figures.average_precision, figures.precision, figures.recall)
        table.add_row(
            plain(one_line(figures.label)),
            str(figures.reviewed),
            str(figures.judged),
            *("–" if rate is None else f"{100 * rate:.0f}" for rate in rates),
            SOURCES[figures.source],
            missing_text(figures),
        )
    out.print(table)


def missing_text(figures: LabelFigures) -> str:
    """What would make the figures better founded: ``2 more judged positives``; may be empty."""
    if not figures.missing:
        return ""
    kind = "more positive" if figures.source == Source.NONE else "more judged positive"
    return counted(figures.missing, kind)
