"""The commands about labels: renamed ones, those that the encoder cannot read, and their words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.console import (
    EncoderOption,
    JsonOption,
    ProjectArgument,
    compact_table,
    configured,
    console,
    plain,
    ways_to_predict,
    write_new,
)
from backend.errors import counted
from backend.messages.catalogue import localized
from backend.messages.message import Message
from backend.text_files import one_line

if TYPE_CHECKING:
    from backend.labelstudio.client import LabelStudioClient
    from backend.settings import Settings

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
    settings = configured()
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
    console.print(f"Next: {ways_to_predict(settings, project)}.", highlight=False)


@labels_app.command()
def prompts(
    project: ProjectArgument,
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write the labeling config; it must not exist."),
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the labels that the encoder cannot read, and write a labeling config to say them in.

    The file is the project's labeling config with an empty *model_prompt* for each of these labels.
    Fill them in ("a photo of a dog"), paste it into Settings > Labeling Interface > Code, and run
    *ls-clip connect*. Nothing is changed in Label Studio.
    """
    settings = configured(encoder=encoder)
    from backend.encoders.registry import get_encoder
    from backend.inference.versions import LEARNED_FROM
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.prompts import unread_labels
    from backend.storage.installations import open_store

    path = output or Path(f"project-{project}-config.xml")
    store = open_store(settings)
    chosen = get_encoder(settings, store.vectors.has_any)
    found = unread_labels(LabelStudioClient(settings), store, chosen, project)
    written = bool(found.stubs)
    if written:
        write_new(path, found.config.rstrip("\r\n") + "\n", "--output")
    if as_json:
        content = {"labels": found.reviewed, "learned_from": LEARNED_FROM}
        typer.echo(
            json.dumps({**content, "config": str(path) if written else ""}, ensure_ascii=False)
        )
        return
    if not found.reviewed:
        console.print(
            f"{chosen.short} reads {counted(found.labels, 'label')}, which is all of them."
        )
        return
    table = compact_table("label", "reviewed", "learned from")
    for label, reviewed in found.reviewed.items():
        table.add_row(plain(one_line(label)), str(reviewed), f"about {LEARNED_FROM}")
    console.print(table)
    console.print(
        f"{chosen.short} reads English only. A label of these is suggested as soon as a head has "
        "learned it from reviewed tasks that have it, or has a model_prompt in English.",
        highlight=False,
    )
    if written:
        console.print(
            'A label that means "none of these" ("other") needs no words: give its choice '
            'model_skip="true", and it is never suggested.',
            highlight=False,
        )
        console.print(f"Fill in the empty model_prompt attributes in {plain(str(path))}, paste it")
        console.print(
            "into Settings > Labeling Interface > Code of the project, then run: "
            f"ls-clip connect {project}",
            highlight=False,
        )


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
        console.print(plain(localized(found.question, settings.language)), highlight=False)
        asked = Message("Is it the same label under another name?")
        if typer.confirm(localized(asked, settings.language), err=True):
            run(studio, store, project, (found.old, found.new), found.control)
        else:
            ProjectState(store, project_key(described)).settle(found.control, found.old)


def print_renames(former: dict[str, dict[str, str]]) -> None:
    """Print the former names of labels, one line per control."""
    for control, pairs in former.items():
        listed = ", ".join(
            f"{one_line(old)} is understood as {one_line(new)}" for old, new in pairs.items()
        )
        console.print(f"Renamed in {plain(control)}: {plain(listed)}.", highlight=False)
