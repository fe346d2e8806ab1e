"""Label Studio's predictions and their model versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.labelstudio.transport import IMPORT_SECONDS, Transport


class Predictions:
    """The calls about predictions (https://api.labelstud.io/api-reference/api-reference/predictions).

    Args:
        transport: makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of_project(self, project: int) -> list[dict[str, Any]]:
        """Every prediction of a project: id, task, model_version, score, result."""
        predictions: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/predictions/", params={"project": project}, timeout=IMPORT_SECONDS
        )
        return predictions

    def import_items(self, project: int, items: Sequence[Mapping[str, Any]]) -> int:
        """Import predictions in bulk.

        The call is not retried: one that timed out may have been carried out.

        Args:
            project: its number.
            items: with ``task``, ``model_version``, ``score`` and ``result``.

        Returns:
            How many predictions Label Studio made. It silently drops items that it holds invalid,
            so compare the number.

        Raises:
            UnansweredError: no answer came; predictions may have been made.
            StudioError: Label Studio refuses the import as a whole, e.g. for a deleted task.
        """
        answer = self._transport.call(
            "POST",
            f"/api/projects/{project}/import/predictions",
            json=list(items),
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        return int(answer["created"])

    def create(self, project: int, item: Mapping[str, Any]) -> None:
        """Make one prediction; about 10 a second, and Label Studio validates nothing.

        The call is not retried: one that timed out may have been carried out.

        Args:
            project: of its task.
            item: as for `import_items`.
        """
        self._transport.call(
            "POST", "/api/predictions/", json={**item, "project": project}, attempts=1
        )

    def rewrite(self, number: int, project: int, item: Mapping[str, Any]) -> None:
        """Replace the result and the score of a prediction; about 6 a second.

        Args:
            number: of the prediction.
            project: of its task.
            item: as for `import_items`.
        """
        body = {"task": item["task"], "project": project}
        body |= {"result": item["result"], "score": item["score"]}
        self._transport.call("PATCH", f"/api/predictions/{number}/", json=body)

    def versions(self, project: int) -> dict[str, int]:
        """Model version -> number of its predictions."""
        versions: dict[str, int] = self._transport.call(
            "GET", f"/api/projects/{project}/model-versions/"
        )
        return versions

    def delete(self, number: int) -> None:
        """Delete one prediction."""
        self._transport.call("DELETE", f"/api/predictions/{number}/")

    def delete_version(self, project: int, model_version: str) -> None:
        """Delete all predictions of a version.

        Label Studio deletes about 200 a second, and nobody can submit meanwhile.
        """
        self._transport.call(
            "DELETE",
            f"/api/projects/{project}/model-versions/",
            json={"model_version": model_version},
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
