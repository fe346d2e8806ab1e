"""Label Studio's tasks, annotations and uploaded files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.core.api_error import ApiError

from backend.errors import SettingsError
from backend.labelstudio.failures import explained, listing_error
from backend.labelstudio.transport import IMPORT_SECONDS, Transport
from backend.messages.message import Message

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

_ANNOTATED_FIELDS = (
    "id,data,annotations,predictions,result,was_cancelled,completed_by,parent_prediction,"
    "parent_annotation,lead_time,draft_created_at,created_at,updated_at,import_id,ground_truth,"
    "model_version"
)
"""Fields of tasks, annotations and predictions: Label Studio applies one list to all of them."""


class Tasks:
    """The calls about tasks (https://api.labelstud.io/api-reference/api-reference/tasks).

    Args:
        transport: makes the calls.
        sdk: makes those that the SDK has.
    """

    def __init__(self, transport: Transport, sdk: LabelStudio) -> None:
        self._transport = transport
        self._sdk = sdk

    def iterate(
        self, project: int, page_size: int = 2000, after: int = 0
    ) -> Iterator[dict[str, Any]]:
        """All tasks by id, each with these fields.

        ``id``, ``data``, ``total_annotations``, ``cancelled_annotations`` (by Skip, not counted
        among the former), ``total_predictions``: they cost Label Studio least. Pages follow the id
        and not a page number, because a task deleted meanwhile would shift the pages.

        Args:
            project: its number.
            page_size: tasks per request.
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
                    "include": "id,data,total_annotations,cancelled_annotations,total_predictions",
                    "query": json.dumps(
                        {"filters": _more_than(id=after), "ordering": ["tasks:id"]}
                    ),
                },
                timeout=IMPORT_SECONDS,
            )
            tasks = answer["tasks"]
            yield from tasks
            if not tasks or len(tasks) >= answer["total"]:
                return
            after = int(tasks[-1]["id"])

    def still_open(self, project: int, numbers: Sequence[int]) -> set[int]:
        """Those of these tasks that are there and that nobody has annotated or skipped.

        Args:
            project: its number.
            numbers: ids of tasks, not more than a tab can name (`filters_of_tasks`).
        """
        answer = self._transport.call(
            "GET",
            "/api/tasks/",
            params={
                "project": project,
                "page_size": max(1, len(numbers)),
                "fields": "all",
                "include": "id,total_annotations,cancelled_annotations",
                "query": json.dumps({"filters": filters_of_tasks(numbers)}),
            },
        )
        return {
            int(task["id"])
            for task in answer["tasks"]
            if not task["total_annotations"] and not task["cancelled_annotations"]
        }

    def sample(self, project: int, count: int) -> list[dict[str, Any]]:
        """Up to ``count`` tasks with ``id`` and ``data``: half the oldest and half the newest."""
        tasks: dict[int, dict[str, Any]] = {}
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
            tasks |= {int(task["id"]): task for task in answer["tasks"]}
        return list(tasks.values())

    def annotated(self, project: int, page_size: int = 500) -> Iterator[dict[str, Any]]:
        """Tasks with an annotation that was not cancelled; pages follow the id, see `iterate`.

        Each has ``id``, ``data``, ``annotations`` (``id``, ``result``, ``was_cancelled``,
        ``completed_by``, ``parent_prediction``, ``parent_annotation``, ``lead_time``,
        ``draft_created_at``, ``created_at``, ``updated_at``, ``import_id``, ``ground_truth``) and
        ``predictions`` (``id``, ``model_version``, ``created_at``).
        """
        after = 0
        while True:
            filters = _more_than(total_annotations=0, id=after)
            try:
                answer = self._sdk.tasks.list(
                    project=project,
                    fields="all",
                    include=_ANNOTATED_FIELDS,
                    query=json.dumps({"filters": filters, "ordering": ["tasks:id"]}),
                    page_size=page_size,
                )
            except ApiError as error:
                raise listing_error(error) from error
            except httpx.HTTPError as error:
                raise explained(self._transport.url, error) from error
            tasks = answer.items or []
            for task in tasks:
                yield {
                    "id": task.id,
                    "data": task.data,
                    "annotations": task.annotations or [],
                    "predictions": [
                        {
                            "id": prediction.id,
                            "model_version": prediction.model_version,
                            "created_at": prediction.created_at,
                        }
                        for prediction in task.predictions or []
                    ],
                }
            if len(tasks) < page_size:
                return
            after = int(tasks[-1].id)

    def is_annotated(self, task: int) -> bool:
        """Whether a task has an annotation that was not cancelled.

        Raises:
            StudioNotFoundError: there is no such task.
        """
        annotations = self._transport.call("GET", f"/api/tasks/{task}/annotations/")
        return any(not annotation["was_cancelled"] for annotation in annotations)

    def last_change(self, project: int) -> str:
        """A string that changes whenever an annotation is made, changed or deleted."""
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
            parent_prediction: id of the prediction that was shown.
            seconds: how long the annotator took.
        """
        body = {
            "result": list(result),
            "parent_prediction": parent_prediction,
            "lead_time": seconds,
            "was_cancelled": False,
        }
        self._transport.call("POST", f"/api/tasks/{task}/annotations/", json=body, attempts=1)

    def create(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks; returns their ids in the same order.

        The call is not retried: one that timed out may have been carried out.
        """
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
        """Upload image files without making tasks; returns their addresses in the same order.

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
            raise SettingsError(
                Message("{filename} cannot be read.", filename=error.filename),
                Message("Correct the file."),
            ) from error
        answer = self._transport.call(
            "POST",
            f"/api/projects/{project}/import",
            params={"commit_to_project": "false"},
            files=parts,
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        numbers = answer["file_upload_ids"]
        uploads = self._transport.call(
            "GET", f"/api/projects/{project}/file-uploads", params={"ids": json.dumps(numbers)}
        )
        addresses = {upload["id"]: f"/data/{upload['file']}" for upload in uploads}
        return [addresses[number] for number in numbers]

    def uploaded(self, address: str) -> bytes | None:
        """The content of an uploaded file; None where there is none at this address.

        Args:
            address: as a task's data has it.
        """
        path = address.removeprefix(urlsplit(self._transport.url).path)
        if not path.startswith("/data/upload/"):
            return None
        return self._transport.content(path)


def filters_of_tasks(numbers: Sequence[int]) -> dict[str, Any]:
    """The Data Manager's filters for these tasks and no others; for none, that show none.

    One filter for each task: the operator that takes a list breaks every tab of the project's Data
    Manager (Label Studio 1.23.2), and "Label Tasks As Displayed" ignores tasks that are selected.
    About 1,000 tasks at most: Label Studio refuses longer expressions.
    """
    items = [
        {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": number}
        for number in numbers or [0]
    ]
    return {"conjunction": "or", "items": items}


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
