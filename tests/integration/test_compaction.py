"""Bytes of a store on disk while it grows, and lookups and writers beside its maintenance."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lancedb.table import LanceTable

from backend.errors import StoreError
from backend.storage import compaction, tables
from backend.storage.compaction import Compactor, is_due
from backend.storage.locks import Locks
from backend.storage.maintenance import dedupe, erase_images
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding
from tests.support.storage import wait_for_compaction

ENCODER, DIM = "an-encoder", 512
ROWS = 4
"""Images per append."""


FEWEST_FILES = 16


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compaction, "FEWEST_FILES", FEWEST_FILES)
    monkeypatch.setattr(tables, "CHECK_EVERY", 4)
    return str(tmp_path / "store")


def rows(number: int) -> list[NewEmbedding]:
    values = np.random.default_rng(number).normal(size=(ROWS, 10, DIM)).astype(np.float16)
    return [
        NewEmbedding(
            f"https://photos.example/{number}/{index}.jpg",
            f"{number:060d}{index:04d}",
            Embedding.of(value[0], value[1:]),
        )
        for index, value in enumerate(values)
    ]


def add(store: Store, numbers: range) -> int:
    """Append; returns the bytes of the vectors, the keys and the addresses."""
    payload = 0
    for number in numbers:
        batch = rows(number)
        store.vectors.add(ENCODER, DIM, batch)
        payload += sum(row.embedding.nbytes + 2 * len(row.key) + len(row.address) for row in batch)
    return payload


def disk_bytes(uri: str) -> int:
    total = 0
    for file in Path(uri).rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def stored(store: Store, numbers: range) -> dict[str, Embedding]:
    keys = [row.key for number in numbers for row in rows(number)]
    return store.vectors.embeddings(ENCODER, DIM, keys)


def test_bytes_on_disk_grow_with_the_number_of_images_and_not_with_its_square(uri: str):
    store = Store(uri)
    payload, most = 0, 0.0
    shares = {}
    for start in range(0, 8 * FEWEST_FILES, 4):
        payload += add(store, range(start, start + 4))
        most = max(most, disk_bytes(uri) / payload)
        if (start + 4) % (2 * FEWEST_FILES) == 0:
            dedupe(store, ENCODER, DIM)
            wait_for_compaction()
            shares[start + 4] = disk_bytes(uri) / payload
    assert most < 2.5
    assert shares[8 * FEWEST_FILES] < 1.3
    assert len(stored(store, range(8 * FEWEST_FILES))) == 8 * FEWEST_FILES * ROWS


def test_a_table_is_compacted_when_it_has_doubled_and_not_at_each_append(
    uri: str, monkeypatch: pytest.MonkeyPatch
):
    compacted: list[str] = []
    optimize = Compactor._optimize

    def counting(self: Compactor, name: str) -> None:
        compacted.append(name)
        optimize(self, name)

    monkeypatch.setattr(Compactor, "_optimize", counting)
    store = Store(uri)
    for start in range(0, 8 * FEWEST_FILES, 4):
        add(store, range(start, start + 4))
        wait_for_compaction()
    # At 16, 32, 64 and 128 files: each of the two tables four times, or three where one waited.
    assert 6 <= len(compacted) <= 8


def test_a_lookup_waits_for_no_compaction(uri: str, monkeypatch: pytest.MonkeyPatch):
    began, go_on = threading.Event(), threading.Event()

    def endless(self: Compactor, name: str) -> None:
        began.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Compactor, "_optimize", endless)
    store = Store(uri)
    add(store, range(FEWEST_FILES + 4))
    assert began.wait(10)
    try:
        # In this process, whose table is being compacted, and in another one.
        for reader in (store, Store(uri)):
            assert len(stored(reader, range(2))) == 2 * ROWS
            assert reader.vectors.keys_of([rows(1)[0].address])
        # Nor does an append.
        add(store, range(1000, 1001))
    finally:
        go_on.set()
    wait_for_compaction()


def test_readers_and_writers_go_on_while_files_are_replaced(uri: str):
    store = Store(uri)
    add(store, range(FEWEST_FILES))
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read() -> None:
        reader = Store(uri)
        while not stop.is_set():
            assert len(stored(reader, range(4))) == 4 * ROWS

    def write() -> None:
        add(Store(uri), range(1000, 1040))

    threads = [guarded(read), guarded(read), guarded(write)]
    for _ in range(8):
        store.tables.compactor.compact("addresses")
        store.tables.compactor.compact(store.vectors.embedding_table(ENCODER, DIM).name)
    threads[2].join(60)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(stored(Store(uri), range(1000, 1040))) == 40 * ROWS


def test_a_query_that_loses_its_files_is_repeated(uri: str, monkeypatch: pytest.MonkeyPatch):
    store = Store(uri)
    add(store, range(2))
    attempts = []

    def search(failing: int) -> Any:
        real = LanceTable.search

        def lost(table: LanceTable) -> Any:
            attempts.append(table)
            if len(attempts) <= failing:
                raise RuntimeError("a file is gone")
            return real(table)

        return lost

    with monkeypatch.context() as patched:
        patched.setattr(LanceTable, "search", search(failing=tables.ATTEMPTS - 1))
        assert len(stored(store, range(2))) == 2 * ROWS
    attempts.clear()
    monkeypatch.setattr(LanceTable, "search", search(failing=tables.ATTEMPTS))
    with pytest.raises(StoreError, match="gone"):
        stored(store, range(2))


def test_of_several_processes_one_compacts(uri: str):
    store = Store(uri)
    add(store, range(FEWEST_FILES - 1))
    # Another process, so that this one does not count its append.
    add(Store(uri), range(2000, 2001))
    table = store.vectors.embedding_table(ENCODER, DIM)
    assert is_due(table)
    with Locks(uri).hold(compaction.LOCK):
        store.tables.compact_if_due()
        assert is_due(table)
    store.tables.compact_if_due()
    assert not is_due(table)


def test_erasing_waits_for_a_compaction_so_that_the_bytes_are_gone(uri: str):
    store = Store(uri)
    add(store, range(3))
    doomed = rows(1)[0]
    entered = threading.Event()

    def erase() -> None:
        entered.set()
        erase_images(store, [doomed.address])

    with store.locks.hold(compaction.LOCK):
        thread = threading.Thread(target=erase)
        thread.start()
        assert entered.wait(10)
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(60)
    needle = doomed.embedding.image.tobytes()
    assert not any(needle in file.read_bytes() for file in Path(uri).rglob("data/*.lance"))
    assert doomed.key not in store.vectors.embeddings(ENCODER, DIM, [doomed.key])


@pytest.fixture
def held(uri: str) -> Iterator[Locks]:
    locks = Locks(uri)
    with locks.hold("a"):
        yield locks


def test_a_lock_has_one_holder_and_other_names_are_free(held: Locks, uri: str):
    with held.hold_if_free("a") as free:
        assert not free
    with Locks(uri).hold_if_free("b") as free:
        assert free
    with pytest.raises(StoreError, match="lock a"), Locks(uri).hold("a", 0.1):
        pass


def test_a_lock_is_free_after_its_holder_has_failed(uri: str):
    locks = Locks(uri)
    with pytest.raises(KeyError), locks.hold("a"):
        raise KeyError
    with locks.hold_if_free("a") as free:
        assert free
