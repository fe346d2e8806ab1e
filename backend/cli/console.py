"""What all commands share: the console on standard error, common options, tables, and files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.errors import SettingsError
from backend.logs import configure_logging

if TYPE_CHECKING:
    from backend.settings import Settings

console = Console(stderr=True)
LEFT_OUT_CODE = 3
"""Exit code where the work was done, but not for all that there is."""
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
    # One console for all: lines of the log do not fall into those of a progress display.
    configure_logging(settings, console)
    return settings


def ways_to_predict(settings: Settings, project: int) -> str:
    """The commands that suggest labels for a project: without a queue, only one of them can."""
    connect = f"ls-clip connect {project}"
    has_queue = bool(settings.redis_url.get_secret_value())
    return f"{connect}, or ls-clip predict {project}" if has_queue else connect


def compact_table(*columns: str) -> Table:
    """A table without frames and without wrapped cells: eight columns fit 80 characters."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    return table


def plain(text: str) -> str:
    """The text, escaped so that rich finds no markup in it."""
    return text.replace("[", r"\[")


def is_interactive() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty() and console.is_terminal


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
