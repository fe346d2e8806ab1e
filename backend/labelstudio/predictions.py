"""Label Studio's predictions and their model versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labelstudio.transport import IMPORT_SECONDS, Transport


class Predictions:
    """The calls about predictions (https://api.labelstud.io/api-reference/api-reference/predictions).

    Args:
        transport: how calls are made.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of_project(self, project: int) -> list[dict[str, Any]]:
        """Every prediction of a project: id, task, model_version, score, result."""
        found: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/predictions/", params={"project": project}, timeout=IMPORT_SECONDS
        )
        return found

    def import_items(self, project: int, items: Sequence[Mapping[str, Any]]) -> int:
        """Bulk-import predictions; returns how many Label Studio really made.

        Label Studio drops items that it holds invalid without a word, so compare. It is not
        retried here: a call that timed out may have been carried out.
        """
        answer = self._transport.call(
            "POST",
            f"/api/projects/{project}/import/predictions",
            json=list(items),
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        return int(answer["created"])

    def versions(self, project: int) -> dict[str, int]:
        """Model version -> number of predictions."""
        versions: dict[str, int] = self._transport.call(
            "GET", f"/api/projects/{project}/model-versions/"
        )
        return versions

    def delete(self, number: int) -> None:
        """Delete one prediction."""
        self._transport.call("DELETE", f"/api/predictions/{number}/")

    def delete_version(self, project: int, model_version: str) -> None:
        """Delete all predictions of a version; 200 a second, and nobody can submit meanwhile."""
        self._transport.call(
            "DELETE",
            f"/api/projects/{project}/model-versions/",
            json={"model_version": model_version},
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
