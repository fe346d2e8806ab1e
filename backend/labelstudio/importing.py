"""Imports predictions into Label Studio exactly once, even if calls time out or are repeated.

Label Studio never replaces a prediction, silently drops those that it holds invalid, and recounts
the whole project at each import. So imports are few and large, their result is compared with what
was sent, and only the difference is sent again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backend.errors import LabelConfigError, StudioError
from backend.labels.config import parse_config
from backend.labels.controls import ControlKind
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.failures import UnansweredError
from backend.labelstudio.transport import IMPORT_SECONDS
from backend.messages.message import Message

log = logging.getLogger(__name__)

ROUNDS = 3
"""How often predictions that Label Studio lacks are sent."""
SETTLE_SECONDS = 10.0
"""How long the count must stand still until an import counts as over."""

Item = Mapping[str, Any]
"""A prediction as the bulk import takes it: task, model_version, score and result."""


def predicted(studio: LabelStudioClient, project: int, model_version: str) -> set[int]:
    """Ids of the tasks that have a prediction of this version."""
    if model_version not in studio.predictions.versions(project):
        return set()
    return {
        int(item["task"])
        for item in studio.predictions.of_project(project)
        if item["model_version"] == model_version
    }


class Importer:
    """Imports predictions of one version into one project, without those that it has already.

    Args:
        studio: the Label Studio.
        project: its number.
        model_version: the version of all predictions.

    Attributes:
        there: ids of the tasks that have a prediction of the version.
        created: how many predictions were made.
        dropped: task id -> why Label Studio has no prediction of it.
    """

    def __init__(self, studio: LabelStudioClient, project: int, model_version: str) -> None:
        self._studio = studio
        self._project = project
        self._version = model_version
        self.there = predicted(studio, project, model_version)
        self.created = 0
        self.dropped: dict[int, str] = {}

    def add(self, items: Sequence[Item]) -> None:
        """Import the predictions that Label Studio does not have yet, in one request.

        Args:
            items: at most one per task.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        if self._count() != len(self.there):
            # A task opened meanwhile was predicted live.
            self.there = predicted(self._studio, self._project, self._version)
        missing = [item for item in items if item["task"] not in self.there]
        failure: StudioError | None = None
        for _ in range(ROUNDS):
            if not missing:
                return
            try:
                created = self._studio.predictions.import_items(self._project, missing)
                failure = None
                if created == len(missing):
                    self.created += created
                    self.there |= {int(item["task"]) for item in missing}
                    return
                log.error("Label Studio made %d of %d predictions", created, len(missing))
            except StudioError as error:
                log.warning("the import is repeated for what is missing: %s", error)
                failure = error
                if isinstance(error, UnansweredError):
                    self._settle(len(self.there) + len(missing))
                # One task that was deleted meanwhile makes Label Studio refuse the whole import.
                alive = {int(task["id"]) for task in self._studio.tasks.iterate(self._project)}
                missing = [item for item in missing if item["task"] in alive]
            # After a time-out too, only what Label Studio itself lacks is sent again.
            self.there = predicted(self._studio, self._project, self._version)
            left = [item for item in missing if item["task"] not in self.there]
            self.created += len(missing) - len(left)
            missing = left
        if missing and failure is not None:
            raise failure
        if missing:
            self._add_one_by_one(missing)

    def _add_one_by_one(self, items: Sequence[Item]) -> None:
        """Make predictions that the bulk import dropped, unless the config explains why.

        It knows only the labels of the config where a control has some, and drops a prediction with
        one that comes from the task's data, which is on the screen all the same.

        Raises:
            UnansweredError: Label Studio does not answer.
        """
        reasons = _explained(self._studio, self._project, items)
        self.dropped |= reasons
        left = [item for item in items if int(item["task"]) not in reasons]
        if left:
            log.warning("%d predictions are made one by one, about 10 a second", len(left))
        for item in left:
            task = int(item["task"])
            try:
                self._studio.predictions.create(self._project, item)
            except UnansweredError:
                raise
            except StudioError as error:
                self.dropped[task] = str(error)
                continue
            self.created += 1
            self.there.add(task)

    def recover(self, before: int, sent: int) -> None:
        """Wait for an import whose sender died before the answer, and count what it made.

        Args:
            before: how many predictions of the version Label Studio had before.
            sent: how many predictions were sent.
        """
        self._settle(before + sent)
        self.there = predicted(self._studio, self._project, self._version)
        self.created += min(sent, max(0, len(self.there) - before))

    def _settle(self, expected: int) -> None:
        """Wait until an import whose answer was lost is over.

        It is over when the count stands still, or reaches ``expected``. Label Studio makes about
        1,000 predictions per second and shows them all at once at the end.
        """
        quiet = max(SETTLE_SECONDS, (expected - len(self.there)) / 300)
        deadline = time.monotonic() + IMPORT_SECONDS
        count, since = -1, time.monotonic()
        while time.monotonic() < min(deadline, since + quiet):
            now = self._count()
            if now != count:
                count, since = now, time.monotonic()
            if count >= expected:
                return
            time.sleep(1)

    def is_complete(self, tasks: set[int]) -> bool:
        """Whether Label Studio's own count says that these tasks have one prediction each."""
        return tasks <= self.there and self._count() == len(self.there)

    def verify(self, tasks: set[int]) -> list[int]:
        """Check in Label Studio that each task has a prediction of the version.

        Returns:
            The tasks that have several, because they were opened during the import.

        Raises:
            StudioError: naming the tasks that have none.
        """
        counts = Counter(
            item["task"]
            for item in self._studio.predictions.of_project(self._project)
            if item["model_version"] == self._version
        )
        without = sorted(task for task in tasks if not counts[task])
        if without:
            raise StudioError(
                Message.of_count(
                    len(without),
                    "{count} task has no prediction of {version}: {numbers}.",
                    "{count} tasks have no prediction of {version}: {numbers}.",
                    version=self._version,
                    numbers=", ".join(map(str, without[:10])),
                ),
                Message("Run ls-clip predict {project} again.", project=self._project),
            )
        return sorted(task for task in tasks if counts[task] > 1)

    def _count(self) -> int:
        return self._studio.predictions.versions(self._project).get(self._version, 0)


def _explained(studio: LabelStudioClient, project: int, items: Sequence[Item]) -> dict[int, str]:
    """Task id -> why Label Studio dropped its prediction, of those that the config explains."""
    try:
        config = parse_config(studio.projects.get(project)["label_config"])
    except LabelConfigError as error:
        return {int(item["task"]): error.message for item in items}
    labels = {
        control.name: {label.stored for label in control.labels}
        for control in config.controls
        if not control.has_own_labels
    }
    reasons = {int(item["task"]): _why_dropped(item, config.names, labels) for item in items}
    return {task: reason for task, reason in reasons.items() if reason}


def _why_dropped(item: Item, names: frozenset[str], labels: Mapping[str, set[str]]) -> str:
    """Why the import dropped a prediction; empty if the config does not explain it."""
    wrong = []
    for result in item["result"]:
        name, kind = result["from_name"], result["type"]
        if kind not in set(ControlKind):
            continue
        if name not in names:
            wrong.append(Message("the labeling config has no {name!r}", name=name))
        elif name in labels:
            values = result["value"][kind]
            ticked = [value[-1] if isinstance(value, list) else value for value in values]
            wrong += [
                Message("{label!r} is no label of {name!r}", label=label, name=name)
                for label in ticked
                if label not in labels[name]
            ]
    if not wrong:
        return ""
    causes = wrong[0]
    for cause in wrong[1:]:
        causes = Message("{before}; {cause}", before=causes, cause=cause)
    return Message("Label Studio dropped the prediction on import: {causes}.", causes=causes)


def duplicates_note(project: int, tasks: Sequence[int]) -> str:
    """A sentence about tasks with several equal predictions; empty if there are none."""
    if not tasks:
        return ""
    return Message.of_count(
        len(tasks),
        "{count} task has several equal predictions, for being opened during the import: "
        "{numbers}. ls-clip prune {project} --duplicates deletes all but one.",
        "{count} tasks have several equal predictions, for being opened during the import: "
        "{numbers}. ls-clip prune {project} --duplicates deletes all but one.",
        numbers=", ".join(map(str, tasks[:10])),
        project=project,
    )


def show(studio: LabelStudioClient, project: int, model_version: str) -> None:
    """Make the project show a version, and check that it does.

    Args:
        studio: the Label Studio.
        project: its number.
        model_version: what annotators see from now on.

    Raises:
        StudioError: Label Studio refuses, or shows another version afterwards.
    """
    studio.projects.update(project, model_version=model_version)
    shown = studio.projects.get(project)["model_version"]
    if shown != model_version:
        raise StudioError(
            Message(
                "The project shows {shown!r} instead of {model_version!r}.",
                shown=shown,
                model_version=model_version,
            ),
            Message("Someone changed it meanwhile; run ls-clip connect again."),
        )
