"""Revalidation by workers: asked for on the command line or by HTTP, and counted in the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.projects.connect import run_by_workers
from backend.runtime import Runtime
from backend.server.app import create_app
from jobs import enqueue, queue
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.builders import photo, png_bytes
from tests.support.commands import Done, run_command
from tests.support.hosted import Hosted, serving
from tests.support.predict_job import now
from tests.support.stub_label_studio import PROJECT, StubStudio

COUNT = 40
Ask = Callable[..., Done]


@pytest.fixture
def files(studio: StubStudio) -> Iterator[list[Hosted]]:
    with serving() as server:
        files = [Hosted(png_bytes(photo(n)), f'"{n}"') for n in range(COUNT)]
        for number, file in enumerate(files):
            server.routes[f"/{number}.png"] = file
            studio.tasks[number + 1] = {"image": f"{server.url}/{number}.png"}
        yield files


@pytest.fixture
def cli(runtime: Runtime, tmp_path: Path) -> Ask:
    settings = runtime.settings

    def ask(*arguments: str) -> Done:
        return run_command(
            *arguments,
            cwd=tmp_path,
            LABEL_STUDIO_URL=settings.label_studio_url,
            LABEL_STUDIO_API_KEY="f" * 40,
            LS_CLIP_STORE=settings.store,
            LS_CLIP_INSTALLATION=settings.installation,
            LS_CLIP_REDIS_URL=settings.redis_url.get_secret_value(),
        )

    return ask


def asked(runs: RunStore, revalidate: bool = True) -> Run:
    run, is_new = enqueue.start_run(runs, PROJECT, Scope.ALL, Trigger.CLI, revalidate=revalidate)
    assert is_new
    return run


def test_workers_revalidate_shard_by_shard_and_the_record_counts_it(
    studio: StubStudio,
    files: list[Hosted],
    runs: RunStore,
    work: Callable[[], None],
    cli: Ask,
) -> None:
    asked(runs, revalidate=False)
    work()
    before = {one["task"]: (one["score"], one["result"]) for one in studio.predictions}
    for number in (3, 30):
        files[number].body, files[number].etag = png_bytes(photo(100 + number)), '"new"'
    assert cli("predict", "1", "--only", "all", "--revalidate").returncode == 0
    (run,) = runs.active()
    assert run.revalidate
    work()
    run = now(runs, run)
    assert run.state == RunState.DONE
    assert (run.revalidated, run.changed, run.rewritten, run.imported) == (COUNT, 2, 2, 0)
    after = {one["task"]: (one["score"], one["result"]) for one in studio.predictions}
    assert [task for task in after if after[task] != before[task]] == [4, 31]
    told = json.loads(cli("runs", "1", "--json").stdout)
    assert [(one["revalidated"], one["changed"]) for one in told] == [(COUNT, 2), (0, 0)]
    table = cli("runs", "1").stdout
    assert "revalidated" in table and "changed" in table


def test_a_shard_that_is_repeated_counts_nothing_twice(
    studio: StubStudio,
    files: list[Hosted],
    runs: RunStore,
    work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked(runs, revalidate=False)
    work()
    files[3].body, files[3].etag = png_bytes(photo(103)), '"new"'
    run = asked(runs)
    progress = RunStore.progress
    broken: list[int] = []

    def break_once(self: RunStore, run_id: str, shard: Any) -> RunState:
        if shard.done and shard.number == 0 and not broken:
            broken.append(shard.number)
            raise ConnectionError
        return progress(self, run_id, shard)

    monkeypatch.setattr(RunStore, "progress", break_once)
    work()
    queue.remove(runs.connection, queue.PREDICT, enqueue.shard_id(run.id, 0))
    enqueue.enqueue_shard(runs, run.id, 0)
    work()
    ended = now(runs, run)
    assert ended.state == RunState.DONE and broken == [0]
    assert (ended.revalidated, ended.changed, ended.rewritten) == (COUNT, 1, 1)


def test_a_run_that_does_not_revalidate_is_not_joined_by_a_call_that_wants_it(
    studio: StubStudio, runs: RunStore, runtime: Runtime, cli: Ask
) -> None:
    run = asked(runs, revalidate=False)
    done = cli("predict", "1", "--only", "all", "--revalidate")
    assert done.returncode == 1
    assert run.id in done.stderr and "ls-clip runs 1" in done.stderr
    client = create_app(runtime).test_client()
    answer = client.post("/projects/1/predict", json={"only": "all", "revalidate": True})
    assert answer.status_code == 409 and answer.json is not None
    assert answer.json["error"]["code"] == "run_in_progress"


@pytest.mark.parametrize(
    "body", [{"revalidate": True}, {"only": "all", "revalidate": "yes"}, {"revalidate": 1}]
)
def test_what_cannot_be_revalidated_is_refused_by_http(
    runs: RunStore, runtime: Runtime, body: dict[str, Any]
) -> None:
    answer = create_app(runtime).test_client().post("/projects/1/predict", json=body)
    assert answer.status_code == 422
    assert runs.active() == []


def test_a_run_that_is_asked_for_by_http_revalidates(runs: RunStore, runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    answer = client.post("/projects/1/predict", json={"only": "all", "revalidate": True})
    assert answer.status_code == 202 and answer.json is not None
    assert answer.json["revalidate"] is True
    assert [run.revalidate for run in runs.active()] == [True]


def test_only_all_tasks_are_revalidated_from_the_command_line(runs: RunStore, cli: Ask) -> None:
    done = cli("predict", "1", "--revalidate")
    assert done.returncode != 0 and "--only all" in done.stderr
    assert runs.active() == []


def test_connect_waits_for_another_run_and_then_revalidates(
    studio: StubStudio,
    files: list[Hosted],
    runs: RunStore,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[], None],
) -> None:
    asked(runs, revalidate=False)

    def wait(runs: RunStore, run_id: str, report: Any) -> Run:
        work()
        run = runs.get(run_id)
        assert run is not None
        return run

    monkeypatch.setattr("backend.projects.connect.wait", wait)
    run, failures = run_by_workers(runtime.settings, PROJECT, lambda run: None, revalidate=True)
    assert (run.scope, run.revalidated, failures) == (Scope.ALL, COUNT, {})
