"""What a worker runs, refuses, and leaves behind when it is killed or told to stop."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from backend.runtime import Runtime
from backend.settings import Settings
from jobs import enqueue, queue, shutdown
from jobs.reconciler import reconcile
from jobs.run import Run, RunState, Scope, Shard, Trigger
from jobs.run_files import RunFiles
from jobs.run_store import RunStore
from jobs.worker import ClipWorker
from tests.support.builders import choices_config, data_uri, photo
from tests.support.costly_images import endless
from tests.support.decoding import decoding
from tests.support.fixtures import MakeRuntime
from tests.support.hosted import serving
from tests.support.http_server import Server, answer
from tests.support.queues import DEFAULTS
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import until

# In this process, with a stub encoder


@pytest.fixture
def host() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime, queue_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Runtime:
    runtime = make_runtime(
        redis_url=queue_settings.redis_url.get_secret_value(),
        batch_size=4,
        allowed_hosts="127.0.0.1",
        decode_seconds=1000.0,
    )
    monkeypatch.setattr("jobs.predict_job.process_runtime", lambda: runtime)
    return runtime


@pytest.fixture
def work(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Do all that waits, in this process."""
    monkeypatch.setattr(shutdown, "_stop", threading.Event())

    def once() -> None:
        connection = queue.connect(runtime.settings)
        worker = ClipWorker(
            [queue.queue(connection, queue.PREDICT)],
            connection=connection,
            serializer=JSONSerializer,
        )
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        worker.work(burst=True, logging_level="WARNING")
        for number, handler in before.items():
            signal.signal(number, handler)

    return once


def shard_of(runtime: Runtime, runs: RunStore, images: list[str], number: int = 0) -> Run:
    """A run with one shard in the queue."""
    run, _ = runs.start(1, Scope.MISSING, Trigger.CLI)
    tasks = [
        {"id": index, "data": {"image": image}, "images": [image]}
        for index, image in enumerate(images, 1)
    ]
    files = RunFiles(runtime.store.artifacts, run.id)
    files.write_config(choices_config())
    files.write_tasks(number, tasks)
    runs.add_shard(run.id, Shard(number=number, tasks=len(tasks)))
    # A second shard that nobody works on keeps the run from its import.
    runs.add_shard(run.id, Shard(number=99, tasks=1))
    runs.move(run.id, RunState.EMBEDDING, listed=len(tasks), key="1.5", encoder=runtime.encoder.id)
    enqueue.enqueue_shard(runs, run.id, number)
    return run


@pytest.fixture
def runs(runtime: Runtime) -> RunStore:
    return RunStore(queue.connect(runtime.settings))


def stored(runtime: Runtime, images: list[str]) -> set[str]:
    found, _ = runtime.embedder.stored(images)
    return set(found)


def test_a_shard_is_embedded_and_its_bad_images_are_named(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    good, bad = [data_uri(seed) for seed in range(10)], "data:image/png;base64,AAAA"
    run = shard_of(runtime, runs, [*good, bad])
    work()
    shard = runs.shards(run.id)[0]
    assert (shard.embedded, shard.cached, shard.failed, shard.done) == (10, 0, 1, True)
    assert stored(runtime, good) == set(good)
    assert list(runs.failures(run.id)) == [11]
    assert runs.failures(run.id)[11]["fix"]


def test_a_shard_that_comes_again_encodes_nothing(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    images = [data_uri(seed) for seed in range(6)]
    shard_of(runtime, runs, images)
    work()
    encoded = runtime.encoder.images  # type: ignore[attr-defined]
    runs.end(runs.active()[0].id, RunState.CANCELLED)
    run = shard_of(runtime, runs, images)
    work()
    shard = runs.shards(run.id)[0]
    assert (shard.embedded, shard.cached) == (0, 6)
    assert runtime.encoder.images == encoded  # type: ignore[attr-defined]


def test_one_image_that_cannot_be_encoded_costs_only_itself(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    images = [data_uri(seed) for seed in range(8)]
    sick = photo(5).tobytes()
    encode = runtime.encoder.encode_prepared

    def fail(prepared: Any) -> Any:
        if any(one.tobytes() == sick for one in prepared):
            raise RuntimeError("device-side assert")
        return encode(prepared)

    runtime.encoder.encode_prepared = fail  # type: ignore[method-assign]
    run = shard_of(runtime, runs, images)
    work()
    assert list(runs.failures(run.id)) == [6]
    assert len(stored(runtime, images)) == 7


def test_a_cancelled_run_stops_at_the_next_batch(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    run = shard_of(runtime, runs, [data_uri(seed) for seed in range(40)])
    encoder = runtime.encoder
    assert isinstance(encoder, StubEncoder)
    encoder.before = lambda: runs.end(run.id, RunState.CANCELLED)
    work()
    assert encoder.images <= 8
    assert queue.depth(runs.connection, queue.PREDICT) == 0


def test_told_to_stop_a_worker_puts_its_shard_back_and_keeps_what_it_has(
    runtime: Runtime, runs: RunStore, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    images = [data_uri(seed) for seed in range(40)]
    run = shard_of(runtime, runs, images)
    encoder = runtime.encoder
    assert isinstance(encoder, StubEncoder)
    encoder.before = lambda: os.kill(os.getpid(), signal.SIGTERM) if encoder.images == 8 else None
    work()
    assert queue.queue(runs.connection, queue.PREDICT).get_job_ids() == [
        enqueue.shard_id(run.id, 0)
    ]
    assert 8 <= len(stored(runtime, images)) <= 16
    monkeypatch.setattr(shutdown, "_stop", threading.Event())
    encoder.before = lambda: None
    work()
    shard = runs.shards(run.id)[0]
    assert (shard.done, shard.embedded, encoder.images) == (True, 40, 40)


def test_told_to_stop_a_worker_waits_for_no_costly_image(
    runtime: Runtime, runs: RunStore, work: Callable[[], None], host: Server
):
    host.routes["/endless.png"] = answer(endless())
    photos = [data_uri(seed) for seed in range(10)]
    run = shard_of(runtime, runs, [f"{host.url}/endless.png", *photos])

    def stop() -> None:
        until(lambda: decoding(psutil.Process()) and len(stored(runtime, photos)) == 10)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=stop)
    killer.start()
    work()
    killer.join()
    assert queue.queue(runs.connection, queue.PREDICT).get_job_ids() == [
        enqueue.shard_id(run.id, 0)
    ]
    assert runs.failures(run.id) == {}


def test_an_image_that_kills_its_worker_is_found_and_left_out(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    images = [data_uri(seed) for seed in range(4)]
    run = shard_of(runtime, runs, images)
    for _ in range(3):
        runs.count_attempt(run.id, enqueue.shard_id(run.id, 0))
    # What a process leaves behind that dies while it touches the third image.
    runs.hold(run.id, 0, runtime.embedder.address(images[2]))
    work()
    assert list(runs.failures(run.id)) == [3]
    assert runs.failures(run.id)[3]["code"] == "worker_died"
    assert "died" in runs.failures(run.id)[3]["message"]
    assert len(stored(runtime, images)) == 3


def test_a_store_that_fails_leaves_the_shard_undone_and_says_so(
    runtime: Runtime, runs: RunStore, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    from backend.errors import StoreError

    def full(*_: Any) -> None:
        raise StoreError("No space left on device.", "Free some space.")

    monkeypatch.setattr(runtime.store.vectors, "add", full)
    run = shard_of(runtime, runs, [data_uri(1)])
    work()
    now = runs.get(run.id)
    assert now is not None
    assert (now.state, now.shards_done) == (RunState.EMBEDDING, 0)
    assert "No space left" in now.blocked_on


def test_a_worker_with_another_encoder_fails_the_run_and_says_why(
    runtime: Runtime, runs: RunStore, work: Callable[[], None]
):
    run = shard_of(runtime, runs, [data_uri(1)])
    runs.note(run.id, encoder="another")
    work()
    now = runs.get(run.id)
    assert now is not None
    assert (now.state, now.shards_done) == ("failed", 0)
    assert now.error is not None
    assert "LS_CLIP_ENCODER" in now.error["fix"]


def test_a_run_of_before_regions_were_shortened_has_to_be_asked_for_again(
    runtime: Runtime, runs: RunStore, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    assert isinstance(runtime.encoder, StubEncoder)
    runtime.encoder.id = "openclip-x-tiles-int8-float32"
    run = shard_of(runtime, runs, [data_uri(1)])
    runs.note(run.id, encoder="openclip-x-tiles-float32")
    work()
    now = runs.get(run.id)
    assert now is not None and now.error is not None
    assert now.state == "failed" and now.error["fix"] == "Ask for it again: ls-clip predict 1."


def test_a_pickle_in_the_queue_is_refused(
    runtime: Runtime, connection: Redis, work: Callable[[], None], tmp_path: Path
):
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    queue.enqueue(connection, queue.PREDICT, "jobs.x", job_id="a")
    connection.hset(
        "rq:job:a", "data", zlib.compress(pickle.dumps(("os.getpid", None, Bomb(), {})))
    )
    work()
    assert not (tmp_path / "exploded").exists()
    assert connection.hget("rq:job:a", "status") == b"failed"


@pytest.mark.parametrize(
    "function", ["os.getpid", "subprocess.getoutput", "builtins.exec", "jobs.run_store.RunStore"]
)
def test_a_function_that_is_not_ours_is_refused(
    runtime: Runtime, connection: Redis, work: Callable[[], None], function: str, tmp_path: Path
):
    queue.enqueue(connection, queue.PREDICT, function, f"touch {tmp_path}/x", job_id="a")
    work()
    job = Job.fetch("a", connection=connection, serializer=JSONSerializer)
    assert job.get_status() == "failed"
    assert "no job of label-studio-clip" in str(job.latest_result().exc_string)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("function", [enqueue.SWEEP, "os.getpid"])
def test_nothing_that_a_job_wants_called_back_is_called(
    runtime: Runtime,
    connection: Redis,
    work: Callable[[], None],
    tmp_path: Path,
    function: str,
    host: Server,
):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        queue.enqueue(connection, queue.PREDICT, function, job_id="a")
        hooks = [
            {"url": f"{host.url}/{status}", "job_status": status, "method": "GET", "timeout": 5}
            for status in ("finished", "failed")
        ]
        wanted = {f"{name}_callback_name": "evil.run" for name in ("success", "failure", "stopped")}
        wanted["webhooks"] = json.dumps(hooks)
        connection.hset("rq:job:a", mapping=wanted)
        work()
        # A job whose worker died: the supervisor calls it failed.
        queue.enqueue(connection, queue.PREDICT, function, job_id="b")
        jobs = queue.queue(connection, queue.PREDICT)
        connection.lpop(jobs.key)
        connection.hset("rq:job:b", mapping={**wanted, "status": "started"})
        connection.zadd(jobs.started_job_registry.key, {"b:1": 1})
        reconcile(connection, DEFAULTS)
    finally:
        sys.path.remove(str(tmp_path))
    assert connection.hget("rq:job:b", "status") == b"failed"
    assert not (tmp_path / "called").exists()
    assert host.requests == []


def test_a_job_that_is_removed_is_not_called_failed_later_because_its_worker_died(
    connection: Redis,
):
    queue.enqueue(connection, queue.PREDICT, enqueue.SWEEP, job_id="a")
    jobs = queue.queue(connection, queue.PREDICT)
    # A worker of one queue takes it, and dies before it begins.
    connection.lmove(jobs.key, jobs.intermediate_queue.key, "LEFT", "RIGHT")
    jobs.intermediate_queue.set_first_seen("a")
    assert queue.statuses(connection, queue.PREDICT, ["a"]) == {}
    queue.remove(connection, queue.PREDICT, "a")
    queue.enqueue(connection, queue.PREDICT, enqueue.SWEEP, job_id="a")
    assert jobs.intermediate_queue.get_first_seen("a") is None
    jobs.intermediate_queue.set_first_seen("a")
    worker = ClipWorker([jobs], connection=connection, serializer=JSONSerializer)
    with mock.patch(
        "rq.intermediate_queue.IntermediateQueue.should_be_cleaned_up", lambda *_: True
    ):
        jobs.intermediate_queue.cleanup(worker, jobs)
    assert queue.statuses(connection, queue.PREDICT, ["a"]) == {"a": JobStatus.QUEUED}


def test_a_job_for_a_run_that_is_gone_does_nothing(
    runtime: Runtime, connection: Redis, work: Callable[[], None]
):
    for name, function in (("p", enqueue.PLAN), ("f", enqueue.FINISH)):
        queue.enqueue(connection, queue.PREDICT, function, "gone", job_id=name)
    queue.enqueue(connection, queue.PREDICT, enqueue.EMBED, "gone", 0, job_id="e")
    work()
    assert {connection.hget(f"rq:job:{name}", "status") for name in "pfe"} == {b"finished"}
