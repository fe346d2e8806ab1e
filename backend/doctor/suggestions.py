"""Checks of what the project shows: its model version and its predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import requests

from backend.doctor.context import Context
from backend.doctor.finding import Check, Finding, Severity, named_tasks
from backend.errors import counted
from backend.labels.config import LabelConfig
from backend.labels.controls import Control
from backend.messages.message import Message, in_sequence


def prelabeling(context: Context) -> Iterator[Finding]:
    """The label stream shows predictions at all."""
    if not context.project["show_collab_predictions"]:
        yield Finding(
            "prelabeling",
            Severity.ERROR,
            Message('"Use predictions to prelabel tasks" is off.'),
            Message("Nobody sees a suggestion while labeling."),
            Message(
                "Switch it on under Settings > Annotation, or run ls-clip connect {number}.",
                number=context.number,
            ),
        )


def model_version(context: Context) -> Iterator[Finding]:
    """The version that the project shows exists and is the newest."""
    shown = context.project["model_version"]
    connect = Message("Run ls-clip connect {number}.", number=context.number)
    titles = {backend["title"]: backend for backend in context.backends}
    if not shown:
        yield Finding(
            "model-version",
            Severity.ERROR,
            Message("The project points at no model version."),
            Message("The label stream shows nothing, whatever predictions there are."),
            Message("{connect} Or choose one under Settings > Annotation.", connect=connect),
        )
    elif shown in titles:
        down = titles[shown].get("state") != "CO"
        yield Finding(
            "model-version",
            Severity.ERROR if down else Severity.WARNING,
            Message(
                "The project shows what the backend {shown!r} answers at the moment, and that one "
                "is down.",
                shown=shown,
            )
            if down
            else Message(
                "The project shows what the backend {shown!r} answers at the moment.", shown=shown
            ),
            Message("The label stream shows nothing, although there are predictions.")
            if down
            else Message("Each opening waits for the backend, and shows nothing while it is down."),
            Message("{connect} It points the project at stored predictions.", connect=connect),
        )
    elif shown not in context.predicted_versions:
        yield Finding(
            "model-version",
            Severity.ERROR,
            Message(
                "The project shows the version {shown!r}, of which there is no prediction.",
                shown=shown,
            ),
            Message("The label stream shows nothing."),
            connect,
        )


def backend_version(context: Context) -> Iterator[Finding]:
    """The running backend, these settings and the project agree on the version."""
    expected, shown = context.expected_version, context.project["model_version"]
    try:
        answer = context.setup(of_project=True)
        served = answer.body.get("model_version") if isinstance(answer.body, dict) else None
    except requests.RequestException:
        served = None
    if served is not None and served != expected:
        yield Finding(
            "backend-version",
            Severity.WARNING,
            Message(
                "The running backend serves {served}; with these settings it would be {expected}.",
                served=served,
                expected=expected,
            ),
            Message("Tasks opened live and imported ones get suggestions of different versions."),
            Message(
                "Restart ls-clip serve with the same encoder, store and settings as here, then "
                "run ls-clip connect {number}.",
                number=context.number,
            ),
        )
    elif shown != expected and shown in context.predicted_versions:
        yield Finding(
            "backend-version",
            Severity.WARNING,
            Message(
                "The project shows {shown}; the current version is {expected}.",
                shown=shown,
                expected=expected,
            ),
            Message(
                "Labels, encoder, head or thresholds have changed since, and the suggestions have "
                "not."
            ),
            Message("Run ls-clip connect {number}.", number=context.number),
        )


def missing(context: Context) -> Iterator[Finding]:
    """Every task without an annotation has a prediction of the version shown."""
    if _is_live(context):
        yield Finding(
            "predictions-missing",
            Severity.OK,
            Message("The backend answers when a task is opened."),
        )
        return
    # Annotated tasks keep the prediction that their annotator saw.
    lacking = context.open_tasks - {
        int(prediction["task"]) for prediction in _shown_predictions(context)
    }
    failed = sorted(lacking & context.failures.keys())
    if failed:
        yield Finding(
            "predictions-missing",
            Severity.WARNING,
            Message(
                "{tasks} without an annotation could not be predicted ({named}): {message}",
                tasks=counted(len(failed), "task"),
                named=named_tasks(failed),
                message=context.failures[failed[0]].get("message", ""),
            ),
            Message("They open with no box ticked."),
            in_sequence(
                context.failures[failed[0]].get("fix", ""),
                Message("Then run ls-clip connect {number}.", number=context.number),
            ),
        )
    rest = lacking - set(failed)
    if rest:
        yield Finding(
            "predictions-missing",
            Severity.WARNING,
            Message.of_count(
                len(rest),
                "{count} of {tasks} without an annotation has no prediction of {version}: {named}.",
                "{count} of {tasks} without an annotation have no prediction of {version}: "
                "{named}.",
                tasks=counted(len(context.open_tasks), "task"),
                version=_version(context),
                named=named_tasks(rest),
            ),
            Message("They open with no box ticked."),
            Message(
                "Run ls-clip connect {number}. For those that it cannot predict it says why, and "
                "what fixes it.",
                number=context.number,
            ),
        )


def duplicated(context: Context) -> Iterator[Finding]:
    """No task has two predictions of one version."""
    counts = Counter(
        (prediction["task"], prediction["model_version"]) for prediction in context.predictions
    )
    twice = {int(task) for (task, _), count in counts.items() if count > 1}
    if twice:
        yield Finding(
            "predictions-duplicated",
            Severity.WARNING,
            Message(
                "{tasks} with several predictions of one version: {named}.",
                tasks=counted(len(twice), "task"),
                named=named_tasks(twice),
            ),
            Message("Annotators see them all, and statistics count them all."),
            Message(
                "Run ls-clip prune {number} --duplicates when nobody is labeling.",
                number=context.number,
            ),
        )


def versions(context: Context) -> Iterator[Finding]:
    """There are predictions of one version only."""
    counts = Counter(str(prediction["model_version"]) for prediction in context.predictions)
    if len(counts) > 1:
        listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
        shown = context.project["model_version"]
        yield Finding(
            "predictions-versions",
            Severity.NOTE,
            Message(
                "There are predictions of several versions: {listed} and {more} more.",
                listed=listed,
                more=len(counts) - 5,
            )
            if len(counts) > 5
            else Message("There are predictions of several versions: {listed}.", listed=listed),
            Message(
                "Quick view shows them all, one tab each; the label stream shows {shown}.",
                shown=shown,
            )
            if shown
            else Message("Quick view shows them all, one tab each; the label stream shows none."),
            Message(
                "Delete an old one with ls-clip prune {number} --version NAME when nobody labels: "
                "it takes about a second for 200, and blocks everyone meanwhile.",
                number=context.number,
            ),
        )


def gone_labels(context: Context) -> Iterator[Finding]:
    """No prediction shown ticks a label that the config does not have any more."""
    gone: Counter[str] = Counter()
    tasks: set[int] = set()
    for prediction in _shown_predictions(context):
        unknown = set(_unknown_labels(context.config, prediction["result"]))
        gone.update(unknown)
        if unknown:
            tasks.add(int(prediction["task"]))
    if gone:
        yield Finding(
            "predictions-labels",
            Severity.WARNING,
            Message(
                "Predictions tick labels that the config does not have: {names}, in {tasks}.",
                names=", ".join(f"{label} ({count})" for label, count in gone.most_common(5)),
                tasks=named_tasks(tasks),
            ),
            Message("Nobody sees such a label, yet it is submitted with the annotation."),
            Message(
                "Run ls-clip connect {number}: it predicts with the current labels.",
                number=context.number,
            ),
        )


def _version(context: Context) -> str:
    """The version shown; where a backend's title stands for it, the one that it should serve."""
    return context.expected_version if _is_live(context) else context.project["model_version"]


def _is_live(context: Context) -> bool:
    """Whether the project shows what a backend answers at the moment."""
    shown = context.project["model_version"]
    return any(backend["title"] == shown for backend in context.backends)


def _shown_predictions(context: Context) -> list[dict[str, Any]]:
    version = _version(context)
    return [
        prediction for prediction in context.predictions if prediction["model_version"] == version
    ]


def _unknown_labels(config: LabelConfig, result: Iterable[dict[str, Any]]) -> Iterator[str]:
    controls: dict[str, Control] = {
        control.name: control for control in config.controls if not control.has_own_labels
    }
    for item in result:
        control = controls.get(item.get("from_name", ""))
        if control is None:
            continue
        known = {label.path for label in control.labels}
        for value in item.get("value", {}).get(control.kind, []):
            path = tuple(value) if isinstance(value, list) else (str(value),)
            if path not in known:
                yield " / ".join(map(str, path))


CHECKS = (
    Check(
        "prelabeling",
        Message("Suggestions are shown while labeling."),
        Message("Nobody sees them otherwise."),
        prelabeling,
        ("project",),
        project=True,
    ),
    Check(
        "model-version",
        Message("The project points at stored predictions."),
        Message("The label stream shows only these."),
        model_version,
        ("project", "prelabeling"),
        project=True,
    ),
    Check(
        "backend-version",
        Message("The running backend serves the version of these settings."),
        Message("Live and stored suggestions should be the same."),
        backend_version,
        ("config", "encoder", "store", "backend-login"),
        project=True,
    ),
    Check(
        "predictions-missing",
        Message("Every task that is to be done has a suggestion."),
        Message("The others open empty."),
        missing,
        ("config", "model-version"),
        project=True,
    ),
    Check(
        "predictions-duplicated",
        Message("No task has duplicate suggestions."),
        Message("Annotators would see both."),
        duplicated,
        ("project",),
        project=True,
    ),
    Check(
        "predictions-versions",
        Message("All predictions are of one version."),
        Message("Quick view shows all of them."),
        versions,
        ("project",),
        project=True,
    ),
    Check(
        "predictions-labels",
        Message("Suggestions contain only labels of the config."),
        Message("Others are submitted unseen."),
        gone_labels,
        ("config", "model-version"),
        project=True,
    ),
)
