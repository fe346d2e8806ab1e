"""Label Studio's projects, their ML backends, webhooks and Data Manager tabs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from backend.labelstudio.refusals import Refusal
from backend.labelstudio.transport import Transport


class Projects:
    """The calls about projects (https://api.labelstud.io/api-reference/api-reference/projects).

    Args:
        transport: makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, number: int) -> dict[str, Any]:
        """The project as Label Studio describes it.

        Raises:
            StudioNotFoundError: there is no such project.
            StudioError: Label Studio refuses the call, or does not answer.
        """
        project: dict[str, Any] = self._transport.call("GET", f"/api/projects/{number}/")
        return project

    def create(self, title: str, label_config: str, **fields: Any) -> dict[str, Any]:
        """Make a project.

        Raises:
            StudioError: Label Studio refuses the config.
        """
        body = {"title": title, "label_config": label_config, **fields}
        # Not repeated: a call whose answer was lost may have been carried out.
        project: dict[str, Any] = self._transport.call(
            "POST", "/api/projects/", json=body, attempts=1
        )
        return project

    def update(self, number: int, **fields: Any) -> dict[str, Any]:
        """Change fields of a project; returns the project afterwards."""
        project: dict[str, Any] = self._transport.call(
            "PATCH", f"/api/projects/{number}/", json=fields
        )
        return project

    def add_local_files(self, project: int, folder: str) -> None:
        """Let a project use the images of a folder below Label Studio's document root.

        Args:
            project: its number.
            folder: absolute path; a strict sub-folder of the document root.

        Raises:
            StudioError: Label Studio serves no local files, or not from this folder.
        """
        self._transport.call(
            "POST",
            "/api/storages/localfiles/",
            json={"project": project, "path": folder, "title": "photos", "use_blob_urls": True},
        )


class Backends:
    """The calls about ML backends (https://api.labelstud.io/api-reference/api-reference/ml).

    Args:
        transport: makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of_project(self, project: int) -> list[dict[str, Any]]:
        """The ML backends of a project. Label Studio asks each for /health and /setup first."""
        backends: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/ml/", params={"project": project}
        )
        return backends

    def save(self, body: Mapping[str, Any], number: int | None = None) -> dict[str, Any]:
        """Add an ML backend, or change the one with this number.

        Raises:
            StudioError: Label Studio cannot use the backend. The backend may be there all the same.
        """
        method, path = ("POST", "/api/ml/") if number is None else ("PATCH", f"/api/ml/{number}")
        saved: dict[str, Any] = self._transport.call(method, path, json=dict(body))
        return saved

    def delete(self, number: int) -> None:
        """Remove an ML backend; its webhook stays."""
        self._transport.call("DELETE", f"/api/ml/{number}")

    def refusal(self, url: str) -> Refusal | None:
        """Why Label Studio does not accept this address of an ML backend; None if it does.

        The request lacks a project, so Label Studio judges the address and makes nothing.
        """
        return self._transport.refusal("/api/ml/", {"url": url})


class Webhooks:
    """The calls about webhooks (https://api.labelstud.io/api-reference/api-reference/webhooks).

    Args:
        transport: makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of_project(self, project: int) -> list[dict[str, Any]]:
        """The webhooks of a project."""
        webhooks: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/webhooks/", params={"project": project}
        )
        return webhooks

    def save(self, body: Mapping[str, Any], number: int | None = None) -> None:
        """Add a webhook, or change the one with this number."""
        if number is None:
            self._transport.call("POST", "/api/webhooks/", json=dict(body))
        else:
            self._transport.call("PATCH", f"/api/webhooks/{number}/", json=dict(body))

    def delete(self, number: int) -> None:
        """Remove a webhook."""
        self._transport.call("DELETE", f"/api/webhooks/{number}/")

    def refusal(self, url: str) -> Refusal | None:
        """Why Label Studio does not accept this address of a webhook; None if it does.

        The request names an action that does not exist, so Label Studio makes nothing.
        """
        return self._transport.refusal("/api/webhooks/", {"url": url, "actions": ["NONE"]})


class Views:
    """The calls about the Data Manager's tabs and columns.

    Args:
        transport: makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of_project(self, project: int) -> list[dict[str, Any]]:
        """The Data Manager's tabs of a project."""
        views: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/dm/views/", params={"project": project}
        )
        return views

    def save(
        self, project: int, data: Mapping[str, Any], number: int | None = None
    ) -> dict[str, Any]:
        """Add a Data Manager tab, or change the one with this number."""
        path = "/api/dm/views/" if number is None else f"/api/dm/views/{number}/"
        body = {"project": project, "data": dict(data)}
        method = "POST" if number is None else "PATCH"
        saved: dict[str, Any] = self._transport.call(
            method, path, params={"project": project}, json=body
        )
        return saved

    def set_filters(
        self, project: int, view: Mapping[str, Any], filters: Mapping[str, Any]
    ) -> None:
        """Change the filters of a tab and nothing else.

        Args:
            project: its number.
            view: the tab as `of_project` gives it; Label Studio replaces all that it is sent.
            filters: a conjunction and its items.
        """
        data = {name: value for name, value in view["data"].items() if name != "selectedItems"}
        self.save(project, {**data, "filters": filters}, int(view["id"]))

    def hidden_columns(self, project: int, shown: Collection[str] = ()) -> list[str]:
        """The columns that the Data Manager hides by default, without those in ``shown``."""
        columns: list[dict[str, Any]] = self._transport.call(
            "GET", "/api/dm/columns/", params={"project": project}
        )["columns"]
        return [
            f"{column['target']}:{column['id']}"
            for column in columns
            if not column.get("visibility_defaults", {}).get("explore", True)
            and column["id"] not in shown
        ]


def project_key(project: Mapping[str, Any]) -> str:
    """``<id>.<unix time of creation>``: how Label Studio names a project to its backends."""
    created = datetime.fromisoformat(str(project["created_at"]).replace("Z", "+00:00"))
    return f"{project['id']}.{int(created.timestamp())}"
