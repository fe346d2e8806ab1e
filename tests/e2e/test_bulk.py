"""Whole projects through workers, on a real Label Studio and a real Valkey, while things break."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from backend.demo.servers import LocalBackend, LocalValkey, LocalWorker
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.processes import free_port
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.prediction_log import PredictionLog
from backend.storage.store import Store
from jobs import enqueue, queue
from jobs.polling import wait
from jobs.run import ENDED, Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.builders import photo
from tests.support.commands import run_command
from tests.support.live import Servers, environment_of
from tests.support.waiting import PATIENCE, until

MANY = 200
LOCAL = "/data/local-files/?d=many/"


@pytest.fixture(scope="module")
def many(servers: Servers) -> list[str]:
    """Two hundred photos that differ, as Label Studio serves them."""
    folder = servers.files / "many"
    folder.mkdir(exist_ok=True)
    for number in range(MANY):
        photo(1000 + number, 320, 240).save(folder / f"{number:03}.jpg")
    return [f"{LOCAL}{number:03}.jpg" for number in range(MANY)]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """A Valkey of this module's own, since it is restarted."""
    with LocalValkey(tmp_path_factory.mktemp("queue"), free_port(26379)) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def bulk(
    settings: Settings, redis_server: LocalValkey, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """The servers's settings with a queue, small shards and a store of their own."""
    values: dict[str, Any] = {
        **dict(settings),
        "redis_url": redis_server.url,
        "store": str(tmp_path_factory.mktemp("store")),
        "shard_size": 32,
        "batch_size": 8,
    }
    return Settings(_env_file=None, **values)


@pytest.fixture(scope="module")
def workers(
    servers: Servers, bulk: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[LocalWorker]]:
    """Two workers, each with its supervisor."""
    folder = tmp_path_factory.mktemp("workers")
    with (
        LocalWorker(bulk, folder / "1.log") as one,
        LocalWorker(bulk, folder / "2.log") as two,
    ):
        connection = queue.connect(bulk)
        until(lambda: queue.workers(connection, queue.PREDICT) == 2)
        yield [one, two]


@pytest.fixture
def runs(bulk: Settings, workers: list[LocalWorker]) -> RunStore:
    return RunStore(queue.connect(bulk, retries=8))


@pytest.fixture(scope="module")
def made() -> list[int]:
    """The projects whose images the store may have."""
    return []


@pytest.fixture
def project(
    servers: Servers,
    studio: LabelStudioClient,
    many: list[str],
    label_config: str,
    bulk: Settings,
    made: list[int],
) -> Callable[..., int]:
    """Make a project of images, none of which is in the store."""

    def make(images: list[str] | None = None) -> int:
        # Not by deleting the folder: workers would wait for it to come back.
        for former in made:
            PredictionLog(Store(bulk.store_uri)).purge(f"{former}.")
        made.clear()
        number = int(studio.projects.create("bulk", label_config)["id"])
        made.append(number)
        studio.projects.add_local_files(number, str(servers.files / "many"))
        studio.tasks.create(
            number, [{"data": {"image": one}} for one in (many if images is None else images)]
        )
        return number

    return make


def processes_of(worker: LocalWorker) -> list[int]:
    pid = str(worker.pid)
    done = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def ended(runs: RunStore, run: Run, seconds: float = PATIENCE) -> Run:
    deadline = time.monotonic() + seconds

    def told(now: Run) -> None:
        assert time.monotonic() < deadline, now

    return wait(runs, run.id, told)


def exactly_one_each(studio: LabelStudioClient, project: int, run: Run, bad: int = 0) -> None:
    """By Label Studio's own API: each good task has one prediction of the version, and shows it."""
    tasks = {int(task["id"]) for task in studio.tasks.iterate(project)}
    found = Counter(
        int(one["task"])
        for one in studio.predictions.of_project(project)
        if one["model_version"] == run.model_version
    )
    assert set(found.values()) == {1}
    assert len(found) == len(tasks) - bad
    assert studio.projects.get(project)["model_version"] == run.model_version


def begun(runs: RunStore, run: Run, images: int = 20) -> Run:
    """The run in the middle of its shards."""

    def far_enough() -> Run | None:
        now = runs.get(run.id)
        assert now is not None
        assert now.state not in ENDED
        return now if now.embedded >= images and now.state == RunState.EMBEDDING else None

    return until(far_enough)


def test_two_workers_fill_a_project_and_the_second_time_nothing_is_encoded(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int], bulk: Settings
) -> None:
    number = project()
    run = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert (run.state, run.error) == (RunState.DONE, None)
    assert (run.listed, run.embedded, run.cached, run.imported) == (MANY, MANY, 0, MANY)
    assert (run.shards, run.failed) == (7, 0)
    exactly_one_each(studio, number, run)
    assert RunStore(runs.connection).current_config(number) == run.config

    nothing = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert (nothing.listed, nothing.imported) == (0, 0)
    again = ended(runs, enqueue.start_run(runs, number, Scope.ALL, Trigger.HTTP)[0])
    assert (again.listed, again.embedded, again.cached) == (MANY, 0, MANY)
    assert again.imported == 0
    exactly_one_each(studio, number, run)

    tasks = [int(task["id"]) for task in studio.tasks.iterate(number)]
    kept = PredictionLog(Store(bulk.store_uri)).of_tasks(
        project_key(studio.projects.get(number)), tasks
    )
    assert len(kept) == MANY
    assert not [path for path in (Path(bulk.store) / "runs").glob("*")]

    # What was forgotten is measured again, and gives the version that is there.
    PredictionLog(Store(bulk.store_uri)).purge(f"{number}.")
    after = ended(runs, enqueue.start_run(runs, number, Scope.ALL, Trigger.HTTP)[0])
    assert (after.embedded, after.imported) == (MANY, 0)
    assert after.model_version == run.model_version


def test_a_run_of_a_project_that_there_is_not_fails_while_its_asker_watches(
    bulk: Settings, runs: RunStore, tmp_path: Path
) -> None:
    done = run_command("predict", "987654", cwd=tmp_path, **environment_of(bulk))
    assert done.returncode == 1
    assert "404" in done.stderr and "Check the project's number" in done.stderr


def test_a_worker_killed_in_mid_shard_is_replaced_and_nothing_is_doubled(
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    workers: list[LocalWorker],
) -> None:
    number = project()
    run = begun(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    victim = processes_of(workers[0])[0]
    os.kill(victim, signal.SIGKILL)
    run = ended(runs, run)
    assert (run.state, run.imported) == (RunState.DONE, MANY)
    exactly_one_each(studio, number, run)
    until(lambda: processes_of(workers[0]) not in ([], [victim]))


def test_a_cancelled_run_imports_nothing_and_the_next_goes_on_from_there(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int]
) -> None:
    number = project()
    run = begun(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert enqueue.cancel(runs, run)
    until(lambda: not queue.depth(runs.connection, queue.PREDICT))
    time.sleep(2)
    assert studio.predictions.of_project(number) == []
    resumed = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert (resumed.state, resumed.imported) == (RunState.DONE, MANY)
    assert resumed.cached >= 20
    exactly_one_each(studio, number, resumed)


def test_the_same_run_asked_for_by_many_at_once_is_one(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int], many: list[str]
) -> None:
    number = project(many[:40])
    with ThreadPoolExecutor(8) as pool:
        asked = list(
            pool.map(
                lambda _: enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0].id,
                range(16),
            )
        )
    assert len(set(asked)) == 1
    run = runs.get(asked[0])
    assert run is not None
    exactly_one_each(studio, number, ended(runs, run))


def test_bad_images_are_named_and_stop_nobody(
    servers: Servers,
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    many: list[str],
) -> None:
    folder = servers.files / "many"
    (folder / "broken.jpg").write_bytes((folder / "000.jpg").read_bytes()[:500])
    Image.new("L", (1, 1)).save(folder / "huge.png")
    huge = bytearray((folder / "huge.png").read_bytes())
    huge[16:24] = (50_000).to_bytes(4, "big") * 2
    (folder / "huge.png").write_bytes(bytes(huge))
    bad = [f"{LOCAL}broken.jpg", f"{LOCAL}huge.png", f"{LOCAL}missing.jpg", "ftp://x/y.jpg"]
    number = project([*many[:20], *bad, *many[20:40]])

    run = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])

    assert (run.state, run.failed, run.imported) == (RunState.DONE, 4, 40)
    exactly_one_each(studio, number, run, bad=4)
    tasks = {int(task["id"]): task["data"]["image"] for task in studio.tasks.iterate(number)}
    failures = runs.failures(run.id)
    assert {tasks[task] for task in failures} == set(bad)
    assert all(why["message"] and why["fix"] for why in failures.values())
    # Once the file is there, only what was missing is done.
    shutil.copy(folder / "000.jpg", folder / "missing.jpg")
    later = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert (later.listed, later.imported, later.failed) == (4, 1, 3)
    (folder / "missing.jpg").unlink()


def test_a_run_survives_a_restart_of_the_queue(
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    redis_server: LocalValkey,
) -> None:
    number = project()
    run = begun(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    redis_server.stop()
    time.sleep(2)
    redis_server.start()
    redis_server.wait()
    run = ended(runs, run)
    assert (run.state, run.imported) == (RunState.DONE, MANY)
    exactly_one_each(studio, number, run)


def test_a_run_waits_for_label_studio_and_goes_on(
    servers: Servers, studio: LabelStudioClient, runs: RunStore, project: Callable[..., int]
) -> None:
    number = project()
    run = begun(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    servers.label_studio.stop()
    try:

        def waits() -> bool:
            now = runs.get(run.id)
            assert now is not None
            assert now.state not in ENDED
            return bool(now.blocked_on)

        until(waits)
    finally:
        servers.label_studio.start()
        servers.label_studio.wait()
    run = ended(runs, run, 240)
    assert (run.state, run.imported, run.failed) == (RunState.DONE, MANY, 0)
    exactly_one_each(studio, number, run)


def test_labels_changed_in_mid_run_are_told_and_the_next_run_uses_them(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int], label_config: str
) -> None:
    number = project()
    run = begun(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    changed = label_config.replace("</Choices>", '<Choice value="new"/></Choices>')
    studio.projects.update(number, label_config=changed)
    run = ended(runs, run)
    assert run.state == RunState.FAILED
    assert run.error is not None
    assert "labeling config was changed" in run.error["message"]
    assert studio.predictions.of_project(number) == []
    again = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    assert (again.state, again.embedded) == (RunState.DONE, 0)
    exactly_one_each(studio, number, again)


def test_tasks_that_come_later_are_the_only_ones_done(
    studio: LabelStudioClient, runs: RunStore, project: Callable[..., int], many: list[str]
) -> None:
    number = project(many[:10])
    first = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    studio.tasks.create(number, [{"data": {"image": one}} for one in many[10:40]])
    second = ended(runs, enqueue.start_run(runs, number, Scope.MISSING, Trigger.HTTP)[0])
    # With 40 images there are statistics, so the version changes and the first ten come along.
    assert (second.listed, second.imported) == (30, 40)
    assert first.model_version != second.model_version
    found = Counter(
        (one["task"], one["model_version"]) for one in studio.predictions.of_project(number)
    )
    assert set(found.values()) == {1}
    assert len(found) == 50
    assert studio.projects.get(number)["model_version"] == second.model_version


def test_connect_lets_the_workers_predict(
    servers: Servers,
    studio: LabelStudioClient,
    runs: RunStore,
    project: Callable[..., int],
    many: list[str],
    bulk: Settings,
    tmp_path: Path,
) -> None:
    number = project([*many[:30], f"{LOCAL}missing.jpg"])
    report = connect(bulk, studio, Runtime(bulk), number)
    assert (report.tasks, report.imported, len(report.failures)) == (31, 30, 1)
    assert studio.projects.get(number)["sampling"] == "Uncertainty sampling"
    assert [run.trigger for run in runs.of_project(number)] == ["connect"]
    run = runs.of_project(number)[0]
    exactly_one_each(studio, number, run, bad=1)


@contextmanager
def backend_of(bulk: Settings, folder: Path, **values: Any) -> Iterator[Settings]:
    port = free_port(29190)
    url = f"http://127.0.0.1:{port}"
    mine = bulk.model_copy(update={"port": port, "public_url": url, **values})
    with LocalBackend(mine, folder / "backend.log") as backend:
        backend.wait()
        yield mine


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
    with backend_of(bulk, tmp_path, predict_seconds=0.3) as mine:
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
    assert "had no time: run" in (tmp_path / "backend.log").read_text()


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
    with backend_of(bulk, tmp_path) as mine:
        connect(mine, studio, Runtime(mine), number)
        store = Store(bulk.store_uri)
        address = f"{bulk.label_studio_url}{many[0]}"
        assert store.vectors.keys_of([address])
        task = next(t["id"] for t in studio.tasks.iterate(number) if t["data"]["image"] == many[0])
        api(
            "POST",
            f"/api/dm/actions?id=delete_tasks&project={number}",
            json={"selectedItems": {"all": False, "included": [task]}},
        )
        until(lambda: not Store(bulk.store_uri).vectors.keys_of([address]), 30)
    key = project_key(studio.projects.get(number))
    assert PredictionLog(Store(bulk.store_uri)).of_tasks(key, [task]) == {}


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
