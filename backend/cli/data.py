"""The commands on a project's data: prune, forget."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.console import (
    ProjectArgument,
    configured,
    console,
    plain,
)
from backend.cli.runs import run_store
from backend.errors import SettingsError, counted

data_app = typer.Typer()


@data_app.command()
def prune(
    project: ProjectArgument,
    version: Annotated[
        str | None, typer.Option(help="Delete the predictions of this model version.")
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Delete all but one of several equal predictions.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete old predictions in Label Studio: the only command that deletes there.

    Without an option it lists the versions. Label Studio deletes about 200 per second, and nobody
    can submit during that time.
    """
    settings = configured()
    from backend.labelstudio.client import LabelStudioClient
    from backend.projects.deletion import delete, plan_deletion

    studio = LabelStudioClient(settings)
    shown = studio.projects.get(project)["model_version"]
    versions = studio.predictions.versions(project)
    if version is None and not duplicates:
        table = Table("model version", "predictions", "shown")
        for name, count in versions.items():
            table.add_row(name, str(count), "yes" if name == shown else "")
        Console().print(table)
        return
    if version is not None and version not in versions:
        raise SettingsError(
            f"Project {project} has no predictions of a version {version!r}.",
            f"ls-clip prune {project} lists the versions that it has.",
        )
    what = plan_deletion(studio, project, version, duplicates)
    if what.count == 0:
        console.print("There is nothing to delete.")
        return
    seconds = max(1, round(what.seconds))
    console.print(
        f"{counted(what.count, 'prediction')} of project {project} will be deleted in Label "
        f"Studio. That takes about {seconds} s, during which nobody can submit there. Which "
        "prediction an annotation came from is kept in our store, not in Label Studio."
    )
    if version == shown:
        console.print(
            f"[bold red]The project shows {plain(shown)}:[/] its tasks will open with nothing "
            f"ticked until ls-clip predict {project} or ls-clip connect {project} has run again.",
            highlight=False,
        )
    if not yes and not typer.confirm("Delete them?"):
        raise typer.Exit(1)
    console.print(f"{counted(delete(studio, project, what), 'prediction')} deleted.")


@data_app.command()
def forget(
    project: ProjectArgument,
    task: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Only this task; can be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase what is stored about a project or about some of its tasks.

    Erased are embeddings, image addresses, logged predictions, and task lists left over from runs;
    for a whole project also its heads and statistics, so that suggestions are zero-shot again and
    the next head is called h1. The field with the known labels, the date of each label and its
    former names are kept, and so are embeddings of images that another task uses too. Nothing in
    Label Studio is changed.
    """
    settings = configured()
    from backend.inference.task_images import LARGEST_ID
    from backend.storage.installations import open_store
    from backend.storage.prediction_log import PredictionLog
    from jobs import queue
    from jobs.run_files import FOLDER, erase_ended
    from jobs.training_state import TrainingStore

    if task and max(task) > LARGEST_ID:
        raise SettingsError(f"No task has the number {max(task)}.", "Give the task's id.")
    what = f"tasks {', '.join(map(str, task))}" if task else "all tasks and the heads"
    store = open_store(settings)
    prediction_log = PredictionLog(store)
    if task and not prediction_log.has(f"{project}.", task):
        console.print(f"Nothing is stored about project {project}, {what}.")
        return
    if not yes and not typer.confirm(f"Erase what is stored about project {project}, {what}?"):
        raise typer.Exit(1)
    gone = prediction_log.purge(f"{project}.", task or None)
    if gone.images or gone.predictions:
        heads = "" if task else ", its heads and statistics"
        erased = [
            f"embeddings of {counted(gone.images, 'image')}" if gone.images else "",
            counted(gone.predictions, "logged prediction") if gone.predictions else "",
        ]
        listed = ", ".join(part for part in erased if part)
        console.print(f"Erased: {listed}{heads}.", highlight=False)
        if not task:
            console.print(
                "Label Studio shows what it was given until "
                f"ls-clip predict {project} or ls-clip connect {project} has run."
            )
    else:
        console.print(f"Nothing is stored about project {project}, {what}.")
    if not settings.redis_url.get_secret_value():
        # Nobody else knows the runs of a store that has no queue.
        store.artifacts.erase(FOLDER, lambda _: True)
        return
    with queue.explained():
        erase_ended(store.artifacts, run_store(settings))
        if not task:
            TrainingStore(queue.connect(settings)).purge(project)
