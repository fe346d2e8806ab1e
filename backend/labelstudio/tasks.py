"""Label Studio's tasks, annotations and uploaded files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from backend.errors import SettingsError
from backend.labelstudio.transport import IMPORT_SECONDS, Transport

_ANNOTATED_FIELDS = (
    "id,data,annotations,predictions,result,was_cancelled,completed_by,parent_prediction,"
    "lead_time,created_at,updated_at,model_version"
)
"""A flat list: Label Studio applies it to the nested objects too."""


class Tasks:
    """The calls about tasks (https://api.labelstud.io/api-reference/api-reference/tasks).

    Args:
        transport: how calls are made.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def iterate(
        self, project: int, page_size: int = 2000, after: int = 0
    ) -> Iterator[dict[str, Any]]:
        """All tasks, with id and data only: the listing that costs Label Studio least.

        Pages follow the id and not the page's number, which a deleted task would shift.

        Args:
            project: its number.
            page_size: tasks asked for at once.
            after: only tasks with a higher id.
        """
        while True:
            answer = self._transport.call(
                "GET",
                "/api/tasks/",
                params={
                    "project": project,
                    "page_size": page_size,
                    "fields": "all",
                    "include": "id,data,total_annotations,total_predictions",
                    "query": json.dumps(
                        {"filters": _more_than(id=after), "ordering": ["tasks:id"]}
                    ),
                },
                timeout=IMPORT_SECONDS,
            )
            found = answer["tasks"]
            yield from found
            if not found or len(found) >= answer["total"]:
                return
            after = int(found[-1]["id"])

    def sample(self, project: int, count: int) -> list[dict[str, Any]]:
        """Up to this many tasks, half of them the oldest and half the newest; id and data."""
        found: dict[int, dict[str, Any]] = {}
        for ordering in ("tasks:id", "-tasks:id"):
            answer = self._transport.call(
                "GET",
                "/api/tasks/",
                params={
                    "project": project,
                    "page_size": max(1, count // 2),
                    "include": "id,data",
                    "query": json.dumps({"ordering": [ordering]}),
                },
            )
            found |= {int(task["id"]): task for task in answer["tasks"]}
        return list(found.values())

    def annotated(self, project: int, page_size: int = 500) -> Iterator[dict[str, Any]]:
        """Tasks with an annotation that was not cancelled; pages follow the id, see `tasks`.

        Each has ``id``, ``data``, ``annotations`` (``id``, ``result``, ``was_cancelled``,
        ``completed_by``, ``parent_prediction``, ``lead_time``, ``created_at``, ``updated_at``) and
        ``predictions`` (``id``, ``model_version``).
        """
        after = 0
        while True:
            filters = _more_than(total_annotations=0, id=after)
            try:
                answer = self._transport.sdk.tasks.list(
                    project=project,
                    fields="all",
                    include=_ANNOTATED_FIELDS,
                    query=json.dumps({"filters": filters, "ordering": ["tasks:id"]}),
                    page_size=page_size,
                )
            except ApiError as error:
                raise self._transport.refused(error) from error
            except httpx.HTTPError as error:
                raise self._transport.explained(error) from error
            found = answer.items or []
            for task in found:
                yield {
                    "id": task.id,
                    "data": task.data,
                    "annotations": task.annotations or [],
                    "predictions": [
                        {"id": one.id, "model_version": one.model_version}
                        for one in task.predictions or []
                    ],
                }
            if len(found) < page_size:
                return
            after = int(found[-1].id)

    def last_change(self, project: int) -> str:
        """Something that differs as soon as an annotation was made, changed or deleted."""
        answer = self._transport.call(
            "GET",
            "/api/tasks/",
            params={
                "project": project,
                "page_size": 1,
                "fields": "all",
                "include": "id,updated_at",
                "query": json.dumps(
                    {
                        "filters": _more_than(total_annotations=0),
                        "ordering": ["-tasks:updated_at"],
                    }
                ),
            },
        )
        newest = [task["updated_at"] for task in answer["tasks"]]
        return f"{newest} {answer['total']} {answer['total_annotations']}"

    def annotate(
        self,
        task: int,
        result: Sequence[Mapping[str, Any]],
        parent_prediction: int | None,
        seconds: float,
    ) -> None:
        """Submit an annotation, as the label stream does.

        Args:
            task: its id.
            result: Label Studio result items.
            parent_prediction: the prediction that was shown.
            seconds: how long it took.
        """
        body = {
            "result": list(result),
            "parent_prediction": parent_prediction,
            "lead_time": seconds,
            "was_cancelled": False,
        }
        self._transport.call("POST", f"/api/tasks/{task}/annotations/", json=body, attempts=1)

    def create(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks and return their ids."""
        answer = self._transport.call(
            "POST",
            f"/api/projects/{project}/import",
            params={"return_task_ids": "true"},
            json=list(tasks),
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        return [int(number) for number in answer["task_ids"]]

    def upload(self, project: int, files: Sequence[Path]) -> list[str]:
        """Upload image files without making tasks; returns their addresses, in order.

        Raises:
            SettingsError: a file cannot be read.
            StudioError: Label Studio refuses.
        """
        try:
            parts = [
                (f"file{number}", (path.name, path.read_bytes()))
                for number, path in enumerate(files)
            ]
        except OSError as error:
            raise SettingsError(f"{error.filename} cannot be read.", "Correct the file.") from error
        answer = self._transport.call(
            "POST",
            f"/api/projects/{project}/import",
            params={"commit_to_project": "false"},
            files=parts,
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        numbers = answer["file_upload_ids"]
        found = self._transport.call(
            "GET", f"/api/projects/{project}/file-uploads", params={"ids": json.dumps(numbers)}
        )
        places = {one["id"]: f"/data/{one['file']}" for one in found}
        return [places[number] for number in numbers]


def _more_than(**columns: int) -> dict[str, Any]:
    """The Data Manager's filter for tasks with more than these values in these columns."""
    items = [
        {
            "filter": f"filter:tasks:{column}",
            "operator": "greater",
            "type": "Number",
            "value": value,
        }
        for column, value in columns.items()
    ]
    return {"conjunction": "and", "items": items}
