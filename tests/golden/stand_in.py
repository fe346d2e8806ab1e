"""The tests' stand-in Label Studio with what else the commands call, and one project's content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.golden import cases
from tests.support.stub_label_studio import StubStudio, stub_studio

WHEN = "2026-11-24T08:00:00Z"
COLUMNS = [
    {"id": "id", "target": "tasks", "visibility_defaults": {"explore": True}},
    {"id": "file_upload", "target": "tasks", "visibility_defaults": {"explore": False}},
    {"id": "predictions_score", "target": "tasks", "visibility_defaults": {"explore": False}},
]
RIGHTS = [
    *("projects.view", "projects.change", "tasks.view", "predictions.any", "models.change"),
    "webhooks.change",
]
USER = {"id": 1, "email": "a@b.test", "permissions": RIGHTS}


class _More:
    """What the stand-in lacks: backends, webhooks, tabs, annotations, new tasks."""

    def __init__(self, stub: StubStudio) -> None:
        self._stub = stub
        self._answer = stub.answer
        self._rows: dict[str, dict[int, dict[str, Any]]] = {
            "ml": {},
            "webhooks": {},
            "dm/views": {},
        }
        self.annotations: dict[int, list[dict[str, Any]]] = {}

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        include = set(",".join(query.get("include", [])).split(","))
        found = re.fullmatch("/api/(ml|webhooks|dm/views)/?([0-9]*)/?", path)
        if found:
            self._stub.calls.append((method, path))
            return self._row(method, found[1], found[2], body)
        if path == "/api/dm/columns/":
            return 200, {"columns": COLUMNS}
        if path == "/api/current-user/whoami":
            return 200, USER
        if path == "/api/tasks/" and include & {"annotations", "updated_at"}:
            self._stub.calls.append((method, path))
            return 200, self._annotated(target)
        if path == "/api/projects/1/import" and method == "POST":
            self._stub.calls.append((method, path))
            first = max(self._stub.tasks, default=0) + 1
            made = {first + n: one.get("data", one) for n, one in enumerate(body)}
            self._stub.tasks |= made
            return 201, {"task_ids": list(made)}
        status, answer = self._answer(method, target, body)
        if path == "/api/tasks/" and status == 200:
            for one in answer["tasks"]:
                one["total_annotations"] = len(self.annotations.get(one["id"], []))
        return status, answer

    def _row(self, method: str, kind: str, number: str, body: Any) -> tuple[int, Any]:
        rows = self._rows.setdefault(kind, {})
        if method == "GET":
            return 200, list(rows.values())
        if method == "DELETE":
            rows.pop(int(number), None)
            return 204, {}
        if method == "POST":
            if not isinstance(body.get("project"), int):
                return 400, {"detail": "project is missing"}
            number = str(len(rows) + 1)
        rows[int(number)] = {"id": int(number), **body}
        return 201, rows[int(number)]

    def _annotated(self, target: str) -> dict[str, Any]:
        query = parse_qs(urlsplit(target).query).get("query", [""])[0]
        after = max(map(int, re.findall('"id"[^}]*?"value": ?([0-9]+)', query)), default=0)
        numbers = [one for one in sorted(self.annotations) if one > after]
        tasks = [
            {
                "id": number,
                "data": self._stub.tasks[number],
                "updated_at": WHEN,
                "annotations": self.annotations[number],
                "predictions": [],
            }
            for number in numbers
        ]
        return {"tasks": tasks, "total": len(tasks), "total_annotations": len(tasks)}


def annotation(number: int, labels: list[str]) -> dict[str, Any]:
    """What a person chose, without having seen a suggestion."""
    value = {"choices": labels}
    item = {"from_name": "tags", "to_name": "image", "type": "choices", "value": value}
    return {
        "id": 1000 + number,
        "result": [item],
        "was_cancelled": False,
        "completed_by": {"id": 1},
        "parent_prediction": None,
        "lead_time": 4.0,
        "created_at": WHEN,
        "updated_at": WHEN,
    }


@contextmanager
def golden_studio(annotated: dict[int, list[str]] | None = None) -> Iterator[StubStudio]:
    """Serve project 1 with the store's photos; task -> labels that were annotated."""
    with stub_studio() as stub:
        stub.config = cases.EVIDENT
        stub.tasks = {one["id"]: one["data"] for one in cases.tasks(*cases.ALL)}
        more = _More(stub)
        for number, labels in (annotated or {}).items():
            more.annotations[number] = [annotation(number, labels)]
        stub.answer = more.answer  # type: ignore[method-assign]
        yield stub
