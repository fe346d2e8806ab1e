"""The commands on the store: check, installations, adopt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.console import JsonOption, configured, console, plain
from backend.cli.help import CommandGroup
from backend.errors import QueueError, StoreError

if TYPE_CHECKING:
    from backend.settings import Settings

store_app = typer.Typer(
    cls=CommandGroup, help="Check the store, or move work between installations."
)


@store_app.command()
def check(
    repair: Annotated[
        bool,
        typer.Option(help="Compute or copy again what can be; stop serve and the workers first."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read all that is kept and report what is damaged; exit code 1 if something is left to do.

    Damaged embeddings, statistics and pointers can be repaired. A damaged head, and what annotators
    were shown, can only be restored from a backup.
    """
    settings = configured()
    from backend.storage.check import check_store
    from backend.storage.installations import open_store

    store = open_store(settings)
    with console.status("reading the store"):
        problems = list(check_store(store, repair))
    if as_json:
        typer.echo(json.dumps([problem.as_dict() for problem in problems], ensure_ascii=False))
    else:
        for problem in problems:
            colour = "red" if problem.fix else "green"
            console.print(
                f"[{colour}]{plain(problem.place)}[/]: {plain(problem.what)}",
                highlight=False,
                soft_wrap=True,
            )
            if problem.repaired:
                console.print(f"  {plain(problem.repaired)}", highlight=False, soft_wrap=True)
            if problem.fix:
                console.print(
                    f"  [bold]Fix:[/] {plain(problem.fix)}", highlight=False, soft_wrap=True
                )
        if not problems:
            console.print(f"All that is kept at {store.uri} is intact.", soft_wrap=True)
    raise typer.Exit(1 if any(problem.fix for problem in problems) else 0)


@store_app.command()
def installations(as_json: JsonOption = False) -> None:
    """List whose work the store holds, one installation of label-studio-clip per line."""
    settings = configured()
    from backend.storage.installations import installation_names, open_store

    open_store(settings)
    names = installation_names(settings.store_uri)
    if as_json:
        typer.echo(json.dumps(names, ensure_ascii=False))
        return
    for installation, name in names.items():
        mine = " (this one)" if installation == settings.installation_id else ""
        typer.echo(f"{installation}  {name}{mine}")


@store_app.command()
def adopt(
    former: Annotated[str, typer.Argument(help="Id or name of the other installation.")],
) -> None:
    """Go on with the work of another installation: Label Studio has got another address.

    Stop serve and the workers first. Do not use it for a copy of a Label Studio: its work would
    become yours.
    """
    settings = configured()
    from backend.storage.installations import adopt as adopt_installation

    _refuse_beside_workers(settings, former)
    name = adopt_installation(settings, former)
    console.print(
        f"The work of {plain(name)} is now that of {plain(settings.installation_name)}. To give it "
        f"back, set LS_CLIP_INSTALLATION and LABEL_STUDIO_URL as they were and adopt it again.",
        highlight=False,
        soft_wrap=True,
    )


def _refuse_beside_workers(settings: Settings, former: str) -> None:
    """Refuse to take the store from under workers, as far as Redis knows of them.

    Raises:
        StoreError: they have to be stopped.
    """
    from backend.storage.installations import installation_names
    from jobs import queue

    if not settings.redis_url.get_secret_value():
        return
    names = installation_names(settings.store_uri)
    sources = [key for key, name in names.items() if former in {key, name}]
    for installation in (*sources, settings.installation_id):
        try:
            with queue.explained():
                connection = queue.connect(settings)
                connection.installation = installation
                are_running = any(queue.workers(connection, name) for name in queue.QUEUES)
        except QueueError as error:
            # Stopped with everything else, most likely.
            console.print(f"[yellow]Workers are not looked for:[/] {plain(error.message)}")
            return
        if are_running:
            raise StoreError(
                f"Workers of {names.get(installation, installation)} are running.",
                "Stop them, and ls-clip serve, then adopt again.",
            )
