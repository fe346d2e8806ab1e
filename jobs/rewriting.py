"""Predictions that are out of date although their version is today's: the image has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend.inference.prediction import Prediction, logged
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.rewriting import Rewriter
from backend.messages.message import Message
from backend.runtime import Runtime
from jobs.run import ENDED, Run
from jobs.run_log import RunLog

BATCH = 50
"""Predictions that wait in memory until they are replaced, one by one."""


class Rewriting:
    """Replaces what stored predictions say, except for annotated tasks.

    All predictions of the version are compared with what they would be now, not only those of the
    images that this run found changed: an earlier run may have been stopped in between, and another
    project may have the same image.

    Args:
        runs: where progress is recorded.
        run: that revalidates.
        runtime: of this process.
        studio: the Label Studio.
        version: the model version of all predictions.
    """

    def __init__(
        self, runs: RunLog, run: Run, runtime: Runtime, studio: LabelStudioClient, version: str
    ) -> None:
        self._runs, self._run, self._runtime = runs, run, runtime
        self._rewriter = Rewriter(studio, run.project, version)
        self._waiting: list[Prediction] = []
        self._rewritten = 0

    def take(self, predictions: Iterable[Prediction]) -> None:
        """Look at tasks that have a prediction; these are what it would be now."""
        for prediction in predictions:
            # One that lacks an image says less than the one that is there.
            complete = prediction.result is not None and prediction.failure is None
            if complete and self._rewriter.is_stale(prediction.as_import()):
                self._waiting.append(replace(prediction, scored=()))
        if len(self._waiting) >= BATCH:
            self.carry_out()

    def carry_out(self) -> None:
        """Replace what has been found out of date.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
            StoreError: the store cannot be written.
        """
        for prediction in self._waiting:
            if self._runs.state(self._run.id) in ENDED:
                break
            item = prediction.as_import()
            numbers = self._rewriter.due(item)
            if numbers:
                self._runtime.prediction_log.add(self._run.key, logged([prediction]))
                self._rewritten += self._rewriter.rewrite(numbers, item)
                self._runs.note(self._run.id, rewritten=self._run.rewritten + self._rewritten)
        self._waiting = []


def changed_note(tasks: Sequence[int]) -> Message:
    """A sentence about annotated tasks of which an image has changed."""
    return Message.of_count(
        len(tasks),
        "{count} annotated task has another image than their annotator saw: {numbers}. Training "
        "believes their annotations for the image that is there now; look at them again.",
        "{count} annotated tasks have another image than their annotator saw: {numbers}. Training "
        "believes their annotations for the image that is there now; look at them again.",
        numbers=", ".join(map(str, tasks[:10])) + (", ..." if len(tasks) > 10 else ""),
    )


def add_note(runs: RunLog, run: Run, text: str) -> None:
    """Add a sentence to what a person should know about a run."""
    now = runs.get(run.id)
    if now is not None and text not in now.notes:
        runs.note(run.id, notes=(*now.notes, text))
