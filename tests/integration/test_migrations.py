"""Stores of an older layout: regions as float16 become int8, and nothing else is lost."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from backend.errors import StoreError
from backend.settings import Settings
from backend.storage import migrations
from backend.storage.artifacts import Artifacts
from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from backend.storage.maintenance import erase_images
from backend.storage.store import Store
from backend.storage.tables import LOOKUP_KEYS
from backend.storage.vectors import Embedding, table_name, vector_schema
from tests.support.builders import make_settings
from tests.support.heads import head_set

KEY = "7.1700000000"
DIM = 16
WIDE, NARROW = "openclip-x-tiles-float32", "openclip-x-tiles-int8-float32"
"""Ids of one encoder in layout 2 and today."""
WITHOUT = "openclip-x-none-float32"
DIGESTS = [hashlib.sha256(one.encode()).hexdigest()[:12] for one in (WIDE, NARROW)]
COUNT = LOOKUP_KEYS + 5
STEPS = 14
"""At which the conversion of `wide_store` can be interrupted here."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


def settings_of(place: Path) -> Settings:
    return make_settings(place)


def write_wide(store: Store, encoder: str, count: int, regions: bool = True) -> None:
    """The embeddings table of layout 2."""
    schema = pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("image", pa.list_(pa.float16(), DIM)),
            pa.field("regions", pa.list_(pa.float16(), 9 * DIM)),
        ],
        metadata={"encoder": encoder},
    )
    vectors = [wide(number) for number in range(count)]
    rows = {
        "key": [f"key{number}" for number in range(count)],
        "image": [one[0] for one in vectors],
        "regions": [one[1:].ravel() if regions else None for one in vectors],
    }
    columns = [pa.array(rows[field.name], field.type) for field in schema]
    store.tables.append(
        table_name(encoder).replace("vectors_", "embeddings_"),
        pa.Table.from_arrays(columns, schema=schema),
    )


def wide(number: int) -> NDArray[np.float16]:
    values = np.random.default_rng(number).normal(size=(10, DIM))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def assert_shortened(store: Store, encoder: str, count: int, regions: bool = True) -> None:
    found = store.vectors.embeddings(encoder, DIM, [f"key{number}" for number in range(count)])
    assert len(found) == count
    for number in range(count):
        expected = Embedding.of(wide(number)[0], wide(number)[1:] if regions else None)
        assert np.array_equal(found[f"key{number}"].image, expected.image)
        codes = found[f"key{number}"].regions
        assert (codes is None) == (expected.regions is None)
        if codes is not None and expected.regions is not None:
            assert np.array_equal(codes, expected.regions)
    rows = store.tables.rows(table_name(encoder), vector_schema(encoder, DIM), "true", ["key"])
    assert len(rows) == count
    assert not [name for name in store.tables.names() if name.startswith("embeddings_")]


@pytest.fixture
def wide_store(place: Path) -> Store:
    """A store of layout 2 or before, with all that belongs to an encoder."""
    store = Store(str(place))
    write_wide(store, WIDE, COUNT)
    write_wide(store, WITHOUT, 3, regions=False)
    store.artifacts.write(f"tables/{DIGESTS[0]}", {"n": 1})
    store.artifacts.write(f"statistics/{KEY}/{DIGESTS[0]}-abc", {"n": 2})
    Path(f"{store.uri}/heads/{KEY}").mkdir(parents=True)
    Path(f"{store.uri}/heads/{KEY}/h3.json").write_text('{"encod')
    return store


def assert_converted(store: Store) -> None:
    assert_shortened(store, NARROW, COUNT)
    assert_shortened(store, WITHOUT, 3, regions=False)
    assert store.artifacts.read(f"tables/{DIGESTS[1]}") == {"n": 1}
    assert store.artifacts.read(f"statistics/{KEY}/{DIGESTS[1]}-abc") == {"n": 2}
    assert set(store.artifacts.names("")) == {"generation", "installation"}


@pytest.mark.parametrize("after", range(STEPS + 1))
def test_regions_of_an_older_store_are_shortened_wherever_it_is_interrupted(
    place: Path, wide_store: Store, monkeypatch: pytest.MonkeyPatch, after: int
):
    calls = 0

    def interrupted(real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > after:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    def half_erased(artifacts: Artifacts, folder: str, matches: Callable[[str], bool]) -> None:
        for name in artifacts.content(folder):
            if matches(name) and name.endswith(".lance"):
                shutil.rmtree(f"{artifacts.uri}/{name}/_versions")
        interrupted(erase)(artifacts, folder, matches)

    erase = Artifacts.erase
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(migrations, "_shortened", interrupted(migrations._shortened))
        patched.setattr(Artifacts, "move", interrupted(Artifacts.move))
        patched.setattr(Artifacts, "erase", half_erased)
        open_store(settings_of(place))
    assert calls == min(after + 1, STEPS)
    assert_converted(open_store(settings_of(place)))


def test_what_belongs_to_an_encoder_is_converted_where_only_its_heads_name_it(place: Path):
    store = Store(str(place))
    store.artifacts.write(f"heads/{KEY}/h1", head_set("h1", encoder=WIDE).as_dict())
    # In a bucket, a move that is interrupted leaves both.
    for digest in DIGESTS:
        store.artifacts.write(f"statistics/{KEY}/{digest}-abc", {"n": 2})
    store.artifacts.write(f"statistics/{KEY}/{DIGESTS[0]}-def", {"n": 3})
    store = open_store(settings_of(place))
    assert set(store.artifacts.names(f"statistics/{KEY}")) == {
        f"{DIGESTS[1]}-abc",
        f"{DIGESTS[1]}-def",
    }
    assert HeadRegistry(store).get(KEY, "h1").encoder == NARROW


@pytest.mark.parametrize("damage", ["no rows", "no metadata"])
def test_an_older_table_that_cannot_be_read_is_named_with_the_way_on(place: Path, damage: str):
    store = Store(str(place))
    write_wide(store, WIDE, 3)
    (table,) = place.glob("embeddings_*.lance")
    if damage == "no rows":
        shutil.rmtree(table / "data")
    else:
        shutil.rmtree(table)
        schema = vector_schema(WIDE, DIM).remove_metadata()
        store.tables.database.create_table(table.stem, schema=schema)
    with pytest.raises(StoreError, match=table.stem) as caught:
        open_store(settings_of(place))
    assert "move it to another place" in caught.value.fix
    (table,) = place.rglob("embeddings_*.lance")
    shutil.rmtree(table)
    open_store(settings_of(place))


def test_embeddings_that_a_process_of_the_older_release_adds_are_erased_with_the_others(
    place: Path,
):
    settings = settings_of(place)
    store = open_store(settings)
    write_wide(store, WIDE, 3)
    store.vectors.add_addresses([(f"{number}.jpg", f"key{number}") for number in range(3)])
    assert erase_images(store, ["1.jpg"]) == 1
    (name,) = [name for name in store.tables.names() if name.startswith("embeddings_")]
    rows = store.tables.database.open_table(name).to_arrow()
    assert sorted(rows["key"].to_pylist()) == ["key0", "key2"]
