"""All that talks to Label Studio: by its SDK, and by plain requests where that has no call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from backend.errors import SettingsError, StudioError
from backend.settings import Settings
from backend.studio_api import IMPORT_SECONDS, StudioApi

SECRET_HEADER = "X-Label-Studio-Clip-Secret"
"""The header of our webhooks that carries the shared secret; Label Studio signs nothing."""
EVENT_ACTIONS = frozenset(
    {
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "TASKS_CREATED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
    }
)
"""The webhook actions that Label Studio really sends."""
_ANNOTATED_FIELDS = (
    "id,data,annotations,predictions,result,was_cancelled,completed_by,parent_prediction,"
    "lead_time,created_at,updated_at,model_version"
)
"""A flat list: Label Studio applies it to the nested objects too."""


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


class Studio(StudioApi):
    """The calls that we need; see `StudioApi`."""

    def project(self, number: int) -> dict[str, Any]:
        """The project as Label Studio describes it.

        Raises:
            StudioError: there is none, or Label Studio cannot be asked.
        """
        project: dict[str, Any] = self._call("GET", f"/api/projects/{number}/")
        return project

    def create_project(self, title: str, label_config: str, **fields: Any) -> dict[str, Any]:
        """Make a project.

        Raises:
            StudioError: Label Studio refuses the config.
        """
        body = {"title": title, "label_config": label_config, **fields}
        # Not repeated: a call whose answer was lost may have been carried out.
        project: dict[str, Any] = self._call("POST", "/api/projects/", json=body, attempts=1)
        return project

    def update_project(self, number: int, **fields: Any) -> dict[str, Any]:
        """PATCH a project's fields."""
        project: dict[str, Any] = self._call("PATCH", f"/api/projects/{number}/", json=fields)
        return project

    def tasks(
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
            answer = self._call(
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
                answer = self._client.tasks.list(
                    project=project,
                    fields="all",
                    include=_ANNOTATED_FIELDS,
                    query=json.dumps({"filters": filters, "ordering": ["tasks:id"]}),
                    page_size=page_size,
                )
            except ApiError as error:
                raise self._refused(error) from error
            except httpx.HTTPError as error:
                raise self._explained(error) from error
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
        answer = self._call(
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
        self._call("POST", f"/api/tasks/{task}/annotations/", json=body, attempts=1)

    def create_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks and return their ids."""
        answer = self._call(
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
        answer = self._call(
            "POST",
            f"/api/projects/{project}/import",
            params={"commit_to_project": "false"},
            files=parts,
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        numbers = answer["file_upload_ids"]
        found = self._call(
            "GET", f"/api/projects/{project}/file-uploads", params={"ids": json.dumps(numbers)}
        )
        places = {one["id"]: f"/data/{one['file']}" for one in found}
        return [places[number] for number in numbers]

    def add_local_files(self, project: int, folder: str) -> None:
        """Let a project use the images of a folder below Label Studio's document root.

        Args:
            project: its number.
            folder: absolute; a strict sub-folder of the document root.
        """
        self._call(
            "POST",
            "/api/storages/localfiles/",
            json={"project": project, "path": folder, "title": "photos", "use_blob_urls": True},
        )

    def predictions(self, project: int) -> list[dict[str, Any]]:
        """Every prediction of a project: id, task, model_version, score, result."""
        found: list[dict[str, Any]] = self._call(
            "GET", "/api/predictions/", params={"project": project}, timeout=IMPORT_SECONDS
        )
        return found

    def import_predictions(self, project: int, items: Sequence[Mapping[str, Any]]) -> int:
        """Bulk-import predictions; returns how many Label Studio really made.

        Label Studio drops items that it holds invalid without a word, so compare. It is not
        retried here: a call that timed out may have been carried out.
        """
        answer = self._call(
            "POST",
            f"/api/projects/{project}/import/predictions",
            json=list(items),
            timeout=IMPORT_SECONDS,
            attempts=1,
        )
        return int(answer["created"])

    def model_versions(self, project: int) -> dict[str, int]:
        """Model version -> number of predictions."""
        versions: dict[str, int] = self._call("GET", f"/api/projects/{project}/model-versions/")
        return versions

    def delete_prediction(self, number: int) -> None:
        """Delete one prediction."""
        self._call("DELETE", f"/api/predictions/{number}/")

    def delete_version(self, project: int, model_version: str) -> None:
        """Delete all predictions of a version; 200 a second, and nobody can submit meanwhile."""
        self._call(
            "DELETE",
            f"/api/projects/{project}/model-versions/",
            json={"model_version": model_version},
            timeout=IMPORT_SECONDS,
            attempts=1,
        )

    def backends(self, project: int) -> list[dict[str, Any]]:
        """The ML backends of a project. Label Studio asks each for /health and /setup first."""
        found: list[dict[str, Any]] = self._call("GET", "/api/ml/", params={"project": project})
        return found

    def save_backend(self, body: Mapping[str, Any], number: int | None = None) -> dict[str, Any]:
        """Add an ML backend, or change the one with this number."""
        method, path = ("POST", "/api/ml/") if number is None else ("PATCH", f"/api/ml/{number}")
        saved: dict[str, Any] = self._call(method, path, json=dict(body))
        return saved

    def delete_backend(self, number: int) -> None:
        """Remove an ML backend; its webhook stays."""
        self._call("DELETE", f"/api/ml/{number}")

    def webhooks(self, project: int) -> list[dict[str, Any]]:
        """The webhooks of a project."""
        found: list[dict[str, Any]] = self._call(
            "GET", "/api/webhooks/", params={"project": project}
        )
        return found

    def save_webhook(self, body: Mapping[str, Any], number: int | None = None) -> None:
        """Add a webhook, or change the one with this number."""
        if number is None:
            self._call("POST", "/api/webhooks/", json=dict(body))
        else:
            self._call("PATCH", f"/api/webhooks/{number}/", json=dict(body))

    def delete_webhook(self, number: int) -> None:
        """Remove a webhook."""
        self._call("DELETE", f"/api/webhooks/{number}/")

    def views(self, project: int) -> list[dict[str, Any]]:
        """The Data Manager's tabs."""
        found: list[dict[str, Any]] = self._call(
            "GET", "/api/dm/views/", params={"project": project}
        )
        return found

    def save_view(
        self, project: int, data: Mapping[str, Any], number: int | None = None
    ) -> dict[str, Any]:
        """Add a Data Manager tab, or change the one with this number."""
        path = "/api/dm/views/" if number is None else f"/api/dm/views/{number}/"
        body = {"project": project, "data": dict(data)}
        method = "POST" if number is None else "PATCH"
        saved: dict[str, Any] = self._call(method, path, params={"project": project}, json=body)
        return saved

    def columns(self, project: int) -> list[dict[str, Any]]:
        """The columns that the Data Manager can show."""
        found: list[dict[str, Any]] = self._call(
            "GET", "/api/dm/columns/", params={"project": project}
        )["columns"]
        return found

    def next_task(self, project: int) -> dict[str, Any]:
        """The task that the label stream would open, with the predictions it would show."""
        task: dict[str, Any] = self._call("GET", f"/api/projects/{project}/next")
        return task

    def version(self) -> str:
        """Label Studio's release."""
        return str(self._call("GET", "/api/version")["release"])

    def user(self) -> dict[str, Any]:
        """The user that the token belongs to, with ``email`` and ``permissions``.

        Raises:
            StudioError: the token is refused, or its user may use nothing.
        """
        user: dict[str, Any] = self._call("GET", "/api/current-user/whoami")
        return user

    def sample_tasks(self, project: int, count: int) -> list[dict[str, Any]]:
        """Up to this many tasks, half of them the oldest and half the newest; id and data."""
        found: dict[int, dict[str, Any]] = {}
        for ordering in ("tasks:id", "-tasks:id"):
            answer = self._call(
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

    def why_no_backend(self, url: str) -> str:
        """What Label Studio has against this address of an ML backend, in its own words.

        The request lacks a project, so that it makes nothing; only the address is judged.
        """
        return self._refusal("/api/ml/", {"url": url})

    def why_no_webhook(self, url: str) -> str:
        """What Label Studio has against this address of a webhook, in its own words.

        The request names an action that does not exist, so that it makes nothing.
        """
        return self._refusal("/api/webhooks/", {"url": url, "actions": ["NONE"]})

    def _refusal(self, path: str, body: Mapping[str, Any]) -> str:
        try:
            self._call("POST", path, json=body, attempts=1)
        except StudioError as error:
            return error.message
        return ""


def require_project(settings: Settings, number: int) -> None:
    """Refuse a number that no project has. Without a token nobody can tell: workers have it.

    Raises:
        UnansweredError: Label Studio is away.
        StudioError: there is no such project, or the token is refused.
    """
    if settings.label_studio_api_key.get_secret_value():
        Studio(settings).project(number)


def project_key(project: Mapping[str, Any]) -> str:
    """``<id>.<unix time of creation>``: how Label Studio names a project to its backends."""
    created = datetime.fromisoformat(str(project["created_at"]).replace("Z", "+00:00"))
    return f"{project['id']}.{int(created.timestamp())}"
