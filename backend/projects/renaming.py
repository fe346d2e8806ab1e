"""Renames a label: what was approved, learned and known under its old name counts for the new one.

Label Studio keeps the old name in its annotations, which are never changed: it is understood as the
new one from then on. The rename is part of the project's state in the store.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import SettingsError
from backend.labels.config import LabelConfig, parse_config
from backend.labels.controls import Control
from backend.labels.renames import SEPARATOR, Renames
from backend.labels.task_values import field_value
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.messages.message import Message
from backend.storage.head_registry import HeadRegistry
from backend.storage.label_history import FormerLabel, LabelHistory, Rename
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from backend.text_files import one_line

EDITOR = "Settings > Labeling Interface"


@dataclass(frozen=True)
class ProbableRename:
    """A label that is gone, and one that is new in its place.

    Attributes:
        project: its number.
        control: name of the control.
        old: key of the label that is gone.
        new: key of the new one.
    """

    project: int
    control: str
    old: str
    new: str

    @property
    def question(self) -> Message:
        """One sentence for a person."""
        return Message(
            "In {control!r} the label {old!r} is gone, and {new!r} is new there.",
            control=self.control,
            old=self.old,
            new=self.new,
        )

    @property
    def command(self) -> str:
        """What says that it is a rename."""
        # Else a name that begins with a dash is taken for an option.
        dashes = "-- " if self.old.startswith("-") or self.new.startswith("-") else ""
        return f"ls-clip rename {dashes}{self.project} {_word(self.old)} {_word(self.new)}"


@dataclass(frozen=True)
class Renamed:
    """What a rename has done.

    Attributes:
        control: name of the control.
        is_undo: whether an earlier rename was taken back.
        is_merge: whether the two are known to have existed side by side.
    """

    control: str
    is_undo: bool = False
    is_merge: bool = False


def probable_renames(state: ProjectState, config: LabelConfig, number: int) -> list[ProbableRename]:
    """Labels that were probably renamed in the labeling config, and that nobody has decided about.

    Raises:
        StoreError: the store cannot be read.
    """
    since, history = state.seen(config.label_keys(), time.time(), config.conditions())
    renames = state.former_names()
    found = []
    for control in config.with_skipped().controls:
        ages = since[control.name]
        keys = list(ages)
        pairs = [
            (old, keys[former.place])
            for old, former in history.gone.get(control.name, {}).items()
            if not former.settled
            and old not in renames.get(control.name, {})
            and former.place < len(keys)
            and ages[keys[former.place]] == former.until
        ]
        # Where every label is another one, the control asks for something else.
        if len(pairs) == 1 or len(pairs) < len(keys):
            found += [ProbableRename(number, control.name, old, new) for old, new in pairs]
    return found


def notice(studio: LabelStudioClient, store: Store, number: int) -> list[ProbableRename]:
    """Note the labels that a project has now, and return those that were probably renamed.

    Raises:
        LabelConfigError: the labeling config cannot be read.
        StudioError: there is no such project, or Label Studio does not answer.
        StoreError: the store cannot be read or written.
    """
    project = studio.projects.get(number)
    config, state = parse_config(project["label_config"]), ProjectState(store, project_key(project))
    state.labels_since(config.label_keys(), time.time(), config.conditions())
    return probable_renames(state, config, number)


def rename(
    studio: LabelStudioClient,
    store: Store,
    number: int,
    names: tuple[str, str],
    control_name: str | None = None,
) -> Renamed:
    """Let a label's old name mean another label of the same control from now on.

    Args:
        studio: the Label Studio.
        store: where the project's state is kept.
        number: the project.
        names: the old key and the new one; two that were renamed the other way round take that
            back.
        control_name: which control; None: the only one that the names fit.

    Raises:
        LabelConfigError: the project's labeling config has no control that can be predicted.
        SettingsError: a name does not exist, fits several controls, or is still in use.
        StudioError: there is no such project, or Label Studio does not answer.
        StoreError: the store cannot be read or written.
    """
    key = project_key(studio.projects.get(number))
    # What one rename reads must not be changed by another one before it writes.
    with store.locks.hold(f"renames of {key}"):
        return _rename(studio, store, studio.projects.get(number), names, control_name)


def _rename(
    studio: LabelStudioClient,
    store: Store,
    project: Mapping[str, Any],
    names: tuple[str, str],
    control_name: str | None,
) -> Renamed:
    """`rename`, of a project as Label Studio describes it."""
    old, new = names
    number, key = int(project["id"]), project_key(project)
    config = parse_config(project["label_config"])
    config.require_controls()
    config = config.with_skipped()
    state = ProjectState(store, key)
    since = state.labels_since(config.label_keys(), time.time(), config.conditions())
    if old == new:
        raise SettingsError(
            f"The label {old!r} cannot be renamed to itself.", "Give the old and the new name."
        )
    history, renames = state.label_history(), state.renames()
    fitting = _fitting(config, control_name, number, names, renames)
    if len(fitting) > 1:
        former = [c for c in fitting if old in _former_keys(c, history, renames)]
        fitting = former or fitting
    if len(fitting) > 1:
        listed = ", ".join(control.name for control in fitting)
        raise SettingsError(
            f"Several controls of project {number} have a label {new!r}: {listed}.",
            "Say which one is meant with --control.",
        )
    control = fitting[0]
    of_it = renames.get(control.name, [])
    live = {label.key for label in control.labels}
    back = next((rename for rename in of_it if (rename.old, rename.new) == (new, old)), None)
    if back is not None and (new not in live or old in live):
        kept = [rename for rename in of_it if rename != back]
        state.set_renames(control.name, kept, back.since)
        return Renamed(control.name, is_undo=True)
    if old in live:
        raise SettingsError(
            f"{old!r} is still a label of {control.name!r}: annotators can go on choosing it.",
            f"Remove it from the labeling config ({EDITOR}) first.",
        )
    heads = HeadRegistry(store)
    if not (
        _has(_former_keys(control, history, renames), old, control)
        or _has(_head_keys(heads, key, control), old, control)
        or _is_used(studio, number, control, old, state.known_field())
    ):
        there = [one_line(key) for key in sorted(_former_keys(control, history, renames))]
        raise SettingsError(
            f"Nothing in project {number} has, or had, a label {old!r} in {control.name!r}.",
            f"Write it as it was in the labeling config. Former labels: {', '.join(there)}."
            if there
            else "Write it as it was in the labeling config; capitals count.",
        )
    ages = since[control.name]
    kept = [rename for rename in of_it if rename.old not in {old, new}]
    pairs = {rename.old: rename.new for rename in kept} | {old: new}
    gone = history.gone.get(control.name, {})
    changed = _ages_after(Renames(pairs, live, control.paths), gone, ages, old)
    before = {name: ages[name] for name in changed}
    state.set_renames(control.name, [*kept, Rename(old, new, before)], changed)
    is_merge = old in gone and ages[new] < gone[old].until
    return Renamed(control.name, is_merge=is_merge)


def _fitting(
    config: LabelConfig,
    control_name: str | None,
    number: int,
    names: tuple[str, str],
    renames: Mapping[str, Sequence[Rename]],
) -> list[Control]:
    """The controls that have the new label, or in which these names were renamed."""
    old, new = names
    controls = [control for control in config.controls if not control.has_own_labels]
    if control_name is not None:
        there = [control.name for control in controls]
        controls = [control for control in controls if control.name == control_name]
        if not controls:
            raise SettingsError(
                f"Project {number} has no control {control_name!r} that is read.",
                f"Give --control one of: {', '.join(there) or '(none)'}.",
            )
    fitting = []
    for control in controls:
        undone = any((one.old, one.new) == (new, old) for one in renames.get(control.name, ()))
        if undone or any(label.key == new for label in control.labels):
            fitting.append(control)
    if fitting:
        return fitting
    for control in controls:
        pairs = {one.old: one.new for one in renames.get(control.name, ())}
        live = {label.key for label in control.labels}
        if Renames(pairs, live, control.paths).current(new) == old:
            raise SettingsError(
                f"{new!r} already stands for {old!r} in {control.name!r}: that would be a circle.",
                "Take the renames back one by one, the last one first.",
            )
    labels = [one_line(label.key) for control in controls for label in control.labels]
    raise SettingsError(
        f"The labeling config of project {number} has no label {new!r}.",
        f"Rename it there first ({EDITOR}). The labels are: {', '.join(labels[:20])}"
        f"{' ...' if len(labels) > 20 else ''}.",
    )


def _former_keys(
    control: Control, history: LabelHistory, renames: Mapping[str, Sequence[Rename]]
) -> set[str]:
    """The keys of labels that a control is known to have had."""
    of_it = renames.get(control.name, ())
    named = {name for rename in of_it for name in (rename.old, rename.new)}
    return (named | {*history.gone.get(control.name, {})}) - {label.key for label in control.labels}


def _head_keys(heads: HeadRegistry, key: str, control: Control) -> set[str]:
    """The keys of labels of which a head of the project knows."""
    return {
        label
        for name in heads.names(key)
        for fitted in [heads.get(key, name).controls.get(control.name)]
        if fitted is not None
        for label in fitted.head.card.labels
    }


def _has(keys: set[str], key: str, control: Control) -> bool:
    """Whether a label is among these, or is the branch of a tree that one of them is on."""
    return key in keys or (
        control.paths and any(other.startswith(key + SEPARATOR) for other in keys)
    )


def _is_used(
    studio: LabelStudioClient, number: int, control: Control, key: str, known_field: str
) -> bool:
    """Whether an annotation selects this label, or a task's data names it."""
    return any(_has({*keys}, key, control) for keys in _used_keys(studio, number, control)) or (
        bool(known_field)
        and any(
            key in (value if isinstance(value, list) else [value])
            for task in studio.tasks.iterate(number)
            for value in [field_value(task["data"], known_field)]
        )
    )


def _used_keys(studio: LabelStudioClient, number: int, control: Control) -> Iterator[list[str]]:
    for task in studio.tasks.annotated(number):
        for annotation in task["annotations"]:
            yield control.chosen(annotation.get("result") or []) or []


def _ages_after(
    renames: Renames, gone: Mapping[str, FormerLabel], ages: Mapping[str, float], old: str
) -> dict[str, float]:
    """Since when annotations can tell about the labels that get another name; those that change.

    A new name is as old as the former one. Of two labels that existed side by side and are one now,
    an annotation can tell from when the younger one existed.
    """
    changed: dict[str, float] = {}
    for key, former in gone.items():
        if key != old and not key.startswith(old + SEPARATOR):
            continue
        present = renames.current(key)
        if present in ages:
            is_new = ages[present] >= former.until
            age = former.since if is_new else max(former.since, ages[present])
            if age != ages[present]:
                changed[present] = age
    return changed


def _word(text: str) -> str:
    """The text as one word of a command line, where possible also on Windows."""
    if all(character.isalnum() or character in "-_." for character in text):
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
