"""The commands around runs: worker, predict, runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from backend.cli.console import (
    EncoderOption,
    JsonOption,
    ProjectArgument,
    compact_table,
    configured,
    console,
    plain,
)
from backend.cli.progress import about
from backend.errors import QueueError, SettingsError, as_text

if TYPE_CHECKING:
    from backend.settings import Settings
    from jobs.run import Run
    from jobs.run_store import RunStore

runs_app = typer.Typer()
LINE_SECONDS = 5.0
"""Without a terminal, seconds between two lines of progress."""


@runs_app.command()
def worker(
    queues: Annotated[
        str, typer.Option(help="Comma-separated; the first has priority.")
    ] = "predict,train",
    device: Annotated[
        str | None, typer.Option(help="Overrides LS_CLIP_DEVICE, e.g. cuda:1.")
    ] = None,
    encoder: EncoderOption = None,
) -> None:
    """Process runs and trainings from the queue; start any number, on any number of machines."""
    settings = configured(device=device, encoder=encoder)
    from jobs.queue import QUEUES
    from jobs.worker import supervise

    names = [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUEUES]
    if unknown or not names:
        raise SettingsError(
            f"There is no queue {', '.join(map(repr, unknown)) or 'named'}.",
            f"Give --queues some of: {', '.join(QUEUES)}.",
        )
    given = {"LS_CLIP_DEVICE": device, "LS_CLIP_ENCODER": encoder}
    overrides = {name: value for name, value in given.items() if value is not None}
    raise typer.Exit(supervise(settings, names, overrides))


@runs_app.command()
def predict(
    project: ProjectArgument,
    only: Annotated[
        str,
        typer.Option(
            help="missing: tasks without a prediction of the current version; unlabelled: those of "
            "them without an annotation; all: check every task again."
        ),
    ] = "missing",
    revalidate: Annotated[
        bool,
        typer.Option(
            "--revalidate",
            help="With --only all: ask for each stored image whether it was replaced, and correct "
            "what its task suggests.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the progress until the run has ended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the workers for suggestions for a whole project.

    A project has one run at a time: a second call joins the first one. With --wait the exit code is
    1 if the run fails or leaves a task without a prediction.
    """
    settings = configured()
    from backend.cli.wording import RUN_STATES
    from jobs.enqueue import require_revalidation, start_run
    from jobs.polling import wait_until_started
    from jobs.queue import PREDICT
    from jobs.run import RunState, Scope, Trigger

    if only not in [*Scope]:
        raise SettingsError(f"--only {only} is not known.", f"Give one of: {', '.join(Scope)}.")
    if revalidate and only != Scope.ALL:
        raise SettingsError("--revalidate is about all tasks.", "Give --only all --revalidate.")
    runs = run_store(settings, wait)
    run, is_new = start_run(runs, project, Scope(only), Trigger.CLI, revalidate=revalidate)
    require_revalidation(run, revalidate)
    if not is_new:
        word, _ = RUN_STATES[run.state]
        console.print(
            f"Project {project} already has a run in progress: {run.id} ({word}). "
            "This call joins it."
        )
    has_workers = warn_without_workers(settings, PREDICT)
    if wait:
        run = follow(runs, run)
    elif has_workers:
        run = wait_until_started(runs, run)
    if as_json:
        typer.echo(json.dumps(run.as_dict(), ensure_ascii=False))
    elif wait or run.state == RunState.FAILED:
        print_outcome(runs, run)
    else:
        console.print(f"Run [bold]{run.id}[/]; follow it with: ls-clip runs {project}")
    incomplete = run.state != RunState.DONE or run.failed
    if run.state == RunState.FAILED or (wait and incomplete):
        raise typer.Exit(1)


@runs_app.command()
def runs(
    project: ProjectArgument,
    cancel: Annotated[str | None, typer.Option(help="Cancel the run with this id.")] = None,
    show: Annotated[
        str | None, typer.Option(help="Show the run with this id, and why tasks failed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List a project's runs, show one, or cancel one."""
    settings = configured()
    from backend.cli.wording import RUN_STATES
    from jobs import enqueue, queue

    known = run_store(settings)
    with queue.explained():
        if cancel is not None:
            run = known.require(project, cancel)
            if not enqueue.cancel(known, run):
                word, _ = RUN_STATES[run.state]
                console.print(f"Run {run.id} has already ended ({word}).")
        chosen = None if show is None else known.require(project, show)
        listed = known.of_project(project) if chosen is None else [chosen]
        failures = {} if chosen is None else known.failures(chosen.id)
    if as_json:
        answer: Any = [run.as_dict() for run in listed]
        if chosen is not None:
            answer = {**chosen.as_dict(), "failures": {str(t): why for t, why in failures.items()}}
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    if chosen is not None:
        print_outcome(known, chosen)
        return
    if not listed:
        require_project(settings, project)
        console.print(f"Project {project} has no recorded runs.")
        return
    columns = ["run", "when", "state", "tasks", "imported", "failed", "only", "asked by"]
    revalidated = any(run.revalidate for run in listed)
    table = compact_table(*columns, *(["revalidated", "changed"] if revalidated else []))
    for run in listed:
        when = time.strftime("%m-%d %H:%M", time.localtime(run.created))
        numbers = map(str, (run.listed, run.imported, run.failed))
        word, _ = RUN_STATES[run.state]
        more = [str(run.revalidated), str(run.changed)] if run.revalidate else []
        table.add_row(run.id, when, word, *numbers, run.scope, run.trigger, *more)
    Console().print(table)
    for run in listed:
        if run.error is not None:
            why = plain(as_text(run.error, settings.language))
            console.print(f"[red]{run.id} failed:[/] {why}", highlight=False)
        elif run.blocked_on:
            console.print(f"[yellow]{run.id} waits:[/] {plain(run.blocked_on)}", highlight=False)


def follow(runs: RunStore, run: Run) -> Run:
    """Show how far a run is until it has ended."""
    from jobs.polling import wait

    if not console.is_terminal:
        printed, when = "", 0.0

        def print_line(now: Run) -> None:
            nonlocal printed, when
            text = _progress(now)
            if text != printed and time.monotonic() - when > LINE_SECONDS:
                printed, when = text, time.monotonic()
                console.print(text, highlight=False)

        return wait(runs, run.id, print_line)
    with console.status("") as status:
        return wait(runs, run.id, lambda now: status.update(_progress(now)))


def _progress(run: Run) -> str:
    from backend.cli.wording import RUN_STATES

    word, _ = RUN_STATES[run.state]
    parts = [
        f"{word}: {run.listed} listed",
        f"{run.embedded} embedded",
        f"{run.cached} cached",
        f"{run.failed} failed",
        f"{run.imported} imported",
    ]
    if run.revalidate:
        parts += [
            f"{run.revalidated} revalidated",
            f"{run.changed} changed",
            f"{run.rewritten} rewritten",
        ]
    if run.embedded:
        parts.append(f"{run.images_per_second:.1f} images/s")
    if run.seconds_left is not None:
        parts.append(f"{about(run.seconds_left)} left")
    if run.blocked_on:
        parts.append(f"waits: {plain(run.blocked_on)}")
    return ", ".join(parts)


def print_outcome(runs: RunStore, run: Run) -> None:
    """Print a run's result: one line, and the tasks without a prediction."""
    from backend.cli.wording import RUN_STATES
    from jobs.queue import language

    _, colour = RUN_STATES[run.state]
    console.print(f"[{colour}]{_progress(run)}[/]; version {run.model_version or '(none)'}")
    if run.error is not None:
        console.print(f"[bold red]Error:[/] {plain(run.error['message'])}", highlight=False)
        console.print(f"[bold]Fix:[/] {plain(run.error['fix'])}", highlight=False)
    for note in run.notes:
        console.print(f"[yellow]Note:[/] {plain(note)}", highlight=False)
    spoken = language(runs.connection)
    failures = runs.failures(run.id)
    for task, why in list(failures.items())[:10]:
        console.print(f"[red]Task {task}:[/] {plain(as_text(why, spoken))}", highlight=False)
    if len(failures) > 10:
        rest = f"ls-clip runs {run.project} --show {run.id} --json"
        console.print(f"... and {len(failures) - 10} more; all of them: {rest}")


def retries_for(wait: bool) -> int:
    """The ``retries`` of `jobs.queue.connect`: a command that waits outlasts a restart of Redis."""
    return 8 if wait else 2


def run_store(settings: Settings, wait: bool = False) -> RunStore:
    """The runs in Redis.

    Raises:
        QueueError: no queue is set, or Redis does not answer.
    """
    from jobs import queue
    from jobs.run_store import RunStore

    return RunStore(queue.connect(settings, retries_for(wait)))


def require_project(settings: Settings, project: int) -> None:
    """Refuse a number that no project has. If Label Studio is away, that is only noted: runs wait.

    Raises:
        StudioError: there is no such project, or the token is refused.
    """
    from backend.labelstudio import client
    from backend.labelstudio.failures import UnansweredError

    try:
        client.require_project(settings, project)
    except UnansweredError as error:
        console.print(f"[yellow]Note:[/] {plain(str(error))}", highlight=False)


def warn_without_workers(settings: Settings, *names: str) -> bool:
    """Whether workers listen on each of these queues; prints a note if not."""
    from jobs import queue
    from jobs.polling import require_workers

    connection = queue.connect(settings)
    for name in names:
        try:
            require_workers(settings, connection, name)
        except QueueError as error:
            console.print(f"[yellow]Note:[/] {plain(str(error))}", highlight=False)
            return False
    return True
