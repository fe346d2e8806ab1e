"""Embeddings: each image is fetched and encoded once, and its failure is its own."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from backend.errors import ImageError, ImageReason, StoreError, StudioError
from backend.images.address import fetch_address
from backend.images.validators import FetchedFile, Validators
from backend.inference import embedding_writer
from backend.inference.embedder import Embedder
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.tables import Tables
from backend.storage.vectors import Vectors
from tests.support.builders import data_uri, photo, png_bytes
from tests.support.stub_encoder import StubEncoder


class Source:
    """Images by number; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        self.asked.append(value)
        if value in self.errors:
            raise self.errors[value]
        number = int(value.rstrip("/").rpartition("/")[2].partition("?")[0])
        return FetchedFile(png_bytes(photo(number)))


@pytest.fixture
def parts(settings: Settings) -> tuple[Embedder, Source, StubEncoder]:
    source, encoder = Source(), StubEncoder()
    return Embedder(settings, encoder, open_store(settings), source), source, encoder


Parts = tuple[Embedder, Source, StubEncoder]
ADDRESSES = [f"http://host/{number}" for number in range(6)]


def test_an_image_is_fetched_and_encoded_once(parts: Parts):
    embedder, source, encoder = parts
    first, failures = embedder.embed([*ADDRESSES, *ADDRESSES])
    assert set(first) == set(ADDRESSES) and not failures
    second, _ = embedder.embed(ADDRESSES[::-1])
    assert sorted(source.asked) == ADDRESSES
    assert encoder.images == len(ADDRESSES)
    for address in ADDRESSES:
        assert first[address].image.tobytes() == second[address].image.tobytes()


def test_equal_files_at_two_addresses_are_encoded_once(parts: Parts):
    embedder, source, encoder = parts
    found, _ = embedder.embed(["http://a/1", "http://b/1"])
    assert encoder.images == 1
    assert np.array_equal(found["http://a/1"].image, found["http://b/1"].image)
    embedder.embed(["http://a/1", "http://b/1"])
    assert len(source.asked) == 2


def test_nothing_asked_is_nothing_done(parts: Parts):
    assert parts[0].embed([]) == ({}, {})


def test_each_failure_belongs_to_its_image(parts: Parts):
    embedder, source, _ = parts
    source.errors = {
        ADDRESSES[1]: ImageError(ImageReason.NOT_FOUND, "gone"),
        ADDRESSES[3]: StudioError("The token is refused."),
    }
    found, failures = embedder.embed(ADDRESSES)
    assert {address: error.reason for address, error in failures.items()} == {
        ADDRESSES[1]: "not_found",
        ADDRESSES[3]: "label_studio",
    }
    assert set(found) == set(ADDRESSES) - set(failures)


def test_a_failure_is_not_remembered(parts: Parts):
    embedder, source, _ = parts
    source.errors = {ADDRESSES[0]: ImageError(ImageReason.UNREACHABLE, "down")}
    embedder.embed(ADDRESSES[:1])
    source.errors = {}
    assert embedder.embed(ADDRESSES[:1])[1] == {}


def test_images_go_to_the_encoder_in_batches(settings: Settings):
    encoder = StubEncoder(batch_size=4)
    Embedder(settings, encoder, open_store(settings), Source()).embed(ADDRESSES)
    assert encoder.batches == 2


def test_a_run_writes_few_files_and_encodes_nothing_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    """A lookup looks into every file of a table."""
    written: list[str] = []
    append = Tables.append

    def noted(tables: Tables, name: str, rows: pa.Table) -> None:
        written.append(name)
        append(tables, name, rows)

    monkeypatch.setattr(Tables, "append", noted)
    encoder, few = StubEncoder(batch_size=8), settings.model_copy(update={"fetch_workers": 4})
    embedder = Embedder(few, encoder, open_store(few), Source())
    # The same files at two addresses each, far apart.
    values = [f"http://{host}/{number}" for host in "ab" for number in range(40)]
    filled = embedder.fill(values)
    assert (filled.embedded, filled.failures) == (80, {})
    assert encoder.images == 40
    assert Counter(written).most_common(1)[0][1] <= 2
    assert embedder.needs_nothing(values)
    written.clear()
    monkeypatch.setattr(embedding_writer, "ROWS", 16)
    embedder.fill([f"http://c/{number}" for number in range(100, 180)])
    assert len([name for name in written if name.startswith("vectors_")]) == 5


def test_a_run_that_is_stopped_keeps_what_it_has(settings: Settings):
    encoder = StubEncoder(batch_size=8)
    embedder = Embedder(settings, encoder, open_store(settings), Source())
    values = [f"http://host/{number}" for number in range(40)]

    def stop(cached: int, done: int, failed: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        embedder.fill(values, stop)
    found, _ = embedder.stored(values)
    # The next batch had begun.
    assert 8 <= len(found) == encoder.images <= 16


def test_what_is_late_fails_and_the_rest_does_not_wait(parts: Parts):
    embedder, source, _ = parts
    release = threading.Event()
    fetch = source.fetch_file

    def slow(value: str, known: Validators) -> FetchedFile:
        if value == ADDRESSES[2]:
            release.wait(30)
        return fetch(value, known)

    source.fetch_file = slow  # type: ignore[method-assign]
    try:
        found, failures = embedder.embed(ADDRESSES, deadline_seconds=1)
    finally:
        release.set()
    assert {address: error.reason for address, error in failures.items()} == {
        ADDRESSES[2]: "timeout"
    }
    assert len(found) == len(ADDRESSES) - 1


@pytest.mark.parametrize("broken", ["keys_of", "embeddings", "add", "add_addresses"])
def test_a_broken_store_costs_time_and_no_answer(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, broken: str
):
    embedder, _, _ = parts

    def fail(*_: Any) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(Vectors, broken, fail)
    found, failures = embedder.embed(ADDRESSES[:2])
    assert set(found) == set(ADDRESSES[:2]) and not failures


def test_where_only_the_store_is_asked_its_failure_is_told(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise StoreError("Not found.")

    monkeypatch.setattr(Vectors, "keys_of", fail)
    with pytest.raises(StoreError):
        parts[0].stored(ADDRESSES[:2])


# Addresses


def test_relative_paths_belong_to_one_label_studio(parts: Parts, settings: Settings):
    address = parts[0].address("/data/upload/1/x.jpg")
    assert address == f"{settings.label_studio_url}/data/upload/1/x.jpg"


def test_a_data_uri_is_named_by_its_hash(parts: Parts):
    one, two = (parts[0].address(data_uri(number)) for number in (1, 2))
    assert one != two
    assert one == parts[0].address(data_uri(1)) and len(one) < 80


def test_a_cloud_address_stays_the_same_whichever_task_asks(parts: Parts):
    uri = "s3://bucket/photos/日本 1.jpg"
    paths = [fetch_address(uri, number) for number in (1, 2)]
    assert paths[0] != paths[1]
    assert paths[0].startswith("/tasks/1/resolve/?fileuri=")
    assert {parts[0].address(path) for path in paths} == {uri}


def test_other_addresses_are_left_alone(parts: Parts):
    for value in ("https://host/x.jpg", "/data/upload/1/x.jpg"):
        assert fetch_address(value, 1) == value
    assert fetch_address("s3://bucket/x.jpg", None) == "s3://bucket/x.jpg"
    assert parts[0].address("//host/x.jpg") == "//host/x.jpg"


@pytest.mark.parametrize(
    "encoded", ["%%%", "x"] + [base64.b64encode(b).decode() for b in (b"\xff\xfe", b"http://a/1")]
)
def test_a_resolve_route_that_says_nothing_is_an_address_like_any_other(parts: Parts, encoded: str):
    value = f"/tasks/1/resolve/?fileuri={encoded}"
    assert parts[0].address(value).endswith(value)


def test_an_image_without_a_finite_embedding_is_a_failure_of_its_own(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    embedder, _, encoder = parts
    whole = encoder.encode_prepared

    def sick(images: Any) -> Any:
        found = whole(images)
        found.image[0] = np.nan
        return found

    monkeypatch.setattr(encoder, "encode_prepared", sick)
    found, failures = embedder.embed(ADDRESSES)
    assert {one.reason for one in failures.values()} == {"not_finite"}
    assert len(found) + len(failures) == len(ADDRESSES)
    assert len(failures) < len(ADDRESSES)
    monkeypatch.undo()
    again, failures = embedder.embed(ADDRESSES)
    assert set(again) == set(ADDRESSES) and not failures


def test_of_several_cloud_addresses_in_one_path_none_is_taken(parts: Parts):
    embedder, _, _ = parts

    def part(uri: str) -> str:
        return "fileuri=" + base64.urlsafe_b64encode(uri.encode()).decode()

    one = f"/tasks/1/resolve/?{part('s3://b/1.jpg')}"
    assert embedder.address(one) == "s3://b/1.jpg"
    assert embedder.address(f"{one}&{part('s3://b/2.jpg')}").endswith(f"&{part('s3://b/2.jpg')}")
