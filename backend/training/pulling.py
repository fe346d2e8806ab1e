"""Everything that people have approved in a project, as Label Studio has it now."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from backend.inference.holdout import Selection, is_blind, is_random_pick
from backend.labels.config import LabelConfig, parse_config
from backend.labels.controls import known_labels
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.storage.label_history import LabelHistory
from backend.storage.prediction_log import LoggedPrediction, PredictionLog
from backend.storage.project_state import ProjectState
from backend.storage.review_record import RoundRecord
from backend.storage.store import Store
from backend.storage.tables import chunks
from backend.training.approvals import PARTIAL, REVIEWED, Approval, Past, approval, known_approval
from backend.training.provenance import Shown, unix_time
from backend.vlpl.decisions import Provenance

CHUNK = 1000
"""Tasks whose log entries are read at once."""


@dataclass(frozen=True)
class Pulled:
    """What people have approved in a project, as Label Studio has it now.

    Attributes:
        key: ``<id>.<unix time of creation>``.
        config: the labeling config.
        approvals: control name -> approvals of its tasks, partly known ones included.
        data: task id -> its data, of all tasks in ``approvals`` and ``of_own_labels``.
        of_own_labels: the same as ``approvals`` for controls whose labels stand in each task's
            data, from which no head can be trained.
        random: ids of the tasks that chance alone had reviewed, see `is_random_pick`.
        tasks: how many tasks the project has; None where that is not known.
    """

    key: str
    config: LabelConfig
    approvals: Mapping[str, Sequence[Approval]]
    data: Mapping[int, Mapping[str, Any]]
    of_own_labels: Mapping[str, Sequence[Approval]] = field(default_factory=dict)
    random: frozenset[int] = frozenset()
    tasks: int | None = None

    @property
    def reviewed(self) -> dict[int, str]:
        """Task id -> a hash of its approvals; only tasks that were reviewed.

        Two pulls with the same hashes train the same head.
        """
        parts: dict[int, list[Any]] = {}
        for name, approvals in sorted(self.approvals.items()):
            for item in approvals:
                if item.provenance != Provenance.KNOWN:
                    parts.setdefault(item.task, []).append([name, item.states, item.provenance])
        return {
            task: hashlib.sha256(json.dumps(states).encode()).hexdigest()[:12]
            for task, states in parts.items()
        }

    @property
    def newest(self) -> float:
        """Unix time of the newest annotation."""
        return max(
            (item.updated for items in self.approvals.values() for item in items), default=0.0
        )


def pull(
    studio: LabelStudioClient,
    store: Store,
    number: int,
    share: float,
    most: int | None = None,
    *,
    notes: bool = True,
    skipped: bool = False,
    look: Callable[[Mapping[str, Any], LabelConfig], None] = lambda task, config: None,
) -> Pulled:
    """Ask Label Studio for everything that was approved in a project.

    Args:
        studio: the Label Studio.
        store: where the project's state is kept, and what was shown.
        number: the project.
        share: of the tasks that are blind, where the log does not tell.
        most: only so many annotated tasks, those with the lowest ids, and no others; None: all.
        notes: whether labels that are new, or gone, are noted in the store; else it is only read.
        skipped: whether labels and controls with ``model_skip`` are looked at, too.
        look: is shown each annotated task, and the config.

    Raises:
        LabelConfigError: the labeling config has no control that can be predicted.
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    project = studio.projects.get(number)
    key, config = project_key(project), parse_config(project["label_config"])
    config.require_controls()
    state = ProjectState(store, key)
    since, history = _ages(state, config, notes)
    known_field = state.known_field()
    config = config.with_former(state.former_names())
    config = config.with_skipped() if skipped else config
    pasts = {
        control.name: Past(
            since[control.name],
            history.began,
            frozenset(history.gone.get(control.name, {})),
            config,
        )
        for control in config.controls
    }
    controls = [control for control in config.controls if not control.has_own_labels]
    approvals: dict[str, list[Approval]] = {control.name: [] for control in controls}
    own = [control for control in config.controls if control.has_own_labels]
    of_own_labels: dict[str, list[Approval]] = {control.name: [] for control in own}
    data: dict[int, Mapping[str, Any]] = {}
    own_data: dict[int, Mapping[str, Any]] = {}
    prediction_log = PredictionLog(store)
    annotated_tasks = islice(studio.tasks.annotated(number), most)
    for tasks in chunks(annotated_tasks, CHUNK):
        logged: dict[int, dict[str, LoggedPrediction]] = {int(task["id"]): {} for task in tasks}
        for (number_of, version), entry in prediction_log.of_tasks(key, logged).items():
            logged[number_of][version] = entry
        for task in tasks:
            look(task, config)
            shown = _shown(key, task, logged[int(task["id"])], share)
            for control in controls:
                annotated = approval(task, control, pasts[control.name], shown)
                known = known_labels(control, task["data"], known_field)
                combined = _completed(annotated, known_approval(int(task["id"]), control, known))
                if combined is not None:
                    approvals[control.name].append(combined)
                    data[combined.task] = task["data"]
            for control in own:
                own_labels = control.for_task(task["data"])
                annotated = approval(task, own_labels, Past(config=config), shown)
                if annotated is not None:
                    of_own_labels[control.name].append(annotated)
                    own_data[annotated.task] = task["data"]
    if known_field and most is None:
        for task in studio.tasks.iterate(number):
            if int(task["id"]) in data:
                continue
            for control in controls:
                known = known_labels(control, task["data"], known_field)
                only_known = known_approval(int(task["id"]), control, known)
                if only_known is not None:
                    approvals[control.name].append(only_known)
                    data[only_known.task] = task["data"]
    selection = Selection(share, 0.0, state.orders(), state.round() or RoundRecord())
    random = frozenset(
        item.task
        for items in approvals.values()
        for item in items
        if item.provenance in REVIEWED and is_random_pick(key, item.task, item.created, selection)
    )
    return Pulled(
        key,
        config,
        approvals,
        {**own_data, **data},
        of_own_labels,
        random,
        project["task_number"],
    )


def _ages(
    state: ProjectState, config: LabelConfig, notes: bool
) -> tuple[dict[str, dict[str, float]], LabelHistory]:
    """Since when each label is known, and what is known of former ones; noted only if asked for."""
    labels, now, conditions = config.label_keys(), time.time(), config.conditions()
    if notes:
        return state.labels_since(labels, now, conditions), state.label_history()
    return state.seen(labels, now, conditions)


def _shown(
    key: str, task: Mapping[str, Any], logged: Mapping[str, LoggedPrediction], share: float
) -> Shown:
    versions: dict[int, str] = {}
    made: dict[str, float] = {}
    for prediction in task.get("predictions") or []:
        version, when = str(prediction["model_version"]), unix_time(prediction, "created_at")
        versions[int(prediction["id"])] = version
        if when is not None:
            made[version] = min(when, made.get(version, when))
    # The log has which suggestions were held back, in case the share was changed since; a task
    # without a logged prediction is blind by the share alone.
    return Shown(logged, versions, is_blind(key, int(task["id"]), share), made)


def _completed(annotated: Approval | None, known: Approval | None) -> Approval | None:
    """The approval of the annotations; one that names only some labels gets the known ones too."""
    if annotated is None or known is None or annotated.provenance not in PARTIAL:
        return annotated or known
    states = tuple(
        max(state, from_data)
        for state, from_data in zip(annotated.states, known.states, strict=True)
    )
    return replace(annotated, states=states)
