"""Score files: the probabilities that a model version gives a project's tasks, written once.

Whoever needs them later reads them here, and scores no task again. A promotion writes the scores of
all tasks as one part, and runs of the same version add parts for tasks that came since. A part is a
safetensors file, which only a purge changes. N tasks and C labels take N (2 C + 8) bytes and a
header.

Controls whose labels come from the tasks' own data are left out: their labels differ by task.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from operator import eq
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from backend.messages.message import Message
from backend.storage.artifacts import Artifacts, DamagedArtifactError, safe_name
from backend.storage.store import Store
from backend.storage.tensor_files import description, digest

log = logging.getLogger(__name__)

FOLDER = "scores"
SCHEMA = 1
DAMAGE = (KeyError, TypeError, ValueError, RecursionError)
"""What `from_bytes` raises for a damaged file."""
_READS = 5
"""Attempts of a reader whose files are merged, or purged, meanwhile."""
MERGED_FROM = 8
"""Parts of a version that are merged into one: a task at a time would make a file a task."""
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ControlScores:
    """The probabilities of one control's labels on N tasks.

    Attributes:
        labels: keys of its C labels.
        thresholds: (C,) a label is ticked from this probability on.
        tasks: (N,) int64 ids, no two alike.
        probabilities: (N, C) float16 in [0, 1], within 0.0005 of what was shown, and on the same
            side of the thresholds; 1 for labels that the task's data names.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    tasks: NDArray[np.int64]
    probabilities: NDArray[np.float16]

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        thresholds: Sequence[float],
        tasks: Sequence[int],
        probabilities: NDArray[np.float32],
    ) -> ControlScores:
        """From (N, C) probabilities as they were shown."""
        rounded = probabilities.astype(np.float16)
        down = np.nextafter(rounded, np.float16(0))
        rounded = np.where(rounded > probabilities, down, rounded)
        # Rounded down, a probability over the threshold may have come to lie below it.
        limits = np.array(thresholds, dtype=np.float64)
        lost = (probabilities >= limits) & (rounded < limits)
        rounded = np.where(lost, np.nextafter(rounded, np.float16(2)), rounded)
        return cls(tuple(labels), tuple(thresholds), np.array(tasks, dtype=np.int64), rounded)

    @property
    def ticks(self) -> NDArray[np.int64]:
        """(N,) how many labels are over their thresholds."""
        over: NDArray[np.int64] = (self.probabilities >= np.array(self.thresholds)).sum(axis=1)
        return over

    def without(self, tasks: Set[int]) -> ControlScores:
        """The scores of the other tasks."""
        kept = np.array([task not in tasks for task in self.tasks.tolist()], dtype=np.bool_)
        return ControlScores(
            self.labels, self.thresholds, self.tasks[kept], self.probabilities[kept]
        )

    @classmethod
    def joined(cls, parts: Sequence[ControlScores]) -> ControlScores:
        """Parts of one version as one, by ascending task; the last one of a task counts."""
        tasks = np.concatenate([part.tasks for part in parts])
        probabilities = np.concatenate([part.probabilities for part in parts])
        _, places = np.unique(tasks[::-1], return_index=True)
        last = len(tasks) - 1 - places
        return cls(parts[-1].labels, parts[-1].thresholds, tasks[last], probabilities[last])


Part = Mapping[str, ControlScores]
"""Control name -> its scores."""


def joined(parts: Sequence[Part]) -> dict[str, ControlScores]:
    """Several parts of one version as one."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: ControlScores.joined([part[name] for part in parts if name in part]) for name in names
    }


def to_bytes(part: Part) -> bytes:
    """A part as a file; reproducible."""
    tensors: dict[str, NDArray[Any]] = {}
    about = []
    for place, (name, scores) in enumerate(part.items()):
        tensors[f"{place}.tasks"] = np.ascontiguousarray(scores.tasks)
        tensors[f"{place}.probabilities"] = np.ascontiguousarray(scores.probabilities)
        about.append({"control": name, "labels": scores.labels, "thresholds": scores.thresholds})
    content = json.dumps({"schema": SCHEMA, "controls": about})
    data: bytes = safetensors.numpy.save(tensors, {"scores": content})
    return data


def from_bytes(data: bytes) -> dict[str, ControlScores]:
    """Inverse of `to_bytes`.

    Raises:
        one of `DAMAGE`: the file is damaged.
    """
    about = description(data, "scores")
    try:
        tensors = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    part = {}
    for place, control in enumerate(about["controls"]):
        tasks, probabilities = tensors[f"{place}.tasks"], tensors[f"{place}.probabilities"]
        labels = tuple(control["labels"])
        if probabilities.shape != (len(tasks), len(labels)):
            raise ValueError("its parts differ in length")
        thresholds = tuple(map(float, control["thresholds"]))
        part[control["control"]] = ControlScores(labels, thresholds, tasks, probabilities)
    return part


class ScoreFiles:
    """The score files of all projects. Thread-safe; whoever writes holds a lock of the project.

    A part is named by its number and a hash: ``000003-0123456789abcdef.safetensors``.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._artifacts: Artifacts = store.artifacts
        self._locks = store.locks

    def read(self, project: str, version: str) -> dict[str, ControlScores]:
        """Control name -> its scores by one version; empty if there are none.

        Args:
            project: ``<id>.<unix time of creation>``.
            version: name of the model version.

        Raises:
            DamagedArtifactError: a file is damaged.
            StoreError: the store cannot be read.
        """
        folder = _folder(project, version)
        for _ in range(_READS):
            parts = [self._part(folder, file) for file in self._files(folder)]
            whole = [part for part in parts if part is not None]
            if len(whole) == len(parts):
                break
        return joined(whole)

    def add(self, project: str, version: str, make: Callable[[], Part]) -> None:
        """Keep the scores of some tasks. If they have scores already, these count from now on.

        Args:
            project: as for `read`.
            version: as for `read`.
            make: gives the scores; called while nobody can purge tasks from the files.

        Raises:
            StoreError: the store cannot be read or written.
        """
        folder = _folder(project, version)
        with self._writing(safe_name(project)):
            self._artifacts.erase_drafts(folder)
            part = make()
            if not any(len(scores.tasks) for scores in part.values()):
                return
            files = self._files(folder)
            number = int(files[-1].partition("-")[0]) + 1 if files else 0
            if len(files) + 1 < MERGED_FROM:
                self._write(folder, number, part)
                return
            before = [one for _, one in self._intact(folder)]
            self._write(folder, number, joined([*before, part]))
            self._artifacts.erase(folder, files.__contains__)

    def tasks(self, project: str, version: str) -> dict[str, set[int]]:
        """Control name -> ids of the tasks that have scores.

        A damaged file is erased: scores can be made again.

        Raises:
            StoreError: the store cannot be read or written.
        """
        found: dict[str, set[int]] = {}
        with self._writing(safe_name(project)):
            for _, part in self._intact(_folder(project, version)):
                for name, scores in part.items():
                    found.setdefault(name, set()).update(scores.tasks.tolist())
        return found

    def has(self, project: str, tasks: Collection[int]) -> bool:
        """Whether one of these tasks has scores; ``project`` as for `purge`.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = np.array(sorted(tasks), dtype=np.int64)
        return any(
            bool(np.isin(scores.tasks, wanted).any())
            for name in self._artifacts.folder_names(FOLDER)
            if name.startswith(project)
            for version in self._artifacts.folder_names(f"{FOLDER}/{name}")
            for _, part in self._intact(f"{FOLDER}/{name}/{version}")
            for scores in part.values()
        )

    def keep(self, project: str, versions: Collection[str]) -> None:
        """Erase the scores of all other versions of a project.

        Raises:
            StoreError: the store cannot be written.
        """
        kept = {safe_name(version) for version in versions}
        with self._writing(safe_name(project)):
            self._artifacts.erase(f"{FOLDER}/{safe_name(project)}", lambda name: name not in kept)

    def purge(self, project: str, tasks: Collection[int] | None) -> None:
        """Erase the scores of a project's tasks from the disk.

        Args:
            project: its key, or ``<id>.`` for all projects that ever had this id.
            tasks: their ids; None: the whole project.

        Raises:
            StoreError: the store cannot be read or written.
        """
        for name in self._artifacts.folder_names(FOLDER):
            if not name.startswith(project):
                continue
            with self._writing(name):
                if tasks is None:
                    self._artifacts.erase(FOLDER, partial(eq, name))
                    continue
                for version in self._artifacts.folder_names(f"{FOLDER}/{name}"):
                    self._purge_version(f"{FOLDER}/{name}/{version}", frozenset(tasks))

    def _purge_version(self, folder: str, tasks: Set[int]) -> None:
        self._artifacts.erase_drafts(folder)
        for file, part in self._intact(folder):
            rest = {name: scores.without(tasks) for name, scores in part.items()}
            if all(len(rest[name].tasks) == len(part[name].tasks) for name in part):
                continue
            if any(len(scores.tasks) for scores in rest.values()):
                self._write(folder, int(file.partition("-")[0]), rest)
            self._artifacts.erase(folder, partial(eq, file))

    def _write(self, folder: str, number: int, part: Part) -> None:
        data = to_bytes(part)
        self._artifacts.write_bytes(f"{folder}/{number:06}-{digest(data)}{_SUFFIX}", data)

    def _intact(self, folder: str) -> Iterator[tuple[str, dict[str, ControlScores]]]:
        """Names and content of a version's parts; damaged ones are erased, whosever they are."""
        for file in self._files(folder):
            try:
                part = self._part(folder, file)
            except DamagedArtifactError as error:
                log.warning("Its tasks are scored again. %s", error)
                self._artifacts.erase(folder, partial(eq, file))
                continue
            if part is not None:
                yield file, part

    def _writing(self, project: str) -> AbstractContextManager[None]:
        return self._locks.hold(f"scores-{project}")

    def _files(self, folder: str) -> list[str]:
        """Names of a version's parts, the first one first."""
        return sorted(name for name in self._artifacts.content(folder) if name.endswith(_SUFFIX))

    def _part(self, folder: str, file: str) -> dict[str, ControlScores] | None:
        """A part's content; None if it is there no more.

        Raises:
            DamagedArtifactError: it is damaged.
            StoreError: the store cannot be read.
        """
        path = f"{folder}/{file}"
        data = self._artifacts.read_bytes(path)
        if data is None:
            return None
        try:
            return checked(file, data)
        except DAMAGE as error:
            fix = Message("Run ls-clip store check --repair; the next run scores its tasks again.")
            raise self._artifacts.damaged(path, str(error), fix) from error


def checked(file: str, data: bytes) -> dict[str, ControlScores]:
    """The content of a part with this name.

    Raises:
        one of `DAMAGE`: it is damaged.
    """
    if not file.endswith(f"-{digest(data)}{_SUFFIX}"):
        raise ValueError("it does not match its checksum")
    return from_bytes(data)


def _folder(project: str, version: str) -> str:
    return f"{FOLDER}/{safe_name(project)}/{safe_name(version)}"
