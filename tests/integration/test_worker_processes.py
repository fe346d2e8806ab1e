"""Workers and commands of the queue as people start them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from rq.serializers import JSONSerializer

from backend.demo.servers import LocalValkey
from backend.settings import Settings
from backend.storage.installations import open_store
from jobs import enqueue, queue
from jobs.run import RunState, Scope, Trigger
from jobs.run_files import UNKNOWN_SECONDS, RunFiles
from jobs.run_store import RunStore
from jobs.worker import ClipWorker
from tests.support.builders import task
from tests.support.commands import run_command
from tests.support.processes import free_port, run_cli, start_cli
from tests.support.waiting import PATIENCE, until

# Processes


def start_worker(settings: Settings, log: Path, *arguments: str, **variables: str) -> Any:
    given = {
        "LS_CLIP_ENCODER": "offline",
        "LS_CLIP_STORE": settings.store,
        "LS_CLIP_REDIS_URL": settings.redis_url.get_secret_value(),
        **variables,
    }
    return start_cli("worker", *arguments, cwd=log.parent, log=log, variables=given)


def child_of(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def test_a_process_that_dies_or_has_done_its_share_is_replaced_and_sigterm_ends_it_well(
    queue_settings: Settings, connection: Redis, tmp_path: Path
):
    port = free_port()
    worker = start_worker(
        queue_settings,
        tmp_path / "log",
        "--queues",
        "train",
        LS_CLIP_WORKER_JOBS="1",
        LS_CLIP_WORKER_METRICS_PORT=str(port),
    )
    try:
        first = until(lambda: queue.workers(connection, queue.TRAIN) and child_of(worker.pid))
        assert "ls_clip_shard_seconds" in requests.get(f"http://127.0.0.1:{port}", timeout=60).text
        os.kill(first[0], signal.SIGKILL)
        second = until(lambda: [pid for pid in child_of(worker.pid) if pid != first[0]])
        queue.enqueue(connection, queue.TRAIN, enqueue.PLAN, "gone", job_id="p")
        until(lambda: connection.hget("rq:job:p", "status") == b"finished")
        third = until(lambda: [p for p in child_of(worker.pid) if p not in (first[0], second[0])])
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
        assert not Path(f"/proc/{third[0]}").exists()
        assert "died" in (tmp_path / "log").read_text()
    finally:
        worker.kill()


def test_a_worker_without_a_redis_says_so_and_ends(tmp_path: Path):
    url = f"redis://127.0.0.1:{free_port()}/0"
    done = run_cli("worker", cwd=tmp_path, LS_CLIP_REDIS_URL=url)
    assert done.returncode == 1
    assert "LS_CLIP_REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_whose_encoder_cannot_be_had_says_so_and_ends(valkey: LocalValkey, tmp_path: Path):
    done = run_cli(
        "worker",
        cwd=tmp_path,
        LS_CLIP_REDIS_URL=valkey.url,
        LS_CLIP_ENCODER="local-dir:/no/such/folder",
    )
    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worker", "--queues", "predict,nothing"), "no queue 'nothing'"),
        (("predict", "1", "--only", "some"), "--only some"),
        (("predict", "1"), "No queue is set"),
        (("runs", "1"), "No queue is set"),
    ],
)
def test_a_command_that_cannot_work_says_why(arguments: tuple[str, ...], said: str, tmp_path: Path):
    done = run_command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Fix:" in done.stderr


def test_asking_and_looking_from_the_command_line(
    queue_settings: Settings, connection: Redis, tmp_path: Path
):
    url = queue_settings.redis_url.get_secret_value()
    first = run_command("predict", "3", "--json", cwd=tmp_path, LS_CLIP_REDIS_URL=url)
    again = run_command("predict", "3", cwd=tmp_path, LS_CLIP_REDIS_URL=url)
    run = RunStore(connection).of_project(3)[0]
    assert run.id in first.stdout
    assert "joins" in again.stderr and run.id in again.stderr
    assert "No worker listens" in again.stderr
    shown = run_command(
        "runs", "3", "--cancel", run.id, "--json", cwd=tmp_path, LS_CLIP_REDIS_URL=url
    )
    assert '"cancelled"' in shown.stdout
    nothing = run_command("runs", "3", "--show", "", cwd=tmp_path, LS_CLIP_REDIS_URL=url)
    assert (nothing.returncode, "has no run ''" in nothing.stderr) == (1, True)


def test_forget_erases_what_ended_runs_left_and_nothing_of_those_that_go_on(
    queue_settings: Settings, connection: Redis, tmp_path: Path
):
    runs = RunStore(connection)
    run, _ = runs.start(3, Scope.MISSING, Trigger.CLI)
    ended, _ = runs.start(4, Scope.MISSING, Trigger.CLI)
    runs.end(ended.id, RunState.DONE)
    store = open_store(queue_settings)
    # Of a run that only another Redis knows, which works with the same store.
    for name in (run.id, ended.id, "unknown", "old"):
        RunFiles(store.artifacts, name).write_tasks(0, [task(1)])
    long_ago = time.time() - UNKNOWN_SECONDS - 60
    os.utime(Path(store.uri) / "runs" / "old" / "0.json", (long_ago, long_ago))
    url = queue_settings.redis_url.get_secret_value()
    variables = {"LS_CLIP_REDIS_URL": url, "LS_CLIP_STORE": queue_settings.store}
    done = run_command("forget", "3", "--yes", cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    left = {path.name for path in (Path(store.uri) / "runs").iterdir()}
    assert left == {run.id, "unknown"}


def test_a_token_that_no_header_can_carry_is_told(tmp_path: Path):
    done = run_command("prune", "1", cwd=tmp_path, LABEL_STUDIO_API_KEY="tökén")
    assert done.returncode == 1
    assert "token has characters" in done.stderr and "Traceback" not in done.stderr


def test_a_worker_is_known_again_to_a_redis_that_was_emptied(connection: Redis):
    worker = ClipWorker(
        [queue.queue(connection, queue.PREDICT)],
        connection=connection,
        serializer=JSONSerializer,
    )
    worker.register_birth()
    assert queue.workers(connection, queue.PREDICT) == 1
    connection.flushall()
    assert queue.workers(connection, queue.PREDICT) == 0
    worker.heartbeat()
    assert queue.workers(connection, queue.PREDICT) == 1
