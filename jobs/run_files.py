"""What a run keeps in the store until it has ended: its labeling config, tasks and predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import StoreError
from backend.inference.prediction import Prediction
from backend.labels.config import LabelConfig, parse_config
from backend.messages.message import Message
from backend.storage.artifacts import Artifacts, safe_name
from backend.storage.score_files import DAMAGE, ControlScores, Part, from_bytes, to_bytes
from jobs.listing import Task
from jobs.run import ENDED

if TYPE_CHECKING:
    from jobs.run_store import RunStore

FOLDER = "runs"
UNKNOWN_SECONDS = 2 * 24 * 3600
"""After which the files of an unknown run are deleted; each shard of a run adds to them."""


def erase_ended(artifacts: Artifacts, runs: RunStore) -> None:
    """Delete what runs that have ended kept.

    The files of a run that Redis does not know may belong to another Redis with the same store, so
    they are deleted only when nothing was added for `UNKNOWN_SECONDS`.

    Args:
        artifacts: of all workers' store.
        runs: of all projects.

    Raises:
        StoreError: it cannot be deleted.
    """
    # Read before the folders: a run that begins meanwhile has its files after it is active.
    active = runs.active_ids()
    oldest = time.time() - UNKNOWN_SECONDS
    for run_id in artifacts.folder_names(FOLDER):
        if run_id in active:
            continue
        if runs.state(run_id) in ENDED or artifacts.modified(f"{FOLDER}/{run_id}") < oldest:
            artifacts.erase(FOLDER, run_id.__eq__)


class RunFiles:
    """The files of one run.

    Args:
        artifacts: of all workers' store, or a folder of one process.
        run_id: the run.
    """

    def __init__(self, artifacts: Artifacts, run_id: str) -> None:
        self._artifacts = artifacts
        self._run_id = run_id

    def write_config(self, xml: str) -> None:
        """Keep the labeling config that the run was cut for."""
        self._artifacts.write(self._name("config"), {"xml": xml}, replace=True)

    def config(self) -> LabelConfig:
        """That config.

        Raises:
            StoreError: it is not in the store.
        """
        return parse_config(self._read("config")["xml"])

    def write_tasks(self, shard: int, tasks: Sequence[Task]) -> None:
        """Keep a shard's tasks."""
        self._artifacts.write(self._name(str(shard)), {"tasks": list(tasks)}, replace=True)

    def tasks(self, shard: int) -> list[Task]:
        """The tasks of a shard: ``id``, and of ``data`` what the labeling config uses.

        Raises:
            StoreError: they are not in the store.
        """
        tasks: list[Task] = self._read(str(shard))["tasks"]
        return tasks

    def write_predictions(
        self, shard: int, model_version: str, predictions: Sequence[Prediction]
    ) -> None:
        """Keep predictions that were computed early; those that lack an image are left out."""
        items = [
            {
                "task": prediction.task,
                "score": prediction.score,
                "result": prediction.result,
                "blind": prediction.blind,
            }
            for prediction in predictions
            if prediction.result is not None and prediction.failure is None
        ]
        content = {"model_version": model_version, "items": items}
        self._artifacts.write(self._name(f"{shard}-made"), content, replace=True)

    def predictions(self, shard: int, model_version: str) -> dict[int, Prediction]:
        """Task id -> prediction of this version, as far as they were computed early."""
        content = self._artifacts.read(self._name(f"{shard}-made"))
        if content is None or content["model_version"] != model_version:
            return {}
        return {
            item["task"]: Prediction(
                item["task"], model_version, item["result"], item["score"], blind=item["blind"]
            )
            for item in content["items"]
        }

    def write_scores(self, shard: int, model_version: str, part: Part) -> None:
        """Keep the scores of a shard's tasks that were computed early."""
        self._artifacts.write_bytes(self._scores(shard, model_version), to_bytes(part))

    def scores(self, shard: int, model_version: str) -> dict[str, ControlScores] | None:
        """Control name -> scores by this version; None if they were not computed early."""
        data = self._artifacts.read_bytes(self._scores(shard, model_version))
        try:
            return None if data is None else from_bytes(data)
        except DAMAGE:
            # They are computed once more.
            return None

    def _scores(self, shard: int, model_version: str) -> str:
        return f"{self._name(f'{shard}-{safe_name(model_version)}')}.safetensors"

    def add_changed(self, shard: int, values: Sequence[str]) -> int:
        """Keep addresses of images that have changed; returns how many of the shard are kept."""
        known = self.changed(shard)
        if values:
            addresses = sorted(known | set(values))
            self._artifacts.write(
                self._name(f"{shard}-changed"), {"addresses": addresses}, replace=True
            )
        return len(known | set(values))

    def changed(self, shard: int) -> set[str]:
        """Those addresses, as they stand in the tasks' data."""
        content = self._artifacts.read(self._name(f"{shard}-changed"))
        return set() if content is None else set(content["addresses"])

    def _read(self, what: str) -> dict[str, Any]:
        content = self._artifacts.read(self._name(what))
        if content is None:
            raise StoreError(
                Message(
                    "What run {run_id} needs ({what}) is not in the store.",
                    run_id=self._run_id,
                    what=what,
                ),
                Message("Give all workers the same LS_CLIP_STORE."),
            )
        return content

    def _name(self, what: str) -> str:
        return f"{FOLDER}/{self._run_id}/{what}"
