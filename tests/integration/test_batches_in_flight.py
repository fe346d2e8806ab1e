"""Batches on their way through the encoder: it never waits, and no image is encoded twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backend.errors import ImageReason, StoreError
from backend.images.validators import FetchedFile, Validators
from backend.inference.embedder import Embedder
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.vectors import Vectors
from tests.support.builders import photo, png_bytes
from tests.support.stub_encoder import StubEncoder
from tests.support.waiting import PATIENCE, until

SIZE = 4
VALUES = [f"http://host/{number}" for number in range(40)]


class Files:
    """An image for each number, at every host."""

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        return FetchedFile(png_bytes(photo(int(value.rpartition("/")[2]))))


def made(settings: Settings, concurrency: int) -> tuple[Embedder, StubEncoder]:
    encoder = StubEncoder(batch_size=SIZE)
    encoder.concurrency = concurrency
    return Embedder(settings, encoder, open_store(settings), Files()), encoder


class HeldDevice:
    """Computes nothing until it may go on.

    Attributes:
        inside: set once it was given a batch.
        go_on: set by the test.
    """

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.inside.set()
        assert self.go_on.wait(PATIENCE)


class SlowDevice:
    """Computes a batch only when the next one is there; remembers whether it had to wait."""

    def __init__(self, batches: int) -> None:
        self._left = batches
        self._inside = 0
        self._changed = threading.Condition()
        self.waited = 0

    def __call__(self) -> None:
        with self._changed:
            self._inside += 1
            self._left -= 1
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._inside > 1 or not self._left, PATIENCE):
                self.waited += 1
            self._inside -= 1


@pytest.mark.parametrize("concurrency", [2, 3])
def test_a_device_has_the_next_batch_before_it_is_done_with_one(
    settings: Settings, concurrency: int
):
    embedder, encoder = made(settings, concurrency)
    device = encoder.before = SlowDevice(len(VALUES) // SIZE)
    filled = embedder.fill(VALUES)
    assert (filled.embedded, filled.failures) == (len(VALUES), {})
    assert device.waited == 0
    assert encoder.images == len(VALUES)


def test_one_batch_at_a_time_is_what_a_cpu_gets(settings: Settings):
    embedder, encoder = made(settings, 1)
    inside, most = [0], [0]
    whole = encoder.encode_prepared

    def watched(images):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            return whole(images)
        finally:
            inside[0] -= 1

    encoder.encode_prepared = watched  # type: ignore[method-assign]
    embedder.fill(VALUES)
    assert most == [1]


def test_the_same_image_in_two_batches_at_once_is_encoded_once(settings: Settings):
    embedder, encoder = made(settings, 3)
    values = [f"http://{host}/{number}" for host in "abc" for number in range(SIZE)]
    barrier = threading.Event()
    encoder.before = lambda: barrier.wait(0.3)
    filled = embedder.fill(values)
    assert (filled.embedded, filled.failures) == (len(values), {})
    assert encoder.images == SIZE
    found, _ = embedder.stored(values)
    for number in range(SIZE):
        rows = [found[f"http://{host}/{number}"].image for host in "abc"]
        assert all(np.array_equal(rows[0], row) for row in rows)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_image_that_several_requests_bring_at_once_is_encoded_once(
    settings: Settings, concurrency: int
):
    embedder, encoder = made(settings, concurrency)
    device = encoder.before = HeldDevice()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(embedder.embed, VALUES[:1], PATIENCE)
        assert device.inside.wait(PATIENCE)
        others = [pool.submit(embedder.embed, VALUES[:1], PATIENCE) for _ in range(3)]
        device.go_on.set()
        answers = [future.result()[0][VALUES[0]] for future in (first, *others)]
    assert encoder.images == 1
    assert all(np.array_equal(answers[0].image, answer.image) for answer in answers)


def test_who_waits_for_another_request_still_answers_in_time(settings: Settings):
    embedder, encoder = made(settings, 1)
    device = encoder.before = HeldDevice()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(embedder.embed, VALUES[:1])
        assert device.inside.wait(PATIENCE)
        _, failures = embedder.embed(VALUES[:2], 0.5)
        assert {failure.reason for failure in failures.values()} == {ImageReason.TIMEOUT}
        assert failures.keys() == set(VALUES[:2])
        device.go_on.set()
        assert first.result()[0].keys() == set(VALUES[:1])
    encoder.before = lambda: None
    assert not embedder.embed(VALUES[:2])[1]


def test_a_request_in_a_hurry_goes_before_the_batches_of_a_run(settings: Settings):
    embedder, encoder = made(settings, 1)
    device, order = HeldDevice(), []
    whole = encoder.encode_prepared

    def encode(images):
        order.append(len(images))
        device()
        return whole(images)

    encoder.encode_prepared = encode  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        run = pool.submit(embedder.fill, VALUES[: 3 * SIZE])
        assert device.inside.wait(PATIENCE)
        until(lambda: embedder._encoding._waiting.qsize() == 1)
        urgent = pool.submit(embedder.embed, VALUES[-1:], PATIENCE)
        until(lambda: embedder._encoding._waiting.qsize() == 2)
        device.go_on.set()
        assert not urgent.result()[1]
        assert run.result().embedded == 3 * SIZE
    assert order == [SIZE, 1, SIZE, SIZE]


def test_what_a_stopped_run_had_begun_is_stored_and_free_for_others(settings: Settings):
    embedder, encoder = made(settings, 3)

    told: list[int] = []

    def stop(cached: int, done: int, failed: int) -> None:
        told.append(done)
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        embedder.fill(VALUES, stop)
    encoded = encoder.images
    assert told[-1] == encoded < len(VALUES)
    found, _ = embedder.stored(VALUES)
    assert len(found) == encoded
    with ThreadPoolExecutor(1) as pool:
        pool.submit(embedder.fill, VALUES).result(PATIENCE)
    assert encoder.images == len(VALUES)


@pytest.mark.parametrize("method", ["embeddings", "add"])
def test_a_run_whose_store_fails_leaves_its_images_to_others(
    settings: Settings, method: str, monkeypatch: pytest.MonkeyPatch
):
    embedder, _ = made(settings, 3)

    def fail(*_: object) -> None:
        raise StoreError("The disk is full.", "Free some space.")

    with monkeypatch.context() as broken:
        broken.setattr(Vectors, method, fail)
        with pytest.raises(StoreError):
            embedder.fill(VALUES)
    with ThreadPoolExecutor(1) as pool:
        filled = pool.submit(embedder.fill, VALUES).result(PATIENCE)
    assert not filled.failures
    assert embedder.needs_nothing(VALUES)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("where", ["add", "encode"])
def test_whatever_stops_a_run_leaves_its_images_to_others(
    settings: Settings, concurrency: int, where: str, monkeypatch: pytest.MonkeyPatch
):
    """A signal, as a job's timeout is, or an error that nobody expects."""
    embedder, encoder = made(settings, concurrency)

    def fail(*_: object) -> None:
        raise SystemExit(1)

    with monkeypatch.context() as broken:
        if where == "add":
            broken.setattr(Vectors, "add", fail)
        else:
            broken.setattr(encoder, "encode_prepared", fail)
        with pytest.raises(SystemExit):
            embedder.fill(VALUES)
    with ThreadPoolExecutor(1) as pool:
        filled = pool.submit(embedder.fill, VALUES).result(PATIENCE)
    assert not filled.failures


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_signal_between_two_steps_leaves_no_claim_and_no_batch(
    settings: Settings, where: str, monkeypatch: pytest.MonkeyPatch
):
    embedder, encoder = made(settings, 1)
    encoding = embedder._encoding

    def interrupt(*_: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as broken:
        if where == "begin":
            broken.setattr(encoding._pool, "submit", interrupt)
        else:
            release, calls = encoding.release, []

            def release_once(*arguments: Any) -> None:
                calls.append(arguments)
                if len(calls) == 1:
                    raise InterruptedError
                release(*arguments)

            broken.setattr(encoding, "release", release_once)
        with pytest.raises(InterruptedError):
            embedder.fill(VALUES)
    assert encoding._claims == {}
    with ThreadPoolExecutor(1) as pool:
        filled = pool.submit(embedder.fill, [*VALUES[20:], *VALUES[:20]]).result(PATIENCE)
    assert not filled.failures
    assert encoding._waiting.empty()
    assert encoder.images <= len(VALUES) + 2 * SIZE


def test_what_a_run_has_encoded_but_not_stored_yet_is_not_encoded_again(settings: Settings):
    embedder, encoder = made(settings, 1)
    seen: list[int] = []

    def ask(cached: int, done: int, failed: int) -> None:
        if done == 3 * SIZE and not seen:
            with ThreadPoolExecutor(1) as pool:
                found, failures = pool.submit(embedder.embed, VALUES[:SIZE], PATIENCE).result()
            assert (len(found), failures) == (SIZE, {})
            seen.append(encoder.images)

    embedder.fill(VALUES, ask)
    assert seen and encoder.images == len(VALUES)


def test_a_batch_that_is_given_up_keeps_no_pixels(settings: Settings):
    embedder, encoder = made(settings, 1)
    device = encoder.before = HeldDevice()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(embedder.embed, VALUES[:1])
        assert device.inside.wait(PATIENCE)
        for value in VALUES[1:4]:
            assert embedder.embed([value], 0.3)[1]
        assert [job.images for *_, job in embedder._encoding._waiting.queue] == [[], [], []]
        device.go_on.set()
        assert not first.result()[1]


def test_memory_holds_so_many_images_however_long_the_list_is(settings: Settings):
    few = settings.model_copy(update={"fetch_workers": 2})
    encoder = StubEncoder(batch_size=SIZE)
    encoder.concurrency = 2
    waiting, most = [0], [0]
    lock = threading.Lock()

    class Counted(Files):
        def fetch_file(self, value: str, known: Validators) -> FetchedFile:
            with lock:
                waiting[0] += 1
                most[0] = max(most[0], waiting[0])
            return super().fetch_file(value, known)

    whole = encoder.encode_prepared

    def encode(images):
        threading.Event().wait(0.02)
        result = whole(images)
        with lock:
            waiting[0] -= len(images)
        return result

    encoder.encode_prepared = encode  # type: ignore[method-assign]
    Embedder(few, encoder, open_store(few), Counted()).fill(VALUES)
    # Those that are fetched, computed and next, and those that come after.
    assert most[0] <= few.fetch_workers + (encoder.concurrency + 2) * SIZE
