"""From a project to the rows of an export: what people decided, else what is suggested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.images.address import compact_address, fetch_address
from backend.inference.task_images import images_of_task, task_data, task_id
from backend.labels.controls import Control, all_ticked
from backend.labels.visibility import Ticks
from backend.labelstudio.client import LabelStudioClient
from backend.projects.export.names import encodable, original_name
from backend.projects.export.rows import ExportedImage, ExportedTask, LabelState, Presence
from backend.projects.export.scores import KeptScores, Suggestion
from backend.projects.label_states import State
from backend.storage.tables import chunks
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.decisions import NEGATIVE, POSITIVE, UNKNOWN, Provenance

CHUNK = 1000
"""Tasks whose log entries are read at once."""
_PRESENCE = {POSITIVE: Presence.PRESENT, NEGATIVE: Presence.ABSENT}


def exported(
    studio: LabelStudioClient,
    number: int,
    pulled: Pulled,
    scores: KeptScores,
    *,
    pseudo: bool,
    others: Mapping[int, Sequence[Sequence[Mapping[str, Any]]]] | None = None,
) -> Iterator[ExportedTask]:
    """All tasks of a project that have an image, with the state of every label.

    Args:
        studio: the Label Studio.
        number: the project.
        pulled: its approvals.
        scores: what it is suggested.
        pseudo: whether suggestions count as pseudo-labels; else such labels are unknown.
        others: task id -> see `ExportedTask`.

    Raises:
        StudioError: Label Studio cannot be asked.
        StoreError: the store cannot be read.
    """
    approvals = {
        (name, approval.task): approval
        for by_control in (pulled.approvals, pulled.of_own_labels)
        for name, of_control in by_control.items()
        for approval in of_control
    }
    for tasks in chunks(studio.tasks.iterate(number), CHUNK):
        logged = scores.logged(tasks) if scores.version else {}
        for task in tasks:
            task_id = int(task["id"])
            entry = logged.get(task_id)
            controls = [plain.for_task(task_data(task)) for plain in pulled.config.controls]
            decided = {
                control.name: approval
                for control in controls
                if (approval := approvals.get((control.name, task_id))) is not None
                # An annotation made from a prediction: no person has decided.
                and approval.provenance != Provenance.BULK
            }
            suggestions = {
                control.name: scores.suggestion(control, task, entry) for control in controls
            }
            preselected = all_ticked(pulled.config.preselected)
            counted = _suggested(controls, decided, suggestions, preselected) if pseudo else {}
            states = {
                control.name: _states(
                    control,
                    decided.get(control.name),
                    suggestions[control.name],
                    scores.version,
                    counted.get(control.name, frozenset()),
                )
                for control in controls
            }
            images = _images(task, controls, states)
            score = None if entry is None else entry.score
            kept = (others or {}).get(task_id, ())
            yield ExportedTask(task_id, task_data(task), images, score, scores.version, kept)


def image_addresses(task: Mapping[str, Any], controls: Sequence[Control]) -> dict[str, str]:
    """A task's images: the address as its data has it -> the address to fetch it from."""
    addresses: dict[str, str] = {}
    for control in controls:
        written = [encodable(value) for value in control.image_values_of(task_data(task))]
        sources = [fetch_address(value, task_id(task)) for value in written]
        addresses |= {value.strip(): source for value, source in zip(written, sources, strict=True)}
    return addresses


def _images(
    task: Mapping[str, Any],
    controls: Sequence[Control],
    states: Mapping[str, tuple[LabelState, ...]],
) -> tuple[ExportedImage, ...]:
    images = []
    for address, source in image_addresses(task, controls).items():
        labels = tuple(
            state
            for control in controls
            if source in images_of_task(control, task)
            for state in states[control.name]
        )
        images.append(
            ExportedImage(
                task=int(task["id"]),
                # A data: URI would repeat the whole image in the row of each label.
                image=compact_address(address),
                source=source,
                name=original_name(task_data(task), address, int(task["id"])),
                reviewed=_is_reviewed(labels),
                labels=labels,
            )
        )
    return tuple(images)


def _is_reviewed(labels: Sequence[LabelState]) -> bool:
    # Earlier releases did not note when labels with model_skip were added.
    predicted = [one for one in labels if not one.label.skipped] or labels
    return bool(predicted) and all(one.state == State.APPROVED for one in predicted)


def _suggested(
    controls: Sequence[Control],
    decided: Mapping[str, Approval],
    suggestions: Mapping[str, Suggestion],
    others: Ticks,
) -> dict[str, frozenset[str]]:
    """Control name -> keys of the labels that are suggested where nobody has decided.

    Nothing in a control that is hidden by what people decided, and where they did not by what is
    suggested, or preselected in controls that are left out (``others``).
    """
    ticks = dict(others)
    for control in controls:
        approval, keys = decided.get(control.name), suggestions[control.name].ticked
        states = (UNKNOWN,) * len(control.labels) if approval is None else approval.states
        ticks[control.name] = frozenset(
            label.stored
            for label, state in zip(control.labels, states, strict=True)
            if state == POSITIVE or (state == UNKNOWN and label.key in keys)
        )
    return {
        control.name: frozenset(
            label.key
            for label in control.labels
            if label.key in suggestions[control.name].ticked and label.is_shown(ticks)
        )
        for control in controls
        if control.is_shown(ticks)
    }


def _states(
    control: Control,
    approval: Approval | None,
    suggestion: Suggestion,
    version: str,
    suggested: frozenset[str],
) -> tuple[LabelState, ...]:
    states = []
    for place, label in enumerate(control.labels):
        decision = UNKNOWN if approval is None else approval.states[place]
        provenance = "" if approval is None else approval.provenance
        presence = _PRESENCE.get(decision, Presence.UNKNOWN)
        if decision != UNKNOWN:
            state = State.KNOWN if provenance == Provenance.KNOWN else State.APPROVED
        elif label.key in suggested:
            state, presence = State.PSEUDO, Presence.PRESENT
        else:
            state = State.UNKNOWN
        probability = suggestion.probabilities.get(label.key)
        states.append(
            LabelState(
                control,
                label,
                state,
                presence,
                probability,
                provenance if decision != UNKNOWN else "",
                "" if probability is None else version,
            )
        )
    return tuple(states)
