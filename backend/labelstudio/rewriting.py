"""Gives predictions that Label Studio has already another content, in place.

A prediction is made once per version, and the same version gives the same answer, unless the task's
image or data has changed since. Label Studio keeps the prediction and its id, so that an annotation
that comes from it still says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.failures import StudioNotFoundError

_COMPARED = ("from_name", "to_name", "type", "value")
"""Of a result item; Label Studio may add others."""


class Rewriter:
    """Compares predictions of one version with those in one project, and replaces their content.

    Args:
        studio: the Label Studio.
        project: its number.
        model_version: the version of all predictions.
    """

    def __init__(self, studio: LabelStudioClient, project: int, model_version: str) -> None:
        self._studio = studio
        self._project = project
        # Digests: the results of a large project would fill the memory.
        self._stored: dict[int, dict[int, str]] = {}
        for item in studio.predictions.of_project(project):
            if item["model_version"] == model_version:
                stored = self._stored.setdefault(int(item["task"]), {})
                stored[int(item["id"])] = _digest(item)

    def is_stale(self, item: Mapping[str, Any]) -> bool:
        """Whether Label Studio has a prediction of the item's task, and another one than this.

        Args:
            item: as for the bulk import.
        """
        stored = self._stored.get(int(item["task"]))
        return stored is not None and set(stored.values()) != {_digest(item)}

    def due(self, item: Mapping[str, Any]) -> list[int]:
        """Numbers of the predictions that are to be replaced by this one: none of annotated tasks.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        task, digest = int(item["task"]), _digest(item)
        numbers = [n for n, stored in self._stored.get(task, {}).items() if stored != digest]
        try:
            # Asked now: the run has listed its tasks long ago.
            return [] if self._studio.tasks.is_annotated(task) else numbers
        except StudioNotFoundError:
            return []

    def rewrite(self, numbers: Sequence[int], item: Mapping[str, Any]) -> int:
        """Replace the content of predictions.

        Returns:
            How many there were; one that was deleted meanwhile is nobody's fault.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        rewritten = 0
        for number in numbers:
            with suppress(StudioNotFoundError):
                self._studio.predictions.rewrite(number, self._project, item)
                rewritten += 1
        return rewritten


def _digest(item: Mapping[str, Any]) -> str:
    """Of what annotators see."""
    result = [{name: part.get(name) for name in _COMPARED} for part in item["result"]]
    score = None if item["score"] is None else round(float(item["score"]), 6)
    return hashlib.sha256(json.dumps([score, result], sort_keys=True).encode()).hexdigest()
