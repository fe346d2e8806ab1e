"""The store: several writers, several readers, directories and object stores."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from backend.errors import StoreError
from backend.storage.artifacts import DamagedArtifactError
from backend.storage.compaction import FEWEST_FILES
from backend.storage.maintenance import dedupe
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding, content_key
from tests.support.storage import assert_created_once, wait_for_compaction

ENCODER, DIM = "an-encoder", 16


def embedding(seed: int, regions: bool = True) -> Embedding:
    numbers = np.random.default_rng(seed)
    return Embedding.of(
        numbers.normal(size=DIM).astype(np.float16),
        numbers.normal(size=(9, DIM)).astype(np.float16) if regions else None,
    )


def row(seed: int, regions: bool = True) -> NewEmbedding:
    return NewEmbedding(f"https://x/{seed}.jpg", f"key{seed}", embedding(seed, regions))


def assert_same(stored: Embedding, expected: Embedding) -> None:
    assert stored.image.dtype == np.float16
    assert stored.image.tobytes() == expected.image.tobytes()
    if expected.regions is None:
        assert stored.regions is None
    else:
        assert stored.regions is not None
        assert stored.regions.shape == expected.regions.shape
        assert stored.regions.tobytes() == expected.regions.tobytes()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.mark.parametrize("regions", [True, False])
def test_what_was_stored_comes_back_to_the_bit(uri: str, regions: bool):
    Store(uri).vectors.add(ENCODER, DIM, [row(1, regions), row(2, regions)])
    stored = Store(uri).vectors.embeddings(ENCODER, DIM, ["key1", "key2", "key3"])
    assert set(stored) == {"key1", "key2"}
    for seed in (1, 2):
        assert_same(stored[f"key{seed}"], embedding(seed, regions))


def test_rows_with_and_without_regions_can_be_read_together(uri: str):
    store = Store(uri)
    store.vectors.add(ENCODER, DIM, [row(1, True), row(2, False), row(3, True)])
    stored = store.vectors.embeddings(ENCODER, DIM, ["key1", "key2", "key3"])
    for seed, regions in ((1, True), (2, False), (3, True)):
        assert_same(stored[f"key{seed}"], embedding(seed, regions))


def test_an_empty_store_finds_nothing(uri: str):
    store = Store(uri)
    assert store.vectors.keys_of(["https://x/1.jpg"]) == {}
    assert store.vectors.keys_of([]) == {}
    assert store.vectors.embeddings(ENCODER, DIM, ["key1"]) == {}
    assert store.vectors.embeddings(ENCODER, DIM, []) == {}


def test_what_another_store_object_wrote_is_seen_at_once(uri: str):
    first, second = Store(uri), Store(uri)
    assert second.vectors.embeddings(ENCODER, DIM, ["key1"]) == {}
    first.vectors.add(ENCODER, DIM, [row(1)])
    assert_same(second.vectors.embeddings(ENCODER, DIM, ["key1"])["key1"], embedding(1))
    second.vectors.add(ENCODER, DIM, [row(2)])
    assert first.vectors.keys_of(["https://x/2.jpg"]) == {"https://x/2.jpg": "key2"}


def test_encoders_never_see_each_others_embeddings(uri: str):
    store = Store(uri)
    store.vectors.add(ENCODER, DIM, [row(1)])
    assert store.vectors.embeddings("another-encoder", DIM, ["key1"]) == {}
    # Names that differ only in characters that no table name can hold.
    assert store.vectors.embeddings("an_encoder", DIM, ["key1"]) == {}


def test_a_key_written_twice_is_one_embedding(uri: str):
    store = Store(uri)
    for _ in range(3):
        store.vectors.add(ENCODER, DIM, [row(1)])
    assert_same(store.vectors.embeddings(ENCODER, DIM, ["key1"])["key1"], embedding(1))
    assert len(store.vectors.keys_of(["https://x/1.jpg"])) == 1


def test_two_addresses_of_one_image_share_its_embedding(uri: str):
    store = Store(uri)
    store.vectors.add(ENCODER, DIM, [row(1)])
    store.vectors.add_addresses([("https://y/other.jpg", "key1")])
    assert set(store.vectors.keys_of(["https://x/1.jpg", "https://y/other.jpg"]).values()) == {
        "key1"
    }


@pytest.mark.parametrize("address", ["it's", "a' OR '1'='1", "日本.jpg", "a%b_c", "\\", '"', ""])
def test_addresses_with_quotes_or_foreign_letters_are_found(uri: str, address: str):
    store = Store(uri)
    store.vectors.add(ENCODER, DIM, [row(1)])
    assert store.vectors.keys_of([address]) == {}
    store.vectors.add_addresses([(address, "key1")])
    assert store.vectors.keys_of([address]) == {address: "key1"}


def test_more_keys_than_one_query_holds_are_all_found(uri: str):
    store = Store(uri)
    rows = [row(seed, False) for seed in range(1100)]
    store.vectors.add(ENCODER, DIM, rows)
    stored = store.vectors.embeddings(ENCODER, DIM, [entry.key for entry in rows])
    assert len(stored) == 1100
    assert_same(stored["key777"], embedding(777, False))
    assert len(store.vectors.keys_of(entry.address for entry in rows)) == 1100


def test_compaction_loses_nothing(uri: str):
    store = Store(uri)
    for seed in range(FEWEST_FILES + 2):
        store.vectors.add(ENCODER, DIM, [row(seed, False)])
    keys = [f"key{seed}" for seed in range(FEWEST_FILES + 2)]
    assert set(Store(uri).vectors.embeddings(ENCODER, DIM, keys)) == set(keys)


def test_addresses_alone_are_compacted_too(uri: str):
    store = Store(uri)
    for number in range(FEWEST_FILES + 2):
        store.vectors.add_addresses([(f"{number}.jpg", "key")])
    wait_for_compaction()
    assert store.vectors.address_table().stats()["fragment_stats"]["num_fragments"] < 5
    assert (
        len(store.vectors.keys_of([f"{n}.jpg" for n in range(FEWEST_FILES + 2)]))
        == FEWEST_FILES + 2
    )


def test_the_same_bytes_have_the_same_key():
    assert content_key(b"abc") == content_key(b"abc") != content_key(b"abd")


# Several processes


def _write_keys(uri: str, start: int, stop: int) -> None:
    store = Store(uri)
    for first in range(start, stop, 10):
        store.vectors.add(ENCODER, DIM, [row(seed) for seed in range(first, min(first + 10, stop))])


def test_processes_that_write_the_same_keys_lose_nothing(uri: str):
    Store(uri)
    spawn = multiprocessing.get_context("spawn")
    spans = [(0, 20), (0, 20), (10, 30), (0, 30)]
    writers = [spawn.Process(target=_write_keys, args=(uri, *span)) for span in spans]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    keys = [f"key{seed}" for seed in range(30)]
    stored = Store(uri).vectors.embeddings(ENCODER, DIM, keys)
    assert len(stored) == 30
    for seed in (0, 15, 29):
        assert_same(stored[f"key{seed}"], embedding(seed))

    # Ninety rows were written; one per key stays, the one that readers used before.
    assert dedupe(Store(uri), ENCODER, DIM) >= 60
    assert dedupe(Store(uri), ENCODER, DIM) == 0
    after = Store(uri).vectors.embeddings(ENCODER, DIM, keys)
    for key in keys:
        assert_same(after[key], stored[key])


def test_a_table_is_created_by_one_writer_at_a_time(uri: str):
    """LanceDB's creation can replace a table that is a moment old, with its rows."""
    assert_created_once(uri)


def test_of_two_embeddings_of_a_key_all_readers_use_the_first(uri: str):
    for seed in (1, 2):
        Store(uri).vectors.add(ENCODER, DIM, [NewEmbedding("a.jpg", "key", embedding(seed))])
    for _ in range(2):
        read = Store(uri).vectors.embeddings(ENCODER, DIM, ["key"])["key"]
        assert_same(read, embedding(1))


def test_deduping_keeps_the_rows_that_readers_use(uri: str):
    store = Store(uri)
    first, second = embedding(1), embedding(2)
    for vectors in (first, second):
        store.vectors.add(ENCODER, DIM, [NewEmbedding("a.jpg", "key", vectors)])
    # Another address leads to the first image: what no address leads to is erased.
    store.vectors.add_addresses([("a.jpg", "newer"), ("b.jpg", "key")])
    assert dedupe(store, ENCODER, DIM) == 3
    assert_same(store.vectors.embeddings(ENCODER, DIM, ["key"])["key"], first)
    assert store.vectors.keys_of(["a.jpg"]) == {"a.jpg": "newer"}


# Artifacts


def test_an_artifact_is_written_once(uri: str):
    store = Store(uri)
    assert store.artifacts.read("statistics/1/a") is None
    assert store.artifacts.write("statistics/1/a", {"n": 1}) == {"n": 1}
    assert store.artifacts.write("statistics/1/a", {"n": 2}) == {"n": 1}
    assert Store(uri).artifacts.read("statistics/1/a") == {"n": 1}


def test_an_artifact_can_be_replaced_where_that_is_meant(uri: str):
    store = Store(uri)
    store.artifacts.write("tables/a", {"n": 1})
    store.artifacts.write("tables/a", {"n": 2}, replace=True)
    assert store.artifacts.read("tables/a") == {"n": 2}


def test_the_second_of_two_simultaneous_writers_gets_the_first_ones_artifact(
    uri: str, monkeypatch: pytest.MonkeyPatch
):
    late, early = Store(uri), Store(uri)
    looked = late.artifacts.read

    def look_then_be_overtaken(name: str) -> object:
        content = looked(name)
        monkeypatch.setattr(late.artifacts, "read", looked)
        early.artifacts.write(name, {"writer": "early"})
        return content

    monkeypatch.setattr(late.artifacts, "read", look_then_be_overtaken)
    assert late.artifacts.write("statistics/1/a", {"writer": "late"}) == {"writer": "early"}
    assert Store(uri).artifacts.read("statistics/1/a") == {"writer": "early"}


def test_drafts_of_artifacts_do_not_stay_behind(uri: str):
    store = Store(uri)
    store.artifacts.write("statistics/1/a", {"n": 1})
    store.artifacts.write("statistics/1/a", {"n": 2}, replace=True)
    assert [file.name for file in (Path(uri) / "statistics" / "1").iterdir()] == ["a.json"]


def test_floats_of_an_artifact_survive_exactly(uri: str):
    content = {"x": [0.1, 1 / 3, 1e-300]}
    Store(uri).artifacts.write("a", content)
    assert Store(uri).artifacts.read("a") == content


# What goes wrong


def test_a_file_in_the_place_of_the_store_is_explained(tmp_path: Path):
    place = tmp_path / "store"
    place.write_text("not a directory")
    with pytest.raises(StoreError, match="store") as caught:
        Store(str(place))
    assert "LS_CLIP_STORE" in caught.value.fix


def test_a_store_that_cannot_be_made_is_explained():
    with pytest.raises(StoreError) as caught:
        Store("/proc/no-store-can-be-here")
    assert "/proc/no-store-can-be-here" in caught.value.message


def test_a_store_of_an_unknown_kind_is_explained():
    with pytest.raises(StoreError):
        Store("nosuchscheme://bucket/store")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"null"])
def test_an_artifact_that_is_no_json_object_is_explained_and_can_be_replaced(
    uri: str, content: bytes
):
    store = Store(uri)
    (Path(uri) / "a.json").write_bytes(content)
    with pytest.raises(DamagedArtifactError) as caught:
        store.artifacts.read("a")
    assert "a.json" in caught.value.message and "backup" in caught.value.fix
    store.artifacts.write("a", {"n": 1}, replace=True)
    assert store.artifacts.read("a") == {"n": 1}


def test_a_store_that_has_vanished_is_explained(uri: str):
    store = Store(uri)
    store.vectors.add(ENCODER, DIM, [row(1)])
    for path in sorted(Path(uri).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    Path(uri).rmdir()
    with pytest.raises(StoreError):
        store.vectors.embeddings(ENCODER, DIM, ["key1"])
