"""What all commands print with: a console on standard error, tables, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from backend.errors import SettingsError
from backend.logs import Progress, configure_logging

if TYPE_CHECKING:
    from backend.settings import Settings

console = Console(stderr=True)
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", help="Overrides LS_CLIP_ENCODER for this call.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ProjectArgument = Annotated[int, typer.Argument(help="The project's number in Label Studio.")]


def configured(**overrides: object) -> Settings:
    """The settings of this call, as `load_settings` reads them; logging follows them.

    Raises:
        SettingsError: a variable has a value that cannot work.
    """
    # Costs more than all the rest of --help.
    from backend.settings import load_settings

    settings = load_settings(**overrides)
    configure_logging(settings)
    return settings


def compact_table(*columns: str) -> Table:
    """A table without frames and without wrapped cells: eight columns fit 80 characters."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table


def plain(text: str) -> str:
    """The text, escaped so that rich finds no markup in it."""
    return text.replace("[", r"\[")


def write_new(path: Path, content: str, option: str) -> None:
    """Write a file that is not there yet.

    Args:
        path: of the file.
        content: of it.
        option: of the command, which names the file.

    Raises:
        SettingsError: it is there, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}.", f"Give another file with {option}."
        ) from error


@contextmanager
def reserved(files: Mapping[str, Path | None]) -> Iterator[None]:
    """Make files that will be written in the end: one that is refused then has cost minutes.

    Args:
        files: option -> path, or None where the option is not given. They are gone again after an
            error.

    Raises:
        SettingsError: one is there, or cannot be written.
    """
    made: list[Path] = []
    try:
        for option, path in files.items():
            if path is not None:
                write_new(path, "", option)
                made.append(path)
        yield
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


ESTIMATE_SECONDS = 10.0
"""Without a terminal, a step that has taken so long says how much longer it will take ..."""
AGAIN_SECONDS = 30.0
"""... and says so again after so many more."""


def about(seconds: float) -> str:
    """A duration in words, to one or two digits: ``about 40 min``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 36_000 else f"about {seconds / 3600:.0f} h"


class _Step:
    """One step of a call without a terminal: what was said of it."""

    def __init__(self, done: int) -> None:
        self._begun, self._before = time.monotonic(), done
        self._due = ESTIMATE_SECONDS

    def estimate(self, done: int, total: int) -> str:
        """How long the rest will take, when that is due and can be told; else empty."""
        taken = time.monotonic() - self._begun
        if taken < self._due or not self._before < done < total:
            return ""
        self._due = taken + AGAIN_SECONDS
        speed = (done - self._before) / taken
        return f"{done} of {total}, {speed:.1f} a second: {about((total - done) / speed)} left"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on a terminal; elsewhere a line per step, and now and then an estimate."""
    if not console.is_terminal:
        steps: dict[str, _Step] = {}

        def line(what: str, done: int, total: int) -> None:
            if what not in steps:
                steps[what] = _Step(done)
                console.print(f"{what} ...")
            estimate = steps[what].estimate(done, total)
            if estimate:
                console.print(f"{what}: {estimate}", highlight=False)

        yield line
        return
    from rich import progress as bars

    columns: list[Any] = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left:"),
        bars.TimeRemainingColumn(),
    ]
    with bars.Progress(*columns, console=console) as bar:
        rows: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bar.add_task(what, total=total)
            bar.update(rows[what], completed=done, total=total)

        yield update
