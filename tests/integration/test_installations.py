"""Whose work a store holds: installations side by side, older stores, and moved Label Studios."""

from __future__ import annotations

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backend.errors import StoreError
from backend.settings import Settings
from backend.storage import migrations
from backend.storage.artifacts import Artifacts
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.installations import adopt, installation_names, namesakes, open_store
from backend.storage.prediction_log import LoggedPrediction, PredictionLog
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from backend.storage.validators import StoredValidators, ValidatorRows
from backend.storage.vectors import ADDRESSES, Embedding, NewEmbedding
from jobs.run_files import RunFiles
from tests.support.builders import make_settings
from tests.support.waiting import until

KEY = "7.1700000000"
DIM = 16


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


def settings_of(place: Path, name: str = "", **values: str) -> Settings:
    return make_settings(place, installation=name, **values)


def embedding() -> Embedding:
    values = np.ones((10, DIM), np.float16)
    return Embedding.of(values[0], values[1:])


def fill(store: Store, address: str = "https://x/1.jpg") -> None:
    """What an installation keeps: embeddings, a log, state, a pointer, and files of a run."""
    store.vectors.add("e", DIM, [NewEmbedding(address, "key1", embedding())])
    log = PredictionLog(store)
    log.add(KEY, [LoggedPrediction(3, "v", 0.5, {"choice": ["cat"]})])
    log.link_images(KEY, [(3, address)])
    ValidatorRows(store.tables).add([StoredValidators(address, "key1", '"1"', "", 5)])
    ProjectState(store, KEY).set_known_field("known")
    HeadRegistry(store).set_serving(KEY, ZERO_SHOT)
    store.artifacts.write(f"statistics/{KEY}/s", {"n": 1})
    store.artifacts.write("runs/abc/config", {"xml": "<View/>"})


def assert_filled(store: Store, address: str = "https://x/1.jpg") -> None:
    assert store.vectors.keys_of([address]) == {address: "key1"}
    assert set(store.vectors.embeddings("e", DIM, ["key1"])) == {"key1"}
    assert ValidatorRows(store.tables).of({address: "key1"})[address].etag == '"1"'
    assert set(PredictionLog(store).of_tasks(KEY, [3])) == {(3, "v")}
    assert ProjectState(store, KEY).known_field() == "known"
    assert HeadRegistry(store).history(KEY) == [ZERO_SHOT]
    assert store.artifacts.read(f"statistics/{KEY}/s") == {"n": 1}
    assert RunFiles(store.artifacts, "abc").config().controls == ()


def test_the_name_of_an_installation_is_label_studios_address_without_its_scheme(place: Path):
    names = {
        url: settings_of(place, label_studio_url=url).installation_id
        for url in (
            "http://ls.example",
            "https://LS.example:443/",
            "http://ls.example:8080",
            "http://ls.example/labels",
        )
    }
    assert len(set(names.values())) == 3
    assert names["http://ls.example"] == names["https://LS.example:443/"]
    assert names["http://ls.example:8080"].startswith("ls-example-8080-")
    own = [f"http://{host}:8080" for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST")]
    assert len({settings_of(place, label_studio_url=url).installation_id for url in own}) == 1
    given = settings_of(place, "staging", label_studio_url="http://ls.example")
    assert given.installation_id.startswith("staging-")


@pytest.mark.parametrize("name", ["../..", "日本語", "a" * 200, "x/y:z", "-"])
def test_every_name_is_fit_for_folders_and_keys(place: Path, name: str):
    settings = settings_of(place, name)
    assert set(settings.installation_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(settings.installation_id) <= 49
    assert open_store(settings).uri == str(place / settings.installation_id)
    assert installation_names(str(place)) == {settings.installation_id: name}


def test_forgetting_a_project_of_a_copy_leaves_the_original_alone(place: Path):
    original = settings_of(place, label_studio_url="http://ls.example")
    copy = settings_of(place, label_studio_url="http://staging.example")
    for settings in (original, copy):
        fill(open_store(settings))
    assert PredictionLog(open_store(copy)).purge("7.").images == 1
    assert_filled(open_store(original))
    assert not PredictionLog(open_store(copy)).has("7.", [3])


def test_a_copy_is_told_from_a_stranger(place: Path):
    original = settings_of(place, label_studio_url="http://ls.example")
    fill(open_store(original))
    copy = settings_of(place, label_studio_url="http://staging.example")
    open_store(copy)
    assert namesakes(str(place), copy.installation_id, KEY) == ["ls.example"]
    assert namesakes(str(place), copy.installation_id, "7.1800000000") == []
    assert namesakes(str(place), original.installation_id, KEY) == []


# Older stores


@pytest.fixture
def old(place: Path) -> Path:
    """A store of a release without installations, readable by everybody."""
    fill(Store(str(place)))
    place.chmod(0o755)
    return place


def test_an_older_store_becomes_the_installations(old: Path):
    settings = settings_of(old)
    assert_filled(open_store(settings))
    assert {path.name for path in old.iterdir()} == {settings.installation_id, "locks"}
    assert_filled(open_store(settings))
    assert stat.S_IMODE(old.stat().st_mode) == 0o750


def test_a_second_installation_on_an_older_store_begins_empty(old: Path):
    assert_filled(open_store(settings_of(old)))
    second = open_store(settings_of(old, "second"))
    assert second.vectors.keys_of(["https://x/1.jpg"]) == {}
    assert HeadRegistry(second).history(KEY) == []


@pytest.mark.parametrize("after", range(8))
def test_an_interrupted_migration_is_continued(
    old: Path, monkeypatch: pytest.MonkeyPatch, after: int
):
    from backend.storage.compaction import Compactor

    calls = 0

    def interrupted(real):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls > after:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Artifacts, "move", interrupted(Artifacts.move))
        patched.setattr(Compactor, "compact", interrupted(Compactor.compact))
        with pytest.raises(KeyboardInterrupt):
            open_store(settings_of(old))
    assert_filled(open_store(settings_of(old)))


def test_who_comes_during_an_upgrade_waits_for_it(
    old: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    begun, ended = threading.Event(), threading.Event()
    migrate = migrations.migrate

    def slowly(*arguments):
        begun.set()
        assert ended.wait(30)
        migrate(*arguments)

    monkeypatch.setattr("backend.storage.installations.migrate", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(open_store, settings_of(old))
        assert begun.wait(30)
        second = pool.submit(open_store, settings_of(old))
        until(lambda: "waiting for another process" in caplog.text)
        ended.set()
        for opened in (first, second):
            assert_filled(opened.result(30))


def test_a_migration_deletes_superseded_versions(place: Path):
    store = Store(str(place))
    for number in range(20):
        store.vectors.add("e", DIM, [NewEmbedding(f"{number}.jpg", f"k{number}", embedding())])
    files = len(list(place.rglob("*.lance")))
    store = open_store(settings_of(place))
    assert len(store.vectors.keys_of([f"{number}.jpg" for number in range(20)])) == 20
    assert len(list(place.rglob("*.lance"))) < files / 4


def test_what_an_older_release_still_writes_at_the_root_is_named(old: Path):
    open_store(settings_of(old))
    Store(str(old)).vectors.add("e", DIM, [NewEmbedding("2.jpg", "key2", embedding())])
    with pytest.raises(StoreError, match="holds both ") as caught:
        open_store(settings_of(old))
    assert "older release" in caught.value.fix


def test_a_store_of_a_newer_release_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch):
    settings = settings_of(place)
    store = open_store(settings)
    record = store.artifacts.read("installation")
    assert record is not None
    newer = {**record, "layout": migrations.LAYOUT + 1}
    store.artifacts.write("installation", newer, replace=True)
    with pytest.raises(StoreError, match=f"layout {migrations.LAYOUT + 1}") as caught:
        open_store(settings)
    assert "Upgrade" in caught.value.fix
    assert store.artifacts.read("installation") == newer


def test_a_new_store_can_be_read_by_its_owner_only(place: Path):
    open_store(settings_of(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


# A Label Studio that has moved


def test_a_moved_label_studio_goes_on_with_its_work(place: Path):
    before = settings_of(place, label_studio_url="http://old.example")
    fill(open_store(before), "http://old.example/data/upload/1/a.jpg")
    after = settings_of(place, label_studio_url="https://new.example:8443")
    open_store(after)
    assert adopt(after, "old.example") == "old.example"
    assert_filled(open_store(after), "https://new.example:8443/data/upload/1/a.jpg")
    assert list(installation_names(str(place)).values()) == ["new.example:8443"]


def test_a_label_studio_is_adopted_under_all_addresses_that_it_had(place: Path):
    for url in ("http://127.0.0.1:8080", "http://localhost:8080"):
        store = open_store(settings_of(place, label_studio_url=url))
        store.vectors.add("e", DIM, [NewEmbedding(f"{url}/data/1.jpg", "key1", embedding())])
    # Named otherwise, and behind a path of its former address.
    after = settings_of(place, "prod", label_studio_url="http://localhost:8080/labels")
    for _ in range(2):
        adopt(after, "localhost:8080")
        # As if it had been interrupted before its last step.
        path = place / after.installation_id / "installation.json"
        record = {**json.loads(path.read_text()), "name": "localhost:8080"}
        urls = ["http://127.0.0.1:8080", "http://localhost:8080"]
        path.write_text(json.dumps({**record, "urls": urls}))
    found = open_store(after).tables.rows("addresses", ADDRESSES, "true")["address"].to_pylist()
    assert found == ["http://localhost:8080/labels/data/1.jpg"] * 2


def test_a_store_whose_record_is_lost_or_not_written_yet_is_not_taken_for_a_new_one(
    old: Path, monkeypatch: pytest.MonkeyPatch
):
    write = Artifacts.write

    def killed(store: Artifacts, name: str, *rest, **options):
        if name.endswith("/installation"):
            raise KeyboardInterrupt
        return write(store, name, *rest, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Artifacts, "write", killed)
        open_store(settings_of(old))
    assert migrations.root_content(Artifacts(str(old)))
    store = open_store(settings_of(old))
    assert_filled(store)
    record = Path(store.uri) / "installation.json"
    record.unlink()
    steps = []
    monkeypatch.setattr(
        "backend.storage.installations.migrate", lambda *given: steps.append(given[-1])
    )
    assert_filled(open_store(settings_of(old)))
    assert steps == [1, 2]


def test_a_damaged_record_of_another_installation_keeps_nobody_from_the_list(place: Path):
    open_store(settings_of(place, "first"))
    other = open_store(settings_of(place, "second"))
    (Path(other.uri) / "installation.json").write_text("{")
    names = installation_names(str(place))
    assert sorted(names.values())[0] == "first" and len(names) == 2


def test_work_of_ones_own_is_not_overwritten_by_adopting(place: Path):
    first = settings_of(place, label_studio_url="http://old.example")
    second = settings_of(place, label_studio_url="http://new.example")
    for settings in (first, second):
        fill(open_store(settings))
    with pytest.raises(StoreError, match="work of its own") as caught:
        adopt(second, "old.example")
    assert "LS_CLIP_INSTALLATION=old.example" in caught.value.fix
    assert_filled(open_store(second))
    with pytest.raises(StoreError, match="no other installation 'other'") as unknown:
        adopt(second, "other")
    assert "old.example" in unknown.value.fix
