"""The command around labels that were renamed, and what others ask and print about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.console import ProjectArgument, console, plain
from backend.logs import configure_logging
from backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from backend.labelstudio.client import LabelStudioClient

labels_app = typer.Typer()


@labels_app.command()
def rename(
    project: ProjectArgument,
    old: Annotated[str, typer.Argument(help="The label's former name.")],
    new: Annotated[str, typer.Argument(help="Its name in the labeling config now.")],
    control: Annotated[
        str | None,
        typer.Option(help="The control, where several of the project have such a label."),
    ] = None,
) -> None:
    """Say that a label got another name: what was approved and learned under the old one stays.

    Rename it in the labeling config first; a label that exists already takes the other one in. The
    annotations in Label Studio are not changed. The same command with the names exchanged takes it
    back. A label of a taxonomy is given by its path: "animal / cat".
    """
    settings = load_settings()
    configure_logging(settings)
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.renaming import rename as run
    from backend.storage.installations import open_store

    store = open_store(settings)
    done = run(LabelStudioClient(settings), store, project, (old, new), control)
    where = plain(repr(done.control))
    if done.is_undo:
        console.print(f"In {where} {plain(repr(new))} stands for itself again.", highlight=False)
    else:
        beside = " The two existed side by side and are one label from now on."
        console.print(
            f"In {where} {plain(repr(old))} is understood as {plain(repr(new))}."
            f"{beside if done.is_merge else ''}",
            highlight=False,
        )
    console.print(f"Next: ls-clip connect {project}, or ls-clip predict {project}.")


def ask_about_renames(settings: Settings, studio: LabelStudioClient, project: int) -> None:
    """Ask, on a terminal, whether labels that were probably renamed were."""
    from backend.labels.config import parse_config
    from backend.labelstudio.projects import project_key
    from backend.projects.renaming import notice
    from backend.projects.renaming import rename as run
    from backend.storage.installations import open_store
    from backend.storage.project_state import ProjectState

    store = open_store(settings)
    described = studio.projects.get(project)
    parse_config(described["label_config"]).require_controls()
    for found in notice(studio, store, project):
        console.print(plain(found.question), highlight=False)
        if typer.confirm("Is it the same label under another name?", err=True):
            run(studio, store, project, (found.old, found.new), found.control)
        else:
            ProjectState(store, project_key(described)).settle(found.control, found.old)


def print_renames(former: dict[str, dict[str, str]]) -> None:
    """Print the former names of labels, one line per control."""
    for control, pairs in former.items():
        listed = ", ".join(f"{old} is understood as {new}" for old, new in pairs.items())
        console.print(f"Renamed in {plain(control)}: {plain(listed)}.", highlight=False)
