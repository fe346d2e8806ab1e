"""The store in a bucket: a real S3 protocol, spoken by moto's server in another process."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from obstore.store import from_url

from backend.doctor import store as checks
from backend.doctor.context import Context
from backend.doctor.finding import Severity
from backend.errors import StoreError
from backend.storage import compaction, tables
from backend.storage.check import check_store
from backend.storage.compaction import is_due
from backend.storage.head_pointer import Pointer, PointerFile
from backend.storage.installations import adopt, open_store
from backend.storage.leases import Lease
from backend.storage.locks import Locks
from backend.storage.maintenance import dedupe, erase_images
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding
from tests.support.buckets import make_bucket, name_in_environment, s3_server
from tests.support.builders import make_settings
from tests.support.storage import assert_created_once, wait_for_compaction
from tests.support.waiting import until

ENCODER, DIM = "an-encoder", 16
KEY = "7.1700000000"


def row(seed: int) -> NewEmbedding:
    values = np.random.default_rng(seed).normal(size=(10, DIM)).astype(np.float16)
    return NewEmbedding(f"https://x/{seed}.jpg", f"key{seed}", Embedding.of(values[0], values[1:]))


def assert_there(store: Store, seeds: range) -> None:
    found = store.vectors.embeddings(ENCODER, DIM, [f"key{seed}" for seed in seeds])
    assert len(found) == len(seeds)
    for seed in seeds:
        assert found[f"key{seed}"].image.tobytes() == row(seed).embedding.image.tobytes()
    addresses = [f"https://x/{seed}.jpg" for seed in seeds]
    assert len(store.vectors.keys_of(addresses)) == len(seeds)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that speaks S3."""
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    name_in_environment(server, monkeypatch)
    make_bucket(server, "photos")
    return f"s3://photos/{tmp_path.name}"


def test_a_bucket_holds_embeddings_and_artifacts(bucket: str):
    Store(bucket).vectors.add(ENCODER, DIM, [row(1), row(2)])
    other = Store(bucket)
    assert_there(other, range(1, 3))
    assert other.artifacts.read("statistics/1/a") is None
    assert other.artifacts.write("statistics/1/a", {"n": 1}) == {"n": 1}
    assert Store(bucket).artifacts.write("statistics/1/a", {"n": 2}) == {"n": 1}
    assert json.loads(json.dumps(Store(bucket).artifacts.read("statistics/1/a"))) == {"n": 1}


def _write(uri: str, first: int, last: int) -> None:
    store = Store(uri)
    for seed in range(first, last):
        store.vectors.add(ENCODER, DIM, [row(seed)])


def test_two_writers_and_maintenance_lose_nothing(bucket: str):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(bucket, *span)) for span in ((0, 6), (3, 9))]
    for writer in writers:
        writer.start()
    store = Store(bucket)
    for _ in range(2):
        dedupe(store, ENCODER, DIM)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    dedupe(store, ENCODER, DIM)
    assert_there(Store(bucket), range(9))
    assert store.vectors.embedding_table(ENCODER, DIM).count_rows() == 9
    assert list(check_store(store)) == []


def test_a_table_is_compacted_beside_lookups(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compaction, "FEWEST_FILES", 4)
    monkeypatch.setattr(tables, "CHECK_EVERY", 2)
    store = Store(bucket)
    for seed in range(6):
        store.vectors.add(ENCODER, DIM, [row(seed)])
        assert_there(store, range(seed, seed + 1))
    wait_for_compaction()
    store.tables.compact_if_due()
    assert not is_due(store.vectors.embedding_table(ENCODER, DIM))
    assert_there(Store(bucket), range(6))


def test_erased_images_are_gone(bucket: str):
    store = Store(bucket)
    store.vectors.add(ENCODER, DIM, [row(1), row(2)])
    assert erase_images(store, ["https://x/1.jpg"]) == 1
    assert_there(Store(bucket), range(2, 3))
    assert Store(bucket).vectors.embeddings(ENCODER, DIM, ["key1"]) == {}


def test_a_lock_has_one_holder_among_machines(bucket: str):
    inside, most = [0], [0]

    def work() -> None:
        locks = Locks(bucket)
        for _ in range(3):
            with locks.hold("a"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == [1]
    with Locks(bucket).hold("a"), Locks(bucket).hold_if_free("a") as free:
        assert not free
    with (
        Locks(bucket).hold("a"),
        pytest.raises(StoreError, match="lock a"),
        Locks(bucket).hold("a", 0.1),
    ):
        pass


def test_a_lease_is_taken_over_when_its_holder_is_dead_and_never_taken_back(bucket: str):
    with mock.patch("backend.storage.leases.LEASE_SECONDS", 0.0):
        dead = Lease(bucket, "locks/a.json")
        assert dead.take()
    heir = Lease(bucket, "locks/a.json")
    assert heir.take()
    assert not dead.renew()
    dead.release()
    assert not dead.take()
    assert heir.renew()
    heir.release()
    assert dead.take()


def test_a_renewal_whose_answer_was_lost_loses_no_lease(bucket: str):
    lease, other = Lease(bucket, "locks/a.json"), Lease(bucket, "locks/a.json")
    assert lease.take()
    before = lease._seen
    assert lease.renew()
    lease._seen = before
    assert lease.renew()
    lease._seen = before
    lease.release()
    assert other.take()


def test_a_lock_that_was_lost_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.storage.locks.LEASE_SECONDS", 0.2)
    objects, lost = from_url(bucket), pytest.raises(StoreError, match="lost to another process")
    with lost, Locks(bucket).hold("a"):
        (path,) = [entry["path"] for batch in objects.list("locks") for entry in batch]
        objects.delete(path)
        assert Lease(bucket, path).take()
        until(lambda: not [one for one in threading.enumerate() if one.name == "lease"])


def test_a_bucket_that_cannot_be_reached_is_told_with_what_it_needs(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    with (
        pytest.raises(StoreError, match="cannot be locked") as caught,
        Locks("s3://no-such-bucket/x").hold("a"),
    ):
        pass
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix and "conditional" in caught.value.fix


def test_doctor_finds_a_server_that_knows_no_conditional_writes(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    context = Context(make_settings(Path()).model_copy(update={"store": bucket}), None)
    assert list(checks.store(context)) == []
    monkeypatch.setattr(Lease, "take", lambda self: True)
    (finding,) = checks.store(context)
    assert (finding.check, finding.severity) == ("store", Severity.ERROR)


def test_a_table_is_created_by_one_writer_at_a_time(bucket: str):
    assert_created_once(bucket)


def test_no_change_of_a_pointer_is_lost(bucket: str):
    def work(process: int) -> None:
        pointer = PointerFile(Store(bucket), KEY)
        for number in range(3):

            def append(now: Pointer, name: str = f"{process}-{number}") -> Pointer:
                return replace(now, history=(*now.history, name))

            pointer.change(append)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(PointerFile(Store(bucket), KEY).read().history) == 6


def test_a_store_without_installations_is_taken_over_and_moves_on(bucket: str):
    old = Store(bucket)
    old.vectors.add(ENCODER, DIM, [row(1)])
    old.artifacts.write(f"heads/{KEY}/h1", {"n": 1})
    settings = make_settings(Path(), installation="first").model_copy(update={"store": bucket})
    store = open_store(settings)
    assert_there(store, range(1, 2))
    assert store.artifacts.read(f"heads/{KEY}/h1") == {"n": 1}
    assert list(Store(bucket).tables.names()) == []
    moved = make_settings(Path(), installation="second").model_copy(update={"store": bucket})
    open_store(moved)
    adopt(moved, "first")
    assert_there(open_store(moved), range(1, 2))
