"""Costly images keep no others waiting, and stopping waits for none of them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pytest
import requests

from backend.images.validators import UNKNOWN, FetchedFile, Validators
from backend.inference import preparer as module
from backend.inference.embedder import Embedder
from backend.inference.preparer import Preparer
from backend.storage.store import Store
from tests.support import costly_images as costly
from tests.support.builders import make_settings, photo, png_bytes, predict_body, task
from tests.support.decoding import decoding
from tests.support.http_server import Server, answer
from tests.support.processes import served
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import PATIENCE, until

ENDLESS = costly.endless()


class Files:
    """A source: files by name."""

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        return FetchedFile(self.files[value.rpartition("/")[2].partition("-")[0]], UNKNOWN)


FILES = Files(photo=png_bytes(photo(1)), tiled=costly.tiff_of_tiles(64), endless=ENDLESS)


@pytest.fixture
def preparer(tmp_path: Path) -> Iterator[Preparer]:
    """One that never ends an image by itself."""
    settings = make_settings(tmp_path, decode_seconds=1000.0, fetch_workers=2)
    made = Preparer(settings, StubEncoder(), FILES)
    yield made
    made.close()


@pytest.fixture
def embedder(tmp_path: Path) -> Iterator[Embedder]:
    """As above; fetch workers as by default."""
    settings = make_settings(tmp_path / "store", decode_seconds=1000.0)
    made = Embedder(settings, StubEncoder(), Store(settings.store_uri), FILES)
    yield made
    made.close()


ENDLESS_ONES = [f"http://host/endless-{number}" for number in range(20)]
PHOTOS = [f"http://host/photo-{number}" for number in range(10)]


def test_costly_images_take_no_thread_that_fetches(preparer: Preparer):
    costly_jobs = [preparer.submit(value, value) for value in ENDLESS_ONES]
    photos = [preparer.submit(value, value) for value in PHOTOS]
    assert not wait(photos, PATIENCE).not_done
    until(lambda: preparer.costly_of(costly_jobs) == len(costly_jobs))
    assert not any(job.done() for job in costly_jobs)
    assert preparer.costly_of(photos) == 0


def test_a_job_that_is_cancelled_while_it_waits_is_not_decoded(preparer: Preparer):
    waiting = [preparer.submit(value, value) for value in [*ENDLESS_ONES, "tiled-1"]]
    until(lambda: preparer.costly_of(waiting) == len(waiting))
    assert all(job.cancel() for job in waiting)
    preparer.close()
    until(lambda: preparer.costly_of(waiting) == 0)
    assert all(job.cancelled() for job in waiting)


def test_files_that_wait_are_kept_as_long_as_there_is_room(
    preparer: Preparer, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise they are fetched again when it is their turn."""
    asked: list[str] = []
    original = FILES.fetch_file

    def fetch_file(value: str, known: Validators) -> FetchedFile:
        asked.append(value)
        return original(value, known)

    monkeypatch.setattr(preparer._fetcher, "fetch_file", fetch_file)
    monkeypatch.setattr(module, "_MOST_WAITING", 1)
    monkeypatch.setattr(preparer, "_decoding", ThreadPoolExecutor(1))
    blocker = threading.Event()
    preparer._decoding.submit(blocker.wait)
    jobs = []
    for number in range(3):
        jobs.append(preparer.submit(f"http://host/tiled-{number}", ""))
        until(lambda: preparer.costly_of(jobs) == len(jobs))
    assert not preparer.has_room and len(asked) == 3
    blocker.set()
    assert [job.result(PATIENCE).pixels.size for job in jobs] == [(64, 64)] * 3
    assert sorted(asked[3:]) == asked[1:3]
    assert preparer.has_room


def test_the_log_names_an_image_before_it_is_decoded_elsewhere(
    preparer: Preparer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "backend")
    job = preparer.submit("http://host/tiled-1", "")
    assert job.result(PATIENCE).pixels.size == (64, 64)
    assert "image http://host/tiled-1" in caplog.text and "decoder process" in caplog.text


def test_an_embedding_does_not_depend_on_where_its_image_was_decoded(tmp_path: Path):
    files = Files(photo=png_bytes(photo(1, 1400, 1000)))
    rows = []
    for name, memory in (("here", 2_400_000_000), ("elsewhere", 64_000_000)):
        settings = make_settings(tmp_path / name, decode_memory=memory)
        embedder = Embedder(settings, StubEncoder(), Store(settings.store_uri), files)
        # The smaller budget leaves the calling thread no memory for it.
        decoder = embedder._preparer._decoder
        assert decoder.is_ordinary(files.files["photo"]) == (name == "here")
        found, failures = embedder.embed(PHOTOS[:1])
        assert not failures
        rows.append(found[PHOTOS[0]])
        embedder.close()
    assert rows[0].image.tobytes() == rows[1].image.tobytes()
    assert rows[0].regions is not None and rows[1].regions is not None
    assert rows[0].regions.tobytes() == rows[1].regions.tobytes()


class EnoughError(Exception):
    """Ends `Embedder.fill`."""


def test_photos_are_encoded_while_costly_images_are_not_ready(embedder: Embedder):
    def step(cached: int, done: int, failed: int) -> None:
        if done == len(PHOTOS):
            raise EnoughError

    with pytest.raises(EnoughError):
        embedder.fill([*ENDLESS_ONES[:3], *PHOTOS], step)
    # A live call, with more costly images than may be in flight.
    later = [f"{value}-2" for value in PHOTOS]
    found, failures = embedder.embed([*ENDLESS_ONES, *later], 8.0)
    assert set(found) == set(later) and set(failures) == set(ENDLESS_ONES)


def test_a_run_that_is_stopped_waits_for_no_costly_image(embedder: Embedder):
    stop = threading.Event()

    def step(cached: int, done: int, failed: int) -> None:
        if stop.is_set():
            raise EnoughError
        # Asked to stop while nothing but the costly image is left.
        if embedder._preparer._costly:
            stop.set()

    with pytest.raises(EnoughError):
        embedder.fill(ENDLESS_ONES[:1], step)


def test_a_server_that_is_stopped_answers_without_waiting_for_a_costly_image(tmp_path: Path):
    files = Server()
    files.routes["/endless.png"] = answer(ENDLESS)
    settings = {
        "LS_CLIP_ALLOWED_HOSTS": files.host,
        "LS_CLIP_DECODE_SECONDS": "1000",
        "LS_CLIP_PREDICT_SECONDS": "95",
    }
    answers: list[requests.Response] = []
    with served(tmp_path, **settings) as (url, _):
        # The model is loaded by then.
        requests.post(f"{url}/predict", json=predict_body(task(1)), timeout=200)
        body = predict_body(task(1), task(2, image=f"{files.url}/endless.png"))
        call = threading.Thread(
            target=lambda: answers.append(requests.post(f"{url}/predict", json=body, timeout=200))
        )
        call.start()
        server = until(lambda: decoding(psutil.Process()))
        # gunicorn's arbiter passes it on to the process that serves.
        server.parent().send_signal(signal.SIGTERM)
        call.join()
    assert answers[0].status_code == 200
    first, second = answers[0].json()["results"]
    assert "result" in first and "result" not in second
