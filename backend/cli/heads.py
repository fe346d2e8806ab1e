"""The commands around heads: train, heads, rollback."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from backend.cli.console import (
    JsonOption,
    ProjectArgument,
    compact_table,
    configured,
    console,
    plain,
)
from backend.cli.labels import print_renames
from backend.cli.runs import (
    follow,
    print_outcome,
    require_project,
    retries_for,
    warn_without_workers,
)
from backend.errors import SettingsError
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message

if TYPE_CHECKING:
    from backend.settings import Settings
    from backend.storage.head_set import HeadSet
    from jobs.run import Run
    from jobs.training_state import Training, TrainingStore

train_app = typer.Typer()
WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Show the progress until the suggestions are refreshed."),
]


@train_app.command()
def train(project: ProjectArgument, wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Train a project's head on approved annotations, and refresh its suggestions.

    A head that is worse than the one in use is rejected. With --wait the exit code is 1 if there
    are too few approvals, or if the training fails.
    """
    settings = configured()
    from jobs import enqueue, queue
    from jobs.polling import wait_for_training
    from jobs.queue import PREDICT, TRAIN
    from jobs.run import RunState
    from jobs.training_state import Outcome

    trainings = _trainings(settings, wait)
    require_project(settings, project)
    warn_without_workers(settings, TRAIN, PREDICT)
    number = enqueue.request_training(trainings, project)
    if not wait:
        if as_json:
            with queue.explained():
                typer.echo(json.dumps(trainings.get(project).as_dict(), ensure_ascii=False))
        else:
            console.print(f"The training is scheduled; follow it with: ls-clip heads {project}")
        return
    with console.status("training"):
        training = wait_for_training(trainings, project, number)
    run = _follow_refresh(settings, training)
    if as_json:
        answer = {**training.as_dict(), "refresh": None if run is None else run.as_dict()}
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        print_training(training, settings.language)
    made_none = training.outcome in {Outcome.FAILED, Outcome.TOO_FEW}
    raise typer.Exit(1 if made_none or (run is not None and run.state != RunState.DONE) else 0)


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


def print_training(training: Training, language: Language) -> None:
    """Print the outcome of a training; its reason is in the language of whoever trained."""
    from backend.cli.wording import OUTCOMES
    from backend.training.clicks_text import clicks_text
    from backend.vlpl.clicks import Clicks
    from jobs.training_state import Outcome

    word, colour = OUTCOMES[training.outcome]
    # After other outcomes, ``head`` is of an earlier training.
    made = training.head if training.outcome in {Outcome.ACCEPTED, Outcome.REJECTED} else ""
    head = f" {made}" if made else ""
    told = f"{localized(word, language)}{head}"
    console.print(f"[{colour}]{told}[/]: {plain(training.reason)}", highlight=False)
    # A rejected head leaves people with the suggestions that they have.
    rejected = training.outcome == Outcome.REJECTED
    clicks = training.serving_clicks if rejected else training.clicks
    if made and clicks is not None:
        text = clicks_text(Clicks.from_dict(clicks), training.missing)
        console.print(localized(text, language), highlight=False)
    for note in training.notes:
        console.print(plain(note), highlight=False)


@train_app.command()
def heads(
    project: ProjectArgument,
    head: Annotated[
        str | None, typer.Argument(help="With --labels: this head; default: the one in use.")
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels", help="Show how good a head is at each label, and what is missing."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List a project's heads: what they were trained on, how they were judged, which one serves."""
    settings = configured()
    from backend.cli.label_table import show_labels
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.storage.artifacts import DamagedArtifactError
    from backend.storage.head_registry import HeadRegistry
    from backend.storage.installations import open_store
    from backend.storage.project_state import ProjectState
    from backend.vlpl.fitting import HEAD_FROM

    if head is not None and not labels:
        raise SettingsError(
            "Which head is meant matters with --labels only.",
            f"ls-clip heads {project} --labels {head}, or ls-clip heads {project} for all.",
        )
    key = project_key(LabelStudioClient(settings).projects.get(project))
    store = open_store(settings)
    registry, former = HeadRegistry(store), ProjectState(store, key).former_names()
    if labels:
        show_labels(registry, key, head, as_json=as_json)
        if not as_json:
            print_renames(former)
        return
    damage = registry.damage(key)
    sets = [registry.get(key, name) for name in registry.names(key) if name not in damage]
    serving, candidate = "", ""
    history: list[str] = []
    try:
        serving, history = registry.serving(key), registry.history(key)
        candidate = registry.candidate(key)
    except DamagedArtifactError as error:
        damage["serving"] = str(error)
    training = _training(settings, project)
    if as_json:
        answer: dict[str, Any] = {"serving": serving, "history": history, "damaged": damage}
        answer["heads"] = [heads.summary() for heads in sets]
        answer["training"] = None if training is None else training.as_dict()
        answer["renamed"] = former
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    for name, message in damage.items():
        console.print(f"[bold red]{name} is damaged:[/] {plain(message)}", highlight=False)
    if history and serving != history[-1]:
        console.print(
            f"[bold red]{plain(history[-1])} should be in use and is damaged; {serving} is in use "
            f"instead.[/] Restore it from a backup, or keep {serving}: "
            f"ls-clip rollback {project} {serving}",
            highlight=False,
        )
    if not sets:
        console.print(
            "No head is in use; predictions are zero-shot. "
            f"The first head needs {HEAD_FROM} reviewed tasks."
        )
        if training is None:
            console.print("LS_CLIP_REDIS_URL is not set, so nothing is trained.")
    else:
        _print_heads(sets, serving, candidate, None if training is None else training.missing)
    print_renames(former)
    if training is not None:
        _print_state(settings, training)


def _print_state(settings: Settings, training: Training) -> None:
    """Print how the last training ended, what is new, and whether a training is going on."""
    from backend.cli.wording import TRAINING_STATES
    from jobs.training_state import TrainingState

    if training.outcome:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(training.ended))
        ended = Message("The last training ended {when}:", when=when)
        console.print(localized(ended, settings.language))
        print_training(training, settings.language)
    if training.pending:
        console.print(
            f"New approvals: {training.pending}. {training.needed} "
            f"{'starts' if training.needed == 1 else 'start'} a training at "
            f"once; fewer start one after {settings.train_after:.0f} s without another.",
            highlight=False,
        )
    if training.state != TrainingState.IDLE:
        word = TRAINING_STATES[training.state]
        console.print(f"A training is {word}. {plain(training.blocked_on)}".strip())


def _print_heads(sets: list[HeadSet], serving: str, accepted: str, missing: int | None) -> None:
    from backend.cli.wording import OUTCOMES
    from jobs.training_state import Outcome

    table = compact_table(
        "head", "in use", "made (UTC)", "reviewed", "judged", "mAP (before)", "clicks", "verdict"
    )
    for heads in sets:
        verdict, _ = OUTCOMES[Outcome.ACCEPTED if heads.accepted else Outcome.REJECTED]
        serves = "yes" if heads.name == serving else "soon" if heads.name == accepted else ""
        judged = f"{heads.metrics['judged']:.0f}" if "judged" in heads.metrics else ""
        made = heads.created[:16].replace("T", " ")
        clicks = "" if heads.clicks is None else f"{heads.clicks.per_task:.1f}"
        reviewed = str(heads.approvals)
        table.add_row(heads.name, serves, made, reviewed, judged, _rates(heads), clicks, verdict)
    out = Console()
    out.print(table)
    if serving not in {heads.name for heads in sets}:
        out.print("None of them is in use: suggestions are zero-shot, as before any review.")
    for heads in sets:
        counts = ", ".join(f"{count} {kind}" for kind, count in heads.provenance.items())
        line = f"[bold]{heads.name}[/]: {counts}; {plain(heads.reason)}"
        out.print(line, highlight=False, soft_wrap=True)
        said = _clicks(heads, missing if heads.name == serving else None)
        out.print(f"    {said}", highlight=False, soft_wrap=True)


def _rates(heads: HeadSet) -> str:
    """``41.2 (38.1)``: mAP in points, and that of what served before; empty where it tells nothing.

    Of few tasks it is that of a label or two.
    """
    from backend.vlpl.judge import TOLD_FROM

    rates = [heads.metrics.get(name) for name in ("mAP", "serving mAP")]
    if None in rates or heads.metrics.get("judged", 0) < TOLD_FROM:
        return ""
    now, before = (100 * rate for rate in rates if rate is not None)
    return f"{now:.1f} ({before:.1f})"


def _clicks(heads: HeadSet, missing: int | None) -> str:
    from backend.training.clicks_text import clicks_text

    if heads.clicks is not None:
        return clicks_text(heads.clicks, missing)
    if heads.labels:
        return "Clicks a task: not measured, no held-out task was reviewed."
    return "Clicks a task: not recorded, an earlier release made this head."


@train_app.command()
def rollback(
    project: ProjectArgument,
    head: Annotated[
        str | None,
        typer.Argument(help="A head, or zero-shot; default: the one in use before."),
    ] = None,
    wait: WaitOption = False,
) -> None:
    """Return to an earlier head: its scores are the same as before, byte for byte.

    The rollback lasts until new approvals train a head that is no worse.
    """
    settings = configured()
    from backend.labelstudio.client import LabelStudioClient
    from backend.labelstudio.projects import project_key
    from backend.projects.rollback import is_in_use, previous_head, start_rollback
    from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
    from backend.storage.installations import open_store
    from jobs import queue
    from jobs.run import RunState, Trigger
    from jobs.run_store import RunStore

    studio = LabelStudioClient(settings)
    key = project_key(studio.projects.get(project))
    registry = HeadRegistry(open_store(settings))
    if head is None:
        head = previous_head(registry, key, project)
    if head != ZERO_SHOT:
        registry.get(key, head)
    if is_in_use(registry, key, head):
        console.print(f"{head} is already in use.")
        return
    warn_without_workers(settings, queue.PREDICT)
    trainings = _trainings(settings, wait)
    runs = RunStore(trainings.connection)
    run = start_rollback(trainings, registry, key, project, head, trigger=Trigger.CLI)
    if not wait:
        console.print(f"Run [bold]{run.id}[/] returns to {head}.")
        return
    run = follow(runs, run)
    print_outcome(runs, run)
    serving, shown = registry.serving(key), studio.projects.get(project)["model_version"]
    serves = "Zero-shot suggestions are" if serving == ZERO_SHOT else f"{serving} is"
    console.print(f"{serves} in use now; the project shows {plain(shown or 'none')}.")
    raise typer.Exit(0 if run.state == RunState.DONE else 1)


def _trainings(settings: Settings, wait: bool = False) -> TrainingStore:
    from jobs import queue
    from jobs.training_state import TrainingStore

    return TrainingStore(queue.connect(settings, retries_for(wait)))


def _training(settings: Settings, project: int) -> Training | None:
    """How the training stands; None if no queue is set."""
    from jobs import queue

    if not settings.redis_url.get_secret_value():
        return None
    with queue.explained():
        return _trainings(settings).get(project)
