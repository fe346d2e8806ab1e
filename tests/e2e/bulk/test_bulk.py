"""Whole projects through workers, on a real Label Studio and a real Valkey, while things break."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from backend.demo.servers import LocalValkey, LocalWorker
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.prediction_log import PredictionLog
from jobs import enqueue, queue
from jobs.run import ENDED, RunState, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.bulk import LOCAL, MANY, begun, ended, exactly_one_each, processes_of
from tests.support.commands import run_command
from tests.support.live import Servers, environment_of
from tests.support.waiting import until


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
    kept = PredictionLog(open_store(bulk)).of_tasks(project_key(studio.projects.get(number)), tasks)
    assert len(kept) == MANY
    assert not [path for path in (Path(bulk.store) / "runs").glob("*")]

    # What was forgotten is measured again, and gives the version that is there.
    PredictionLog(open_store(bulk)).purge(f"{number}.")
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
    assert studio.projects.get(number)["sampling"] == "Uniform sampling"
    assert [run.trigger for run in runs.of_project(number)] == ["connect"]
    run = runs.of_project(number)[0]
    exactly_one_each(studio, number, run, bad=1)
