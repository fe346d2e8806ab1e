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


def prelabeling(context: Context) -> Iterator[Finding]:
    """The label stream shows predictions at all."""
    if not context.project["show_collab_predictions"]:
        yield Finding(
            "prelabeling",
            Severity.ERROR,
            '"Use predictions to prelabel tasks" is off.',
            "Nobody sees a suggestion while labeling.",
            f"Switch it on under Settings > Annotation, or run ls-clip connect {context.number}.",
        )


def model_version(context: Context) -> Iterator[Finding]:
    """The version that the project shows exists and is the newest."""
    shown = context.project["model_version"]
    connect = f"Run ls-clip connect {context.number}."
    titles = {backend["title"]: backend for backend in context.backends}
    if not shown:
        yield Finding(
            "model-version",
            Severity.ERROR,
            "The project points at no model version.",
            "The label stream shows nothing, whatever predictions there are.",
            f"{connect} Or choose one under Settings > Annotation.",
        )
    elif shown in titles:
        down = titles[shown].get("state") != "CO"
        yield Finding(
            "model-version",
            Severity.ERROR if down else Severity.WARNING,
            f"The project shows what the backend {shown!r} answers at the moment"
            f"{', and that one is down' if down else ''}.",
            "The label stream shows nothing, although there are predictions."
            if down
            else "Each opening waits for the backend, and shows nothing while it is down.",
            f"{connect} It points the project at stored predictions.",
        )
    elif shown not in context.predicted_versions:
        yield Finding(
            "model-version",
            Severity.ERROR,
            f"The project shows the version {shown!r}, of which there is no prediction.",
            "The label stream shows nothing.",
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
            f"The running backend serves {served}; with these settings it would be {expected}.",
            "Tasks opened live and imported ones get suggestions of different versions.",
            "Restart ls-clip serve with the same encoder, store and settings as here, then run "
            f"ls-clip connect {context.number}.",
        )
    elif shown != expected and shown in context.predicted_versions:
        yield Finding(
            "backend-version",
            Severity.WARNING,
            f"The project shows {shown}; the current version is {expected}.",
            "Labels, encoder, head or thresholds have changed since, and the suggestions have not.",
            f"Run ls-clip connect {context.number}.",
        )


def missing(context: Context) -> Iterator[Finding]:
    """Every task without an annotation has a prediction of the version shown."""
    if _is_live(context):
        yield Finding(
            "predictions-missing", Severity.OK, "The backend answers when a task is opened."
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
            f"{counted(len(failed), 'task')} without an annotation could not be predicted "
            f"({named_tasks(failed)}): {context.failures[failed[0]].get('message', '')}",
            "They open with no box ticked.",
            f"{context.failures[failed[0]].get('fix', '')} Then run ls-clip connect "
            f"{context.number}.".strip(),
        )
    rest = lacking - set(failed)
    if rest:
        yield Finding(
            "predictions-missing",
            Severity.WARNING,
            f"{len(rest)} of {counted(len(context.open_tasks), 'task')} without an annotation "
            f"{'has' if len(rest) == 1 else 'have'} no prediction of {_version(context)}: "
            f"{named_tasks(rest)}.",
            "They open with no box ticked.",
            f"Run ls-clip connect {context.number}. For those that it cannot predict it says why, "
            "and what fixes it.",
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
            f"{counted(len(twice), 'task')} with several predictions of one version: "
            f"{named_tasks(twice)}.",
            "Annotators see them all, and statistics count them all.",
            f"Run ls-clip prune {context.number} --duplicates when nobody is labeling.",
        )


def versions(context: Context) -> Iterator[Finding]:
    """There are predictions of one version only."""
    counts = Counter(str(prediction["model_version"]) for prediction in context.predictions)
    if len(counts) > 1:
        rest = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        yield Finding(
            "predictions-versions",
            Severity.NOTE,
            "There are predictions of several versions: "
            f"{', '.join(f'{name} ({count})' for name, count in counts.most_common(5))}{rest}.",
            "Quick view shows them all, one tab each; the label stream shows "
            f"{context.project['model_version'] or 'none'}.",
            f"Delete an old one with ls-clip prune {context.number} --version NAME when nobody "
            "labels: it takes about a second for 200, and blocks everyone meanwhile.",
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
            "Predictions tick labels that the config does not have: "
            f"{', '.join(f'{label} ({count})' for label, count in gone.most_common(5))}, in "
            f"{named_tasks(tasks)}.",
            "Nobody sees such a label, yet it is submitted with the annotation.",
            f"Run ls-clip connect {context.number}: it predicts with the current labels.",
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
        "Suggestions are shown while labeling.",
        "Nobody sees them otherwise.",
        prelabeling,
        ("project",),
        project=True,
    ),
    Check(
        "model-version",
        "The project points at stored predictions.",
        "The label stream shows only these.",
        model_version,
        ("project", "prelabeling"),
        project=True,
    ),
    Check(
        "backend-version",
        "The running backend serves the version of these settings.",
        "Live and stored suggestions should be the same.",
        backend_version,
        ("config", "encoder", "store", "backend-login"),
        project=True,
    ),
    Check(
        "predictions-missing",
        "Every task that is to be done has a suggestion.",
        "The others open empty.",
        missing,
        ("config", "model-version"),
        project=True,
    ),
    Check(
        "predictions-duplicated",
        "No task has duplicate suggestions.",
        "Annotators would see both.",
        duplicated,
        ("project",),
        project=True,
    ),
    Check(
        "predictions-versions",
        "All predictions are of one version.",
        "Quick view shows all of them.",
        versions,
        ("project",),
        project=True,
    ),
    Check(
        "predictions-labels",
        "Suggestions contain only labels of the config.",
        "Others are submitted unseen.",
        gone_labels,
        ("config", "model-version"),
        project=True,
    ),
)
