"""The commands around heads: train, heads, rollback."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from backend.cli.console import JsonOption, ProjectArgument, compact_table, console, plain
from backend.cli.project import (
    follow,
    print_outcome,
    require_project,
    retries_for,
    warn_without_workers,
)
from backend.errors import QueueError, SettingsError
from backend.logs import configure_logging
from backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from backend.storage.head_registry import HeadSet
    from jobs.run import Run
    from jobs.training_state import Training, TrainingStore

train_app = typer.Typer()
WaitOption = Annotated[bool, typer.Option("--wait", help="Show the progress until it is done.")]


@train_app.command()
def train(project: ProjectArgument, wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Train a project's head on what people approved, and refresh its suggestions.

    A head that is worse than the one that serves is kept aside. With --wait the exit code is 1 if
    too little is approved, or if it fails.
    """
    settings = load_settings()
    configure_logging(settings)
    from jobs import enqueue
    from jobs.polling import wait_for_training
    from jobs.queue import PREDICT, TRAIN
    from jobs.training_state import FAILED, TOO_FEW

    trainings = _trainings(settings, wait)
    require_project(settings, project)
    warn_without_workers(settings, TRAIN, PREDICT)
    number = enqueue.ask_for_training(trainings, project)
    if not wait:
        console.print(f"Asked for a training; see it with: ls-clip heads {project}")
        return
    with console.status("training"):
        training = wait_for_training(trainings, project, number)
    run = _follow_refresh(settings, training)
    if as_json:
        told = {**training.as_dict(), "refresh": None if run is None else run.as_dict()}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        print_training(training)
    failed = training.outcome in {FAILED, TOO_FEW} or (run is not None and run.state != "done")
    raise typer.Exit(1 if failed else 0)


def _follow_refresh(settings: Settings, training: Training) -> Run | None:
    """Wait for the run that puts an accepted head into use."""
    from jobs.polling import wait_for_refresh
    from jobs.run_store import RunStore

    if not training.candidate:
        return None
    runs = RunStore(_trainings(settings, wait=True).connection)
    with console.status("waiting for the refresh to begin"):
        run = wait_for_refresh(runs, training)
    run = follow(runs, run)
    print_outcome(runs, run)
    return run


def print_training(training: Training) -> None:
    """What came of a training."""
    from jobs.training_state import ACCEPTED, REJECTED

    colour = {"accepted": "green", "failed": "red"}.get(training.outcome, "yellow")
    # Of the others it is an older one.
    made = training.head if training.outcome in {ACCEPTED, REJECTED} else ""
    head = f" {made}" if made else ""
    console.print(
        f"[{colour}]{training.outcome}{head}[/]: {plain(training.reason)}", highlight=False
    )
    for note in training.notes:
        console.print(plain(note), highlight=False)


@train_app.command()
def heads(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """List a project's heads: what they were trained on, how they were judged, which one serves."""
    settings = load_settings()
    configure_logging(settings)
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.storage.head_registry import HeadRegistry
    from backend.storage.store import Store

    key = project_key(LabelStudioClient(settings).projects.get(project))
    kept = HeadRegistry(Store(settings.store_uri))
    serving = kept.serving(key)
    found = [kept.get(key, name) for name in kept.names(key)]
    training = _training(settings, project)
    if as_json:
        told: dict[str, Any] = {"serving": serving, "history": kept.history(key)}
        told["heads"] = [one.summary() for one in found]
        told["training"] = None if training is None else training.as_dict()
        typer.echo(json.dumps(told, ensure_ascii=False, indent=1))
        return
    if not found:
        console.print("No head serves; predictions are made zero-shot.")
    else:
        _print_heads(found, serving, kept.candidate(key))
    if training is not None and training.outcome:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(training.ended))
        console.print(f"The last training ended {when}:")
        print_training(training)
    if training is not None and training.pending:
        console.print(
            f"Approvals noted since then: {training.pending}; {training.enough} start a training "
            f"at once, fewer when nobody goes on ({settings.train_after:.0f} s).",
            highlight=False,
        )
    if training is not None and training.state != "idle":
        console.print(f"A training is {training.state}. {plain(training.waits_for)}".strip())


def _print_heads(found: list[HeadSet], serving: str, accepted: str) -> None:
    table = compact_table(
        "head", "serves", "made (UTC)", "reviewed", "judged on", "mAP", "mAP before", "verdict"
    )
    for one in found:
        rates = [one.metrics.get(name) for name in ("mAP", "serving mAP")]
        shown = ["" if rate is None else f"{rate:.3f}" for rate in rates]
        verdict = "accepted" if one.accepted else "kept aside"
        serves = "yes" if one.name == serving else "soon" if one.name == accepted else ""
        judged = f"{one.metrics['judged']:.0f}" if "judged" in one.metrics else ""
        made = one.created[:16].replace("T", " ")
        table.add_row(one.name, serves, made, str(one.approvals), judged, *shown, verdict)
    out = Console()
    out.print(table)
    if serving not in {one.name for one in found}:
        out.print("None of them serves: suggestions are zero-shot.")
    for one in found:
        said = ", ".join(f"{count} {kind}" for kind, count in one.provenance.items())
        out.print(
            f"[bold]{one.name}[/]: {said}; {plain(one.reason)}", highlight=False, soft_wrap=True
        )


@train_app.command()
def rollback(
    project: ProjectArgument,
    head: Annotated[
        str | None,
        typer.Argument(help="A head, or zero-shot; default: the one that served before."),
    ] = None,
    wait: WaitOption = False,
) -> None:
    """Go back to an earlier head: the same scores as then, byte for byte.

    It lasts until what is approved from then on makes a head that is no worse.
    """
    settings = load_settings()
    configure_logging(settings)
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
    from backend.storage.store import Store
    from jobs import enqueue, queue
    from jobs.run_store import RunStore
    from jobs.training_state import IDLE

    key = project_key(LabelStudioClient(settings).projects.get(project))
    kept = HeadRegistry(Store(settings.store_uri))
    if head is None:
        history = kept.history(key)
        # What served before it came first: twice is two steps back, not there and back.
        before = history[: history.index(history[-1])] if history else []
        if not before:
            raise SettingsError(
                "No other head has served before.", f"ls-clip heads {project} lists them."
            )
        head = before[-1]
    if head != ZERO_SHOT:
        kept.get(key, head)
    if head == kept.serving(key):
        console.print(f"{head} serves already.")
        return
    warn_without_workers(settings, queue.PREDICT)
    trainings = _trainings(settings, wait)
    runs = RunStore(trainings.connection)
    with queue.explained():
        if trainings.get(project).state != IDLE:
            raise QueueError(
                f"Project {project} is being trained, and the new head would come after this.",
                f"Wait for its end (ls-clip heads {project}); then again.",
            )
    run, fresh = enqueue.start(runs, project, "unlabelled", "cli", head)
    if not fresh:
        raise QueueError(
            f"Project {project} has a run going ({run.id}, {run.state}).",
            f"Wait for its end, or: ls-clip runs {project} --cancel {run.id}; then again.",
        )
    # What was accepted and waits for its refresh is not wanted now.
    kept.set_candidate(key, "")
    with queue.explained():
        trainings.note(project, candidate="")
    if not wait:
        console.print(f"Run [bold]{run.id}[/] goes back to {head}.")
        return
    run = follow(runs, run)
    print_outcome(runs, run)
    raise typer.Exit(0 if run.state == "done" else 1)


def _trainings(settings: Settings, wait: bool = False) -> TrainingStore:
    from jobs import queue
    from jobs.training_state import TrainingStore

    return TrainingStore(queue.connect(settings, retries_for(wait)))


def _training(settings: Settings, project: int) -> Training | None:
    """How the training stands; None where there is no queue to ask."""
    from jobs import queue

    if not settings.redis_url.get_secret_value():
        return None
    with queue.explained():
        return _trainings(settings).get(project)
