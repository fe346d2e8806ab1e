"""As much of Label Studio as a run needs, in this process, with faults on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.builders import choices_config

PROJECT = 1
KEY = "1.1795416973"
FIXED = {
    "/api/version": {"release": "1.23.2"},
    "/api/current-user/whoami": {"id": 1, "email": "person@example.com"},
}
"""Path -> what is always answered."""
CREATED = "2026-11-23T06:56:13Z"


class StubStudio:
    """One project.

    Attributes:
        tasks: id -> data.
        annotated: ids of the tasks that have an annotation.
        skipped: ids of the tasks that somebody has skipped.
        views: the Data Manager's tabs.
        sampling: in which order tasks are served.
        annotations: task id -> its annotations, where they are looked at.
        predictions: as they were imported.
        config: the labeling config.
        shown: the model version that the project shows.
        before: asked with method and path before each answer; a status is answered instead.
        after: told of method and path when a call has been carried out; a status is answered.
        calls: method and path of each call.
        uploads: number of an uploaded file -> its address and content.
        uploaded_together: how many files came in each request.
    """

    def __init__(self) -> None:
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotated: set[int] = set()
        self.skipped: set[int] = set()
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.sampling = "Sequential sampling"
        self.config = choices_config()
        self.shown = ""
        self.before: Callable[[str, str], int | None] = lambda method, path: None
        self.after: Callable[[str, str], int | None] = lambda method, path: None
        self.calls: list[tuple[str, str]] = []
        self.uploads: dict[int, tuple[str, bytes]] = {}
        self.uploaded_together: list[int] = []
        self.url = ""
        self._tabs_made = 0

    def shown_tasks(self) -> set[int]:
        """The tasks with a prediction of the version that is shown."""
        return {one["task"] for one in self.predictions if one["model_version"] == self.shown}

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        path = urlsplit(target).path
        asked = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        self.calls.append((method, path))
        fault = self.before(method, path)
        if fault is not None:
            return fault, {"detail": "injected"}
        is_file = "commit_to_project" in asked or "upload" in path
        found = (
            self._files(path, asked, body)
            if is_file
            else self._carry_out(method, path, asked, body)
        )
        fault = self.after(method, path)
        return found if fault is None else (fault, {"detail": "injected"})

    def _carry_out(
        self, method: str, path: str, asked: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if path in FIXED:
            return 200, FIXED[path]
        if path == "/api/tasks/":
            return self._listing(asked)
        if path == "/api/predictions/":
            return 200, self.predictions
        if path.startswith("/api/predictions/"):
            found = [one for one in self.predictions if path.endswith(f"/{one['id']}/")]
            for one in found:
                one.update(body)
            return (200, found[0]) if found else (404, {"detail": "Not found."})
        if path.startswith("/api/tasks/") and path.endswith("/annotations/"):
            number = int(path.split("/")[3])
            there = [{"was_cancelled": False}] if number in self.annotated else []
            return (200, there) if number in self.tasks else (404, {"detail": "Not found."})
        if path == f"/api/projects/{PROJECT}/model-versions/":
            versions = [one["model_version"] for one in self.predictions]
            return 200, {version: versions.count(version) for version in versions}
        if path == f"/api/projects/{PROJECT}/import":
            first = max(self.tasks, default=0) + 1
            made = {first + n: one["data"] for n, one in enumerate(body)}
            self.tasks |= made
            return 201, {"task_ids": list(made)}
        if path == f"/api/projects/{PROJECT}/import/predictions":
            first = len(self.predictions)
            self.predictions += [{**one, "id": first + n} for n, one in enumerate(body)]
            return 201, {"created": len(body)}
        if path == f"/api/projects/{PROJECT}/":
            self.shown = (body or {}).get("model_version", self.shown)
            self.sampling = (body or {}).get("sampling", self.sampling)
            project = {"id": PROJECT, "created_at": CREATED, "label_config": self.config}
            project |= {"sampling": self.sampling, "title": "Photos"}
            return 200, {**project, "model_version": self.shown, "task_number": len(self.tasks)}
        if path == "/api/dm/columns/":
            return 200, {"columns": []}
        if path.startswith("/api/dm/views/"):
            return self._tab(method, path, body)
        return 404, {"detail": "Not found."}

    def _files(self, path: str, asked: dict[str, str], body: Any) -> tuple[int, Any]:
        if "commit_to_project" in asked:
            return 201, {"file_upload_ids": self._upload(body)}
        if path.endswith("/file-uploads"):
            numbers = json.loads(asked["ids"])
            return 200, [{"id": one, "file": self.uploads[one][0]} for one in numbers]
        contents = [data for name, data in self.uploads.values() if path == f"/data/{name}"]
        return (200, contents[0]) if contents else (404, {"detail": "Not found."})

    def _upload(self, files: list[tuple[str, bytes]]) -> list[int]:
        self.uploaded_together.append(len(files))
        first = len(self.uploads) + 1
        made = {
            first + n: (f"upload/{PROJECT}/{first + n:08x}-{name}", data)
            for n, (name, data) in enumerate(files)
        }
        self.uploads |= made
        return list(made)

    def _tab(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, self.views
        if method == "POST":
            # Never that of a tab that was there.
            self._tabs_made += 1
            self.views.append({"id": 100 + self._tabs_made, "data": body["data"]})
            return 201, self.views[-1]
        for view in self.views:
            if path == f"/api/dm/views/{view['id']}/":
                view["data"] = body["data"]
                return 200, view
        return 404, {"detail": "Not found."}

    def _listing(self, asked: dict[str, str]) -> tuple[int, Any]:
        items = json.loads(asked.get("query", "{}")).get("filters", {"items": []})["items"]
        wanted = {item["value"] for item in items if item["operator"] == "equal"}
        after = max((item["value"] for item in items if item["operator"] == "greater"), default=0)
        found = [number for number in sorted(self.tasks) if number > after]
        if wanted:
            found = [number for number in found if number in wanted]
        page, size = int(asked.get("page", 1)), int(asked["page_size"])
        part = found[(page - 1) * size : page * size]
        if page > 1 and not part:
            return 404, {"detail": "Invalid page."}
        with_one = [one["task"] for one in self.predictions]
        tasks = [
            {
                "id": number,
                "data": self.tasks[number],
                "total_annotations": int(number in self.annotated),
                "cancelled_annotations": int(number in self.skipped),
                "annotations": self.annotations.get(number, []),
                "total_predictions": with_one.count(number),
            }
            for number in part
        ]
        return 200, {"tasks": tasks, "total": len(found)}


def _files_in(kind: str, content: bytes) -> list[tuple[str, bytes]]:
    """Name and content of the files of a form."""
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
    return [
        (part.get_filename() or "", part.get_payload(decode=True))  # type: ignore[misc]
        for part in form.walk()
        if not part.is_multipart()
    ]


@contextmanager
def stub_studio() -> Iterator[StubStudio]:
    """Serve one."""
    stub = StubStudio()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type") or ""
            body = _files_in(kind, content) if kind.startswith("multipart/") else None
            if body is None and content:
                body = json.loads(content)
            status, answer = stub.answer(self.command, self.path, body)
            out = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
