"""Embeddings in memory: no query where nothing changed, and what the tables would answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import StoreError
from backend.storage.embedding_cache import LARGEST_LOOKUP, EmbeddingCache
from backend.storage.maintenance import dedupe, erase_images
from backend.storage.store import Store
from backend.storage.vectors import Embedding, NewEmbedding

ENCODER, DIM = "an-encoder", 4


def row(seed: int, address: str | None = None, regions: bool = True) -> NewEmbedding:
    values = np.random.default_rng(seed)
    image = values.standard_normal(DIM).astype(np.float16)
    cells = values.standard_normal((9, DIM)).astype(np.float16) if regions else None
    return NewEmbedding(address or f"{seed}.jpg", f"key{seed}", Embedding.of(image, cells))


def assert_same(embedding: Embedding, expected: Embedding) -> None:
    assert np.array_equal(embedding.image, expected.image)
    assert (embedding.regions is None) == (expected.regions is None)
    if embedding.regions is not None and expected.regions is not None:
        assert np.array_equal(embedding.regions, expected.regions)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store.vectors.add(ENCODER, DIM, [row(1), row(2, regions=False), row(3)])
    return store


@pytest.fixture
def cache(store: Store) -> EmbeddingCache:
    return EmbeddingCache(store.vectors, ENCODER, DIM)


@pytest.fixture
def queries(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that were queried."""
    made: list[str] = []
    rows = store.tables.rows

    def counted(name: str, *arguments: Any) -> Any:
        made.append(name)
        return rows(name, *arguments)

    monkeypatch.setattr(store.tables, "rows", counted)
    return made


def test_asking_again_costs_no_query_and_gives_the_same_values(
    cache: EmbeddingCache, queries: list[str]
):
    first = cache.get(["1.jpg", "2.jpg", "gone.jpg"])
    assert set(first) == {"1.jpg", "2.jpg"}
    assert len(queries) == 2
    again = cache.get(["2.jpg", "1.jpg"])
    assert len(queries) == 2
    for seed, regions in ((1, True), (2, False)):
        assert_same(first[f"{seed}.jpg"], row(seed, regions=regions).embedding)
        assert_same(again[f"{seed}.jpg"], row(seed, regions=regions).embedding)


def test_only_what_is_missing_is_queried(cache: EmbeddingCache, queries: list[str]):
    cache.get(["1.jpg"])
    both = cache.get(["1.jpg", "3.jpg"])
    assert len(queries) == 4
    assert_same(both["3.jpg"], row(3).embedding)


def test_what_another_process_erases_is_not_answered_from_memory(
    store: Store, cache: EmbeddingCache
):
    assert set(cache.get(["1.jpg", "2.jpg"])) == {"1.jpg", "2.jpg"}
    assert erase_images(Store(store.uri), ["1.jpg"]) == 1
    assert set(cache.get(["1.jpg", "2.jpg"])) == {"2.jpg"}


def test_an_address_that_another_process_gives_another_image_is_seen(
    store: Store, cache: EmbeddingCache
):
    cache.get(["1.jpg"])
    Store(store.uri).vectors.add(ENCODER, DIM, [row(9, "1.jpg")])
    assert_same(cache.get(["1.jpg"])["1.jpg"], row(9).embedding)


def test_what_is_embedded_later_is_found(store: Store, cache: EmbeddingCache):
    assert cache.get(["7.jpg"]) == {}
    Store(store.uri).vectors.add(ENCODER, DIM, [row(7)])
    assert_same(cache.get(["7.jpg"])["7.jpg"], row(7).embedding)


def test_duplicates_are_dropped_without_another_answer(store: Store, cache: EmbeddingCache):
    Store(store.uri).vectors.add(ENCODER, DIM, [row(1)])
    before = cache.get(["1.jpg"])["1.jpg"]
    assert dedupe(Store(store.uri), ENCODER, DIM) > 0
    assert_same(cache.get(["1.jpg"])["1.jpg"], before)


def test_the_memory_is_bounded_and_what_was_asked_for_last_stays(store: Store, queries: list[str]):
    size = row(1).embedding.nbytes + row(3).embedding.nbytes
    cache = EmbeddingCache(store.vectors, ENCODER, DIM, size)
    for address in ("1.jpg", "2.jpg", "3.jpg"):
        cache.get([address])
    queries.clear()
    cache.get(["2.jpg", "3.jpg"])
    assert queries == []
    cache.get(["1.jpg"])
    assert len(queries) == 2


def test_a_large_lookup_is_not_kept(store: Store, cache: EmbeddingCache, queries: list[str]):
    addresses = [f"{seed}.jpg" for seed in range(100, 101 + LARGEST_LOOKUP)]
    store.vectors.add(ENCODER, DIM, [row(seed) for seed in range(100, 101 + LARGEST_LOOKUP)])
    assert set(cache.get(addresses)) == set(addresses)
    queries.clear()
    cache.get(addresses[:1])
    assert len(queries) == 2


def test_after_a_failure_nothing_is_answered_from_memory(
    store: Store, cache: EmbeddingCache, queries: list[str], monkeypatch: pytest.MonkeyPatch
):
    cache.get(["1.jpg"])
    queries.clear()

    def broken() -> int:
        raise StoreError("The disk is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(store.vectors, "address_version", broken)
        with pytest.raises(StoreError):
            cache.get(["1.jpg"])
    assert set(cache.get(["1.jpg"])) == {"1.jpg"}
    assert len(queries) == 2


def test_no_addresses_ask_nothing(cache: EmbeddingCache, queries: list[str]):
    assert cache.get([]) == {}
    assert queries == []


def test_a_store_that_was_deleted_and_made_anew_is_another_one(store: Store, cache: EmbeddingCache):
    """Its tables reach the same versions again, with other rows."""
    store.generation.current()
    cache.get(["1.jpg"])
    shutil.rmtree(store.uri)
    other = NewEmbedding("1.jpg", "another", row(9).embedding)
    anew = Store(store.uri)
    anew.vectors.add(ENCODER, DIM, [other, row(2, regions=False), row(3)])
    assert anew.vectors.address_version().number == store.vectors.address_version().number
    # As each request does, for the model version.
    store.generation.current()
    assert_same(cache.get(["1.jpg"])["1.jpg"], other.embedding)
