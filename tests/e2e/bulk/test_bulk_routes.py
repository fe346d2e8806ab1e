"""Runs asked for over HTTP, deleted tasks and deleted predictions, on a real Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.prediction_log import PredictionLog
from jobs import enqueue
from jobs.run import Scope, Trigger
from jobs.run_store import RunStore
from tests.support.bulk import ended, exactly_one_each
from tests.support.live import Servers, own_backend
from tests.support.waiting import until


def test_runs_over_http_and_label_studios_own_button(
    servers: Servers,
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    many: list[str],
    bulk: Settings,
    api: Callable[..., Any],
    tmp_path: Path,
) -> None:
    number = project(many[:60])
    # So little time that a call of sixty tasks cannot be answered.
    with own_backend(bulk, tmp_path, predict_seconds=0.3) as mine:
        base = f"{mine.backend_url}/projects/{number}"
        login = (mine.basic_auth_user, mine.basic_auth_pass.get_secret_value())
        assert requests.post(f"{base}/predict", timeout=10).status_code == 401
        wrong = requests.post(f"{base}/predict", json={"only": "x"}, auth=login, timeout=10)
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "bad_field")
        gone = requests.get(f"{base}/runs/nothing", auth=login, timeout=10)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "queue")

        studio.backends.save(
            {
                "project": number,
                "url": mine.backend_url,
                "title": "clip",
                "auth_method": "BASIC_AUTH",
                "basic_auth_user": login[0],
                "basic_auth_pass": login[1],
            }
        )
        api(
            "POST",
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={number}",
            json={"selectedItems": {"all": True, "excluded": []}},
        )
        listed = until(
            lambda: requests.get(f"{base}/runs", auth=login, timeout=10).json()["runs"], 30
        )
        assert [run["asked_by"] for run in listed] == ["label-studio"]
        joined = requests.post(f"{base}/predict", auth=login, timeout=10)
        assert joined.status_code == 202
        run = runs.get(joined.json()["id"])
        assert run is not None
        run = ended(runs, run)
        exactly_one_each(studio, number, run)
        shown = requests.get(f"{base}/runs/{run.id}", auth=login, timeout=10).json()
        assert (shown["state"], shown["failures"]) == ("done", {})
        cancelled = requests.delete(f"{base}/runs/{run.id}", auth=login, timeout=10)
        assert cancelled.json()["state"] == "done"
        metrics = requests.get(f"{mine.backend_url}/metrics", timeout=10).text
        assert 'ls_clip_workers{queue="predict"} 2.0' in metrics
    assert "tasks that were not predicted in time: " in (tmp_path / "backend.log").read_text()


def test_tasks_deleted_in_label_studio_are_erased_from_the_store(
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    many: list[str],
    bulk: Settings,
    api: Callable[..., Any],
    tmp_path: Path,
) -> None:
    number = project(many[:30])
    with own_backend(bulk, tmp_path) as mine:
        connect(mine, studio, Runtime(mine), number)
        store = open_store(bulk)
        address = f"{bulk.label_studio_url}{many[0]}"
        assert store.vectors.keys_of([address])
        task = next(t["id"] for t in studio.tasks.iterate(number) if t["data"]["image"] == many[0])
        api(
            "POST",
            f"/api/dm/actions?id=delete_tasks&project={number}",
            json={"selectedItems": {"all": False, "included": [task]}},
        )
        until(lambda: not open_store(bulk).vectors.keys_of([address]), 30)
    key = project_key(studio.projects.get(number))
    assert PredictionLog(open_store(bulk)).of_tasks(key, [task]) == {}


def test_prune_deletes_duplicates_and_versions_and_nothing_else(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int], many: list[str]
) -> None:
    from backend.projects.deletion import delete, plan_deletion

    number = project(many[:30])
    run = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    double = studio.predictions.of_project(number)[0]
    keys = ("task", "result", "score", "model_version")
    studio.predictions.import_items(number, [{key: double[key] for key in keys}])
    old = [{"task": double["task"], "result": [], "score": 0.1, "model_version": "old"}]
    studio.predictions.import_items(number, old)

    assert plan_deletion(studio, number, None, duplicates=False).count == 0
    assert delete(studio, number, plan_deletion(studio, number, None, duplicates=True)) == 1
    assert delete(studio, number, plan_deletion(studio, number, "old", duplicates=False)) == 1
    exactly_one_each(studio, number, run)
