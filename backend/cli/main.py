"""The ``ls-clip`` command. Heavy imports happen inside the commands, so that --help is instant."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.archives import archives_app
from backend.cli.comparison import comparison_app
from backend.cli.console import (
    EncoderOption,
    JsonOption,
    ProjectArgument,
    configured,
    is_interactive,
)
from backend.cli.data import data_app
from backend.cli.evaluation import evaluate_app
from backend.cli.export import export_app
from backend.cli.heads import train_app
from backend.cli.help import CONTEXT_SETTINGS, CommandGroup
from backend.cli.labels import ask_about_renames, labels_app
from backend.cli.progress import progress_bar
from backend.cli.report import print_error, print_findings, print_note, print_report
from backend.cli.runs import runs_app
from backend.cli.store import store_app
from backend.cli.suggest import suggest_app
from backend.errors import ClipError, SettingsError
from backend.heap import use_one_heap
from backend.messages.catalogue import localized
from backend.messages.message import Message, in_sequence

if TYPE_CHECKING:
    from backend.settings import Settings

app = typer.Typer(
    cls=CommandGroup,
    context_settings=CONTEXT_SETTINGS,
    help="CLIP suggestions for multi-label image projects in Label Studio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(suggest_app)
app.add_typer(evaluate_app)
app.add_typer(comparison_app)
app.add_typer(runs_app)
app.add_typer(train_app)
app.add_typer(labels_app)
app.add_typer(archives_app)
app.add_typer(export_app)
app.add_typer(data_app)
app.add_typer(store_app, name="store")


def main() -> None:
    """Run the command line; an error that a person can fix is one message and exit code 1."""
    use_one_heap()
    try:
        app()
    except ClipError as error:
        # Not imported by commands that end well.
        from backend.setting_types import spoken_language

        print_error(error, spoken_language())
        sys.exit(1)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Overrides LS_CLIP_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides LS_CLIP_PORT.")] = None,
    encoder: EncoderOption = None,
) -> None:
    """Serve the ML backend that Label Studio calls."""
    from backend.server.gunicorn import serve as run

    settings = configured(host=host, port=port, encoder=encoder)
    run(settings)


@app.command()
def connect(
    project: ProjectArgument,
    *,
    known_label: Annotated[
        str | None,
        typer.Option(
            help="The field in the tasks' data that holds labels known beforehand; '' for none."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="In which order tasks are served from now on: random, which a new project gets, "
            "or uncertain, the least certain first."
        ),
    ] = None,
    revalidate: Annotated[
        bool,
        typer.Option(
            "--revalidate",
            help="Ask for each stored image whether it was replaced, and correct what its task "
            "suggests.",
        ),
    ] = False,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Connect a project: backend, webhook, settings, and a prediction for every task.

    Can be repeated at any time: only what is missing is added.
    """
    settings = configured(encoder=encoder)
    from backend.cli.wording import review_order
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.connect import connect as run
    from backend.runtime import Runtime

    asked = None if order is None else review_order(order)

    studio = LabelStudioClient(settings)
    studio.projects.get(project)
    if is_interactive() and not as_json:
        ask_about_renames(settings, studio, project)
    with progress_bar(settings.language) as progress:
        progress(Message("loading the encoder"), 0, 1)
        runtime = Runtime(settings)
        if runtime.encoder.advice and not settings.redis_url.get_secret_value():
            print_note(runtime.encoder.advice, settings.language)
        report = run(
            settings,
            studio,
            runtime,
            project,
            progress,
            known_field=known_label,
            order=asked,
            revalidate=revalidate,
        )
    report.warnings[:0] = other_settings(settings)
    if as_json:
        typer.echo(json.dumps(report.__dict__, ensure_ascii=False))
    else:
        print_report(report, settings.language)
    if report.failures:
        raise typer.Exit(1)


def other_settings(settings: Settings) -> list[str]:
    """That the running backend has other settings, in one sentence; nothing if it has not."""
    from backend.doctor.context import Context
    from backend.doctor.machine import differing_settings

    names = differing_settings(Context(settings, None))
    if not names:
        return []
    text = in_sequence(
        Message("The running backend has another value of {names}.", names=names),
        Message(
            "Restart ls-clip serve (and ls-clip worker) with these settings, then run ls-clip "
            "connect again."
        ),
    )
    return [localized(text, settings.language)]


@app.command()
def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Verify everything through Label Studio, then exit.")
    ] = False,
    directory: Annotated[
        Path, typer.Option("--directory", help="Where the demo keeps its data.")
    ] = Path("~/.cache/label-studio-clip/demo"),
    tasks: Annotated[
        int, typer.Option(min=24, max=2000, help="Number of photo tasks to create.")
    ] = 48,
    port: Annotated[
        int, typer.Option(help="Label Studio's port; if it is taken, the next free one.")
    ] = 8080,
    simulate: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Have a simulated annotator review this many tasks, then train; 0: none.",
        ),
    ] = 40,
) -> None:
    """Start Label Studio and the backend, and fill a project of photos with suggestions."""
    configured()
    from backend.demo.run import run_demo

    code = run_demo(directory.expanduser(), tasks, port, check, progress_bar, reviews=simulate)
    raise typer.Exit(code)


@app.command()
def doctor(
    project: Annotated[
        int | None,
        typer.Argument(
            help="The project's number; without it, only machine and servers are checked."
        ),
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out why there are no suggestions, and how to fix it.

    Exit code: 0 nothing found or notes only, 1 warnings, 2 errors.
    """
    # The findings explain the failures; the log would repeat them.
    logging.getLogger("backend").setLevel(logging.CRITICAL)
    from backend.doctor.checks import doctor as run
    from backend.doctor.finding import Finding, Severity, exit_code
    from backend.setting_types import spoken_language
    from backend.settings import load_settings

    language = spoken_language()
    try:
        findings = run(load_settings(encoder=encoder), project)
    except SettingsError as error:
        why = Message("No command works with these settings.")
        findings = [Finding("settings", Severity.ERROR, error.message, why, error.fix)]
    findings = [finding.in_language(language) for finding in findings]
    if as_json:
        typer.echo(
            json.dumps([finding.as_dict() for finding in findings], ensure_ascii=False, indent=1)
        )
    else:
        print_findings(findings, language)
    raise typer.Exit(exit_code(findings))
