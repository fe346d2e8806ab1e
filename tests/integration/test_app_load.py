"""The server while many ask at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.inference.prediction import Prediction
from backend.inference.predictor import Predictor
from backend.server.app import create_app
from backend.server.state import SPARE_THREADS
from tests.support.builders import data_uri, predict_body, task
from tests.support.fixtures import MakeRuntime
from tests.support.processes import served
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import PATIENCE

# Many at once


def test_more_predictions_than_threads_are_answered_as_busy(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    inside, release = threading.Semaphore(0), threading.Event()
    runtime = make_runtime(StubEncoder(), threads=SPARE_THREADS + 4)
    predict = Predictor.predict

    def wait_and_predict(*arguments: Any) -> list[Prediction]:
        inside.release()
        release.wait(PATIENCE)
        return predict(*arguments)

    monkeypatch.setattr(Predictor, "predict", wait_and_predict)
    app = create_app(runtime)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(app.test_client().post, "/predict", json=predict_body(task(number)))
            for number in range(4)
        ]
        try:
            for _ in jobs:
                assert inside.acquire(timeout=PATIENCE)
            fifth = app.test_client().post("/predict", json=predict_body(task(8), task(9)))
            health = app.test_client().get("/health")
        finally:
            release.set()
        answers = [job.result().json["results"] for job in jobs]
    assert health.status_code == 200
    refused = [item["error"]["message"] for item in fifth.json["results"]]
    assert ["Too many predictions" in message for message in refused] == [True, True]
    assert all(len(results) == 1 and "result" in results[0] for results in answers)


@pytest.fixture
def slow_host() -> Iterator[tuple[str, threading.Event]]:
    """A host that accepts and says nothing until its event is set; then it hangs up."""
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            release.wait(PATIENCE)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", release
    release.set()
    server.shutdown()
    server.server_close()


def test_health_answers_while_fifty_predictions_wait(
    tmp_path: Path, slow_host: tuple[str, threading.Event]
):
    host, release = slow_host
    variables = {
        "LS_CLIP_ALLOWED_HOSTS": "127.0.0.1",
        "LS_CLIP_PREDICT_SECONDS": "90",
        "LS_CLIP_FETCH_TIMEOUT": "90",
    }
    with served(tmp_path, **variables) as (url, _), ThreadPoolExecutor(50) as pool:
        bodies = [
            predict_body(*({"id": n, "data": {"image": f"{host}/{n}/{k}.jpg"}} for k in "ab"))
            for n in range(50)
        ]
        jobs = [
            pool.submit(requests.post, f"{url}/predict", json=b, timeout=PATIENCE) for b in bodies
        ]
        for _ in range(5):
            assert requests.get(f"{url}/health", timeout=60).status_code == 200
            assert not all(job.done() for job in jobs)
            time.sleep(0.2)
        release.set()
        answers = [job.result() for job in jobs]
    assert {answer.status_code for answer in answers} == {200}
    assert {len(answer.json()["results"]) for answer in answers} == {2}


def test_a_real_server_answers_a_prediction(make_runtime: MakeRuntime):
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, create_app(make_runtime()), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        image = {"id": 1, "data": {"image": data_uri(1)}}
        answer = requests.post(f"{url}/predict", json=predict_body(image), timeout=PATIENCE)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "result" in answer.json()["results"][0]
