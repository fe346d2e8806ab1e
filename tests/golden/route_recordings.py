"""What every HTTP route answers."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from tests.golden import adapter, cases
from tests.golden.normal import Normal
from tests.golden.recordings import STORE
from tests.golden.stand_in import golden_studio
from tests.support.builders import contract
from tests.support.processes import free_port

TOKEN = "f" * 40
SECRET = "X-Label-Studio-Clip-Secret"
AUTH = {"basic_auth_user": "u", "basic_auth_pass": "p", "webhook_secret": "s3cret"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
WRONG = {"Authorization": "Basic " + base64.b64encode(b"u:x").decode()}
EVENTS = (
    *("full_annotation_created", "full_annotations_created", "full_annotation_updated"),
    *("full_annotations_deleted", "full_tasks_created", "full_project_updated"),
    *("thin_annotation_created", "thin_tasks_created", "thin_project_updated", "start_training"),
)


class _Calls:
    """Calls of one client, with their answers as they are recorded."""

    def __init__(self, client: Any, normal: Normal) -> None:
        self._client = client
        self._normal = normal
        self.told: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: Any = None, **given: Any) -> Any:
        """Ask; a body that is no bytes is sent as JSON."""
        what = dict(given)
        if isinstance(body, bytes):
            what |= {"data": body, "content_type": given.get("content_type", "application/json")}
        elif body is not None:
            what["json"] = body
        answer = self._client.open(path, method=method, **what)
        shown = re.sub("/[0-9a-f]{6}$", "/<beginning>", path)
        told = {"asked": f"{method} {shown}", "status": answer.status_code}
        if given:
            told["with"] = sorted(given.get("headers", given))
        if "WWW-Authenticate" in answer.headers:
            told["WWW-Authenticate"] = answer.headers["WWW-Authenticate"]
        if isinstance(body, dict | list):
            told["sent"] = sorted(body) if isinstance(body, dict) else "a list"
        told["type"] = answer.content_type
        told["json"] = answer.json if answer.is_json else None
        self.told.append(self._normal(told))
        return answer.json if answer.is_json else answer.text


def routes(folder: Path) -> dict[str, Any]:
    """Every route, by topic."""
    store = adapter.copy_store(STORE, folder / "store")
    with (
        golden_studio() as studio,
        adapter.valkey(folder / "valkey", free_port()) as url,
        adapter.connect(url) as connection,
    ):
        places = {studio.url: "<studio>", url: "<redis>", url.split("/")[2]: "<redis>"}
        normal = Normal({**places, str(folder): "<folder>"})
        given = {"label_studio_url": studio.url, "label_studio_api_key": TOKEN}
        plain = adapter.make_runtime(store, **given)
        queued = adapter.make_runtime(store, redis_url=url, **given)
        guarded = adapter.make_runtime(store, redis_url=url, **given, **AUTH)
        small = adapter.make_runtime(store, max_body_bytes=2000, **given)
        found: dict[str, Any] = {}

        def calls(name: str, runtime: Any) -> _Calls:
            client = _Calls(adapter.create_client(runtime), normal)
            found[name] = client.told
            return client

        _predict(calls("predict", plain), plain)
        _mistakes(calls("mistakes", plain), calls("too large", small))
        _guarded(calls("guarded", guarded))
        _compare(calls("compare", plain), plain)
        _without_queue(calls("without a queue", plain))
        found["effects of webhooks"] = _webhooks(calls("webhooks", queued), connection)
        connection.flushall()
        _runs(calls("runs", queued), queued, connection)
        found["project after the run"] = {
            "shown": studio.shown,
            "predictions": sorted(studio.predictions, key=lambda one: one["task"])[:5],
            "tasks with a prediction": len(studio.shown_tasks()),
        }
        found["metrics"] = _metrics(adapter.create_client(queued))
    return found


def _body(*tasks: Any, **fields: Any) -> dict[str, Any]:
    return {
        "tasks": list(tasks),
        "project": cases.TRAINED,
        "label_config": cases.EVIDENT,
        "params": {"login": None, "password": None, "context": None},
        **fields,
    }


def _predict(call: _Calls, runtime: Any) -> None:
    call("GET", "/")
    call("GET", "/health")
    call("GET", "/versions")
    call("POST", "/setup", {"project": cases.TRAINED, "schema": cases.EVIDENT})
    call("POST", "/setup", {"project": cases.BARE, "schema": cases.TWO})
    for schema in (None, "", "<View>", "<View/>"):
        call("POST", "/setup", {"project": cases.BARE, "schema": schema})
    for name in (None, 7, "../../x", {"id": 1}):
        call("POST", "/setup", {"project": name, "schema": cases.PLAIN})
    call("POST", "/predict", _body(*cases.tasks(30, 31)))
    call("POST", "/predict", _body())
    call("POST", "/predict", _body(*cases.ODD_TASKS, None, "x", 3, []))
    call("POST", "/predict", _body(*cases.OPTION_TASKS, label_config=cases.OPTIONS))
    call("POST", "/predict", _body(cases.task(1), label_config=None))
    call("POST", "/predict", _body(cases.task(1), label_config="<View>"))
    for name in ("predict_one_task", "predict_many_tasks", "setup"):
        sample = contract(name)
        call(sample["method"], sample["path"], sample["body"])
    call("GET", "/versions")
    _until(lambda: len(adapter.snapshots(runtime, cases.TRAINED, [30, 31])) == 4)
    call.told.append({"kept": adapter.snapshots(runtime, cases.TRAINED, [30, 31])})
    _until(lambda: adapter.keeps(runtime, cases.TRAINED, [30]))
    project = {"id": 1, "created_at": "2026-11-23T06:56:13Z"}
    gone = {"action": "TASKS_DELETED", "tasks": [{"id": 30}, {"id": 31}], "project": project}
    call("POST", "/webhook", gone)
    _until(lambda: not adapter.keeps(runtime, cases.TRAINED, [30, 31]))
    call.told.append({"kept after the deletion": adapter.keeps(runtime, cases.TRAINED, [30])})


def _mistakes(call: _Calls, small: _Calls) -> None:
    for path in ("/setup", "/predict", "/webhook", "/compare"):
        for body in (b"", b"{", b"[]", b"null", b"NaN", b'{"a": 1} x', b"\xff"):
            call("POST", path, body)
        call("POST", path, b"{}", content_type="text/plain")
        call("POST", path, b"{}")
        small("POST", path, json.dumps({"action": "X", "x": "y" * 3000}).encode())
    for tasks in (None, {}, "x"):
        call("POST", "/predict", _body() | {"tasks": tasks})
    call("POST", "/predict", _body(label_config=3))
    call("POST", "/setup", {"schema": []})
    for action in (None, 3, "", "NO_SUCH_ACTION"):
        call("POST", "/webhook", {"action": action})
    for asked in ({"salt": 1, "digests": {}}, {"salt": "x", "digests": []}):
        call("POST", "/compare", asked)
    call("GET", "/nothing")
    for method, path in (("GET", "/predict"), ("POST", "/versions"), ("DELETE", "/webhook")):
        call(method, path)
    for path in ("/projects/x/runs", "/projects/-1/runs", "/projects/1/runs/a/b"):
        call("GET", path)


def _guarded(call: _Calls) -> None:
    asked: tuple[tuple[str, str, Any], ...] = (
        ("GET", "/health", None),
        ("GET", "/versions", None),
        ("POST", "/setup", {"project": cases.TRAINED, "schema": cases.EVIDENT}),
        ("POST", "/predict", _body()),
        ("POST", "/compare", {"salt": "x", "digests": {}}),
        ("POST", "/webhook", {"action": "START_TRAINING"}),
        ("POST", "/webhook", {"action": "PROJECT_CREATED"}),
        ("POST", "/projects/1/predict", {"only": "nothing"}),
        ("GET", "/projects/1/runs", None),
        ("GET", "/projects/1/runs/abc", None),
        ("DELETE", "/projects/1/runs/abc", None),
        ("GET", "/projects/1/training", None),
        ("POST", "/projects/99/train", None),
    )
    for method, path, body in asked:
        for headers in ({}, WRONG, BASIC, {SECRET: "s3cret"}, {SECRET: "bad"}):
            call(method, path, body, headers=headers)


def _compare(call: _Calls, runtime: Any) -> None:
    ours = adapter.digests(runtime.settings, "salt")
    theirs = {**ours, "threshold": "x", "store": "x"}
    call("POST", "/compare", {"salt": "salt", "digests": ours})
    call("POST", "/compare", {"salt": "salt", "digests": theirs})
    call("POST", "/compare", {"salt": "other", "digests": ours})
    call("POST", "/compare", {"salt": "salt", "digests": {}})


def _without_queue(call: _Calls) -> None:
    call("POST", "/projects/1/predict")
    call("GET", "/projects/1/runs")
    call("GET", "/projects/1/runs/abc")
    call("DELETE", "/projects/1/runs/abc")
    call("POST", "/projects/1/train")
    call("GET", "/projects/1/training")
    call("POST", "/webhook?project=1", {"action": "TASKS_CREATED"})


def _webhooks(call: _Calls, connection: Redis) -> dict[str, Any]:
    """Answers, and what each event leads to for a project of its own."""
    found = {}
    for number, name in enumerate(EVENTS, 11):
        body = dict(contract(f"webhook_{name}")["body"])
        if "project" in body:
            body["project"] = {"id": number, "label_config": cases.EVIDENT}
        call("POST", f"/webhook?project={number}", body)
        _until(partial(_awaits_reconcile, connection, number))
        now, moments = time.time(), adapter.due_moments(connection, number)
        found[name] = {
            "due in": {kind: round(moment - now, -1) for kind, moment in moments.items()},
            "training": adapter.training(connection, number)["fields"],
        }
    return found


def _runs(call: _Calls, runtime: Any, connection: Redis) -> None:
    call("GET", "/projects/1/runs")
    call("POST", "/projects/1/predict", {"only": "nothing"})
    call("POST", "/projects/1/predict", b"{")
    call("POST", "/projects/99/predict")
    run = call("POST", "/projects/1/predict")
    call("POST", "/projects/1/predict", {"only": "all"})
    call("GET", f"/projects/1/runs/{run['id']}")
    call("GET", f"/projects/2/runs/{run['id']}")
    call("GET", f"/projects/1/runs/{run['id'][:6]}")
    call("GET", "/projects/1/runs/nothing")
    adapter.work(runtime, connection, "predict")
    call("GET", f"/projects/1/runs/{run['id']}")
    call("DELETE", f"/projects/1/runs/{run['id']}")
    other = call("POST", "/projects/1/predict", {"only": "unlabelled"})
    call("DELETE", f"/projects/1/runs/{other['id']}")
    call("DELETE", "/projects/1/runs/nothing")
    call("GET", "/projects/1/runs")
    call("GET", "/projects/1/training")
    call("POST", "/projects/1/train")
    call("POST", "/projects/1/train")
    call("POST", "/projects/99/train")
    call("GET", "/projects/1/training")


def _metrics(client: Any) -> dict[str, Any]:
    """Help, kind and label names of our metrics; values and Python's own are left out."""
    answer = client.get("/metrics")
    help_and_type = [
        line
        for line in answer.text.splitlines()
        if re.match("# (HELP|TYPE) ls_clip_", line) and "_created" not in line
    ]
    labels: dict[str, list[str]] = {}
    for name, inside in re.findall(r"(?m)^(ls_clip_\w+)\{(.*)\} ", answer.text):
        labels[name] = sorted(re.findall(r'(\w+)="', inside))
    return {
        "status": answer.status_code,
        "type": answer.content_type,
        "help": sorted(help_and_type),
        # Files are read directly by other tests of this process only.
        "labels": {
            name: names
            for name, names in labels.items()
            if not name.endswith("_created") and "direct_reads" not in name
        },
    }


def _awaits_reconcile(connection: Redis, project: int) -> bool:
    return "reconcile" in adapter.due_moments(connection, project)


def _until(true: Callable[[], bool]) -> None:
    """Wait for what is done after an answer."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
