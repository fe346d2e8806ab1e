"""What all commands print with: a console on standard error, tables, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.logs import Progress

console = Console(stderr=True)
TOLD_SECONDS = 30.0
"""Between two lines on how far a step is, where there is no terminal."""
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", help="Overrides LS_CLIP_ENCODER for this call.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ProjectArgument = Annotated[int, typer.Argument(help="The project's number in Label Studio.")]


def compact_table(*columns: str) -> Table:
    """A table without frames and without wrapped cells: eight columns fit 80 characters."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table


def plain(text: str) -> str:
    """The text, escaped so that rich finds no markup in it."""
    return text.replace("[", r"\[")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on a terminal; elsewhere one line per step, and now and then how far it is."""
    if not console.is_terminal:
        told: dict[str, float] = {}

        def line(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            if what not in told:
                console.print(f"{what} ...")
            elif done < total and now - told[what] >= TOLD_SECONDS:
                console.print(f"{what}: {done} of {total} ...")
            else:
                return
            told[what] = now

        yield line
        return
    from rich import progress as bars

    columns: list[Any] = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    ]
    with bars.Progress(*columns, console=console) as bar:
        rows: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bar.add_task(what, total=total)
            bar.update(rows[what], completed=done, total=total)

        yield update
