"""Today's code does what the recordings say, and opens what that of another day has written."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs.key_migration import adopt_former_keys
from tests.golden import adapter, cases
from tests.golden.normal import differences
from tests.golden.record import RECORDINGS, file_of
from tests.golden.recordings import DATA, STORE
from tests.support.queues import reconcile_now

OTHER_CPU = 2e-6
"""Scores from stored embeddings may differ by so much on another processor."""
SHORTER_REGIONS = 0.01
"""The store was written with regions as float16; a migration made them int8."""
THEN = "offline-h1-a14dd60c"
"""The model version, of that store's head, that its predictions have."""
TRAINED_HERE = 0.02
"""What is trained, or encoded, during the test: probabilities, and rates in texts."""
TRAINED_THEN = 0.1
"""The same, where an earlier release chose its penalty and its anchor differently."""


def recorded(name: str) -> Any:
    return json.loads(file_of(name).read_text())


@pytest.mark.parametrize("name", ["configs", "predictions", "routes"])
@pytest.mark.filterwarnings("ignore:lancedb fork support:RuntimeWarning")
def test_everything_is_as_it_was_recorded(name: str, tmp_path: Path):
    found = json.loads(json.dumps(RECORDINGS[name](tmp_path)))
    assert differences(found, recorded(name), OTHER_CPU) == []


@pytest.mark.filterwarnings("ignore:lancedb fork support:RuntimeWarning")
def test_every_command_says_what_was_recorded(tmp_path: Path):
    found = json.loads(json.dumps(RECORDINGS["commands"](tmp_path)))
    wanted = recorded("commands")
    photos, before = found.pop("photos"), wanted.pop("photos")
    assert differences(found, wanted, TRAINED_HERE) == []
    # Percentages there; ranks may change on another processor.
    assert differences(photos, before, 1.0) == []


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that another day's code has written."""
    return adapter.copy_store(STORE, tmp_path / "store")


def test_heads_of_an_older_store_are_found(store: Path):
    found = adapter.heads(store, cases.TRAINED)
    assert found["names"] == ["h1", "h2"] and found["next"] == "h3"
    assert (found["serving"], found["history"]) == ("h1", ["zero-shot", "h1"])
    assert (found["accepted"], found["is_back"]) == ("", False)
    assert [one["accepted"] for one in found["sets"]] == [True, False]
    assert [one["provenance"] for one in found["sets"]] == [{"unaided": 36}, {"imported": 36}]
    written = json.loads((STORE / "heads" / cases.TRAINED / "h1.json").read_text())
    # A release before clicks were counted wrote it.
    expected = {name: written.get(name) for name in found["sets"][0]}
    assert {"clicks", "serving_clicks"} & set(written) == set()
    assert found["sets"][0] == {**expected, "encoder": adapter.make_runtime(store).encoder.id}
    assert found["cards"][0]["tags"]["labels"] == adapter.DEMO_LABELS
    assert found["thresholds"][0]["tags"] == written["controls"]["tags"]["thresholds"]
    assert adapter.heads(store, cases.BARE)["names"] == []


def test_images_of_an_older_store_need_not_be_fetched(store: Path):
    house = adapter.make_runtime(store)
    values = [*map(cases.address, cases.ALL), cases.UPLOAD, cases.CLOUD, "http://x.test/no.jpg"]
    found = adapter.stored(house, values)
    assert [value for value, there in found["there"].items() if not there] == [values[-1]]
    (table,) = (STORE / "tables").glob("*.json")
    written = json.loads(table.read_text())
    for row in ("with_statistics", "without_statistics"):
        # Thresholds of a table are not used any more.
        del written[row]["threshold"]
    assert {name: found["table"][name] for name in written} == written


def test_versions_of_an_older_store_are_the_same(store: Path):
    house = adapter.make_runtime(store)
    wanted = recorded("predictions")["versions"]
    assert adapter.version(house, cases.PLAIN, cases.TRAINED) == wanted[f"{cases.TRAINED} plain"]
    assert "-h1-" in wanted[f"{cases.TRAINED} plain"]


def test_what_an_older_store_remembers_is_read(store: Path):
    found = adapter.memory(store, cases.TRAINED, cases.EVIDENT)
    assert sorted(found["trained_on"]) == sorted(map(str, cases.ALL))
    assert found["made_from"] and found["known_field"] == ""
    assert found["labels_since"] == {"tags": dict.fromkeys(adapter.DEMO_LABELS, 0.0)}
    assert adapter.memory(store, cases.KNOWN, cases.EVIDENT)["known_field"] == cases.KNOWN_FIELD


def test_snapshots_of_an_older_store_are_what_is_predicted_today(store: Path):
    house = adapter.make_runtime(store)
    kept = adapter.snapshots(house, cases.TRAINED, range(1, 5))
    assert len(kept) == 8
    today = adapter.predict(house, cases.EVIDENT, cases.TRAINED, cases.tasks(*range(1, 5)))
    for one in today:
        (same,) = (
            shown
            for shown in kept
            if (shown["task"], shown["model_version"]) == (one["task"], THEN)
        )
        assert same["score"] == pytest.approx(one["item"]["score"], abs=SHORTER_REGIONS)
        assert same["choices"]["tags"] == one["item"]["result"][0]["value"]["choices"]
    blind = adapter.snapshots(house, cases.MEASURED, range(1, 9))
    assert any(one["choices"] is None for one in blind)
    assert adapter.keeps(house, cases.TRAINED, [36])
    assert not adapter.keeps(house, cases.TRAINED, [37])


def test_files_of_an_older_run_are_read(store: Path):
    found = adapter.run_files(store, cases.RUN, 0, THEN)
    assert found["digest"] == adapter.parsed_config(cases.EVIDENT)["digest"]
    some = cases.tasks(*range(1, 6))
    assert found["tasks"] == [{**one, "images": [one["data"]["image"]]} for one in some]
    wanted = [one["import"] for one in recorded("predictions")["head"][:5]]
    for one, today in zip(found["predictions"].values(), wanted, strict=True):
        assert (one["task"], one["model_version"]) == (today["task"], THEN)
        assert one["score"] == pytest.approx(today["score"], abs=SHORTER_REGIONS)
        assert one["result"][0] == today["result"][0]


def test_the_same_approvals_train_a_head_much_like_it(store: Path, tmp_path: Path):
    photos = adapter.demo_photos(tmp_path / "images", cases.PHOTOS)
    truth = {n: {**cases.task(n)["data"], "labels": photos[n - 1][1]} for n in cases.ALL}
    house = adapter.make_runtime(store, audit_share=0.0)
    (Path(house.store.uri) / "projects" / cases.TRAINED / "serving.json").unlink()
    made = adapter.train(house, cases.EVIDENT, cases.TRAINED, truth, "unaided")["made"]
    before = adapter.heads(store, cases.TRAINED)["sets"][0]
    own = {name: made[name] for name in ("created", "metrics", "reason")}
    assert made == {**before, "name": "h3", **own}
    assert made["reason"].startswith("compared with zero-shot: too few to tell")
    assert made["metrics"] == pytest.approx(before["metrics"], abs=TRAINED_HERE)
    some = cases.tasks(*range(1, 9))
    one, other = (
        [p["probabilities"] for p in adapter.predict(house, cases.EVIDENT, cases.TRAINED, some, h)]
        for h in ("h1", "h3")
    )
    assert differences(other, one, TRAINED_THEN) == []


# A Redis of another day


def _bytes(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"])
    return value


@pytest.fixture
def redis(connection: Redis) -> Redis:
    """A Redis with what another day's code has written."""
    for key, kept in json.loads((DATA / "redis-v1.json").read_text()).items():
        value = kept["value"]
        if kept["type"] == "string":
            connection.set(key, _bytes(value))
        elif kept["type"] == "hash":
            connection.hset(key, mapping={name: _bytes(one) for name, one in value.items()})
        elif kept["type"] == "set":
            connection.sadd(key, *map(_bytes, value))
        elif kept["type"] == "zset":
            connection.zadd(key, {_bytes(member): score for member, score in value})
        elif kept["type"] == "list":
            connection.rpush(key, *map(_bytes, value))
        if kept["expires"]:
            connection.expire(key, 3600)
    adopt_former_keys(connection)
    return connection


def test_runs_of_an_older_redis_are_read_with_all_fields(redis: Redis):
    cancelled, finished = adapter.all_runs(redis, 1)
    assert (cancelled["fields"]["state"], cancelled["fields"]["only"]) == ("cancelled", "all")
    fields = finished["fields"]
    assert (fields["state"], fields["only"], fields["asked_by"]) == ("done", "missing", "cli")
    assert (fields["listed"], fields["imported"], fields["cached"], fields["failed"]) == (
        36,
        36,
        36,
        0,
    )
    assert fields["key"] == cases.TRAINED and fields["error"] is None
    assert fields["model_version"] == THEN
    assert 0 < fields["created"] < fields["ended"] <= fields["updated"]
    assert all(one["found_by_prefix"] for one in (cancelled, finished))


def test_a_run_of_an_older_redis_can_go_on(redis: Redis):
    (run,) = adapter.all_runs(redis, 7)
    fields = run["fields"]
    wanted = {
        **{"project": 7, "only": "unlabelled", "asked_by": "connect", "state": "embedding"},
        **{"model_version": "golden-z-00000000", "planned_version": "golden-z-00000000"},
        **{"listed": 48, "embedded": 14, "cached": 5, "imported": 0, "failed": 2, "shards": 3},
        **{"shards_done": 1, "error": None, "notes": [], "ended": 0.0, "head": "h3"},
        **{"waits_for": "Label Studio does not answer.", "key": "7.1795416973"},
        **{"config": "0123456789abcdef", "encoder": "golden-encoder", "left_out": 3},
        **{"sending": 9, "sent_to": 4},
    }
    assert {name: fields[name] for name in wanted} == wanted
    later = {"revalidate", "revalidated", "changed", "rewritten"}
    assert set(fields) - set(wanted) - later == {"id", "created", "updated", "working"}
    assert [shard["done"] for shard in run["shards"]] == [True, False, False]
    assert run["shards"][0] | {"number": 0, "tasks": 16, "embedded": 10} == run["shards"][0]
    assert list(run["failures"]) == ["8", "70"]
    assert run["failures"]["8"]["message"] == "It is cut."
    assert sorted(run["attempts"].values()) == [0, 0, 2]
    assert run["not_before"] == 4102444800.0
    assert adapter.active_runs(redis) == [fields["id"]]
    assert adapter.deadly(redis, fields["id"], 1) == ["http://photos.test/deadly.jpg"]
    assert len(adapter.deadly(redis, fields["id"], 2)) == 2
    assert adapter.current_config(redis, 7) == "0123456789abcdef"


def test_what_an_older_redis_had_in_progress_is_enqueued_again(redis: Redis):
    # Its jobs are gone; the pause of the training and of a shard was to last until 2100.
    assert adapter.waiting_jobs(redis) == {"predict": [], "train": []}
    reconcile_now(redis)
    waiting = adapter.waiting_jobs(redis)
    assert any("-shard-" in job for job in waiting["predict"])
    assert any(job.startswith("8-train") for job in waiting["train"])
    assert set(adapter.waiting_functions(redis)) <= set(adapter.runnable())


def test_trainings_of_an_older_redis_are_read(redis: Redis):
    ended, asked = (adapter.training(redis, project)["fields"] for project in (1, 8))
    wanted = {
        **{"state": "idle", "outcome": "accepted", "reason": "no worse", "notes": ["a", "b"]},
        **{"head": "h1", "candidate": "h1", "run": "", "refreshed": 1795416999.5, "pending": 7},
        **{"enough": 25, "asked": 1, "served": 1, "looked": "['x'] 36 36", "project": 1},
        **{"attempts": 0, "not_before": 0.0, "waits_for": ""},
        **{"clicks": None, "serving_clicks": None},
    }
    assert ended == {**wanted, "ended": ended["ended"]} and ended["ended"] > 1.7e9
    assert (asked["state"], asked["asked"], asked["served"], asked["pending"]) == (
        "queued",
        1,
        0,
        4,
    )
    assert (asked["attempts"], asked["not_before"]) == (1, 4102444800.0)
    assert adapter.active_trainings(redis) == [8]


def test_what_is_due_in_an_older_redis_is_known(redis: Redis):
    assert adapter.due_is_known(redis)
    found = adapter.due_moments(redis, 1)
    assert set(found) == {"train", "late", "forced", "predict", "refresh", "reconcile"}
    assert found["refresh"] == 4102444804.0
    assert adapter.due_moments(redis, 8) == {"reconcile": 4102444900.0}
