"""A worker in this process, with a stub Label Studio and a real Valkey."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest
from rq.serializers import JSONSerializer
from tenacity import wait_none

from backend.runtime import Runtime
from backend.settings import Settings
from jobs import enqueue, queue, shutdown
from jobs.run_store import RunStore
from jobs.worker import ClipWorker
from tests.support.fixtures import MakeRuntime
from tests.support.predict_job import (
    SHARD,
)
from tests.support.stub_label_studio import StubStudio


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime,
    queue_settings: Settings,
    studio: StubStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> Runtime:
    runtime = make_runtime(
        redis_url=queue_settings.redis_url.get_secret_value(),
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        allowed_hosts="127.0.0.1",
        batch_size=8,
        shard_size=SHARD,
    )
    monkeypatch.setattr("jobs.predict_job.process_runtime", lambda: runtime)
    monkeypatch.setattr(shutdown, "_stop", threading.Event())
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())
    return runtime


@pytest.fixture
def runs(runtime: Runtime) -> RunStore:
    return RunStore(queue.connect(runtime.settings))


@pytest.fixture
def work(runtime: Runtime) -> Callable[[], None]:
    """Do all that waits, in this process."""

    def once() -> None:
        connection = queue.connect(runtime.settings)
        names = [queue.queue(connection, queue.PREDICT)]
        worker = ClipWorker(names, connection=connection, serializer=JSONSerializer)
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        worker.work(burst=True, logging_level="WARNING")
        for number, handler in before.items():
            signal.signal(number, handler)

    return once


@pytest.fixture
def again(runs: RunStore, work: Callable[[], None]) -> Callable[[str], None]:
    """Do a job once more, as `jobs.tend` would."""

    def once(job: str) -> None:
        queue.remove(runs.connection, queue.PREDICT, job)
        run_id = job.partition("-")[0]
        if job == enqueue.plan_id(run_id):
            enqueue.enqueue_plan(runs, run_id)
        else:
            enqueue.enqueue_finish_if_complete(runs, run_id)
        work()

    return once
