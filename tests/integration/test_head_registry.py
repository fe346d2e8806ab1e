"""Heads in the store: immutable, found again byte for byte, and one of them serves."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.encoders.table import Scores
from backend.errors import SettingsError, StoreError
from backend.inference.predictor import Predictor
from backend.labels.config import LabelConfig, parse_config
from backend.runtime import Runtime
from backend.storage.artifacts import Artifacts
from backend.storage.head_registry import ZERO_SHOT, HeadRegistry
from backend.storage.head_set import FittedControl
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from tests.support.builders import LABELS, choices_config, data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.heads import head_set

KEY = "1.1795416973"
BACK = {"rollback": True}


@pytest.fixture
def heads(tmp_path: Path) -> HeadRegistry:
    return HeadRegistry(Store(str(tmp_path)))


def predictor_of(runtime: Runtime, config: LabelConfig) -> Predictor:
    return Predictor(runtime.versions.get(config, KEY), runtime.embedder)


@pytest.mark.parametrize("key", ["x" * 3000, "../../etc", "", "猫/犬"])
def test_a_key_that_is_no_file_name_is_a_project_like_others(
    heads: HeadRegistry, tmp_path: Path, key: str
):
    heads.save(key, head_set("h1"))
    assert heads.names(key) == ["h1"]
    assert heads.names(key + "x") == []
    assert {path.name for path in tmp_path.iterdir()} <= {"heads", "generation.json"}


def test_a_set_comes_back_as_it_was_and_is_never_written_over(heads: HeadRegistry, tmp_path: Path):
    heads.save(KEY, head_set("h1"))
    heads.save(KEY, head_set("h1", scale=2.0))
    read = HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    assert read.as_dict() == head_set("h1").as_dict()
    assert heads.names(KEY) == ["h1"]
    assert heads.next_name(KEY) == "h2"


def test_ten_comes_after_nine(heads: HeadRegistry):
    for number in (9, 10, 2):
        heads.save(KEY, head_set(f"h{number}"))
    assert heads.names(KEY) == ["h2", "h9", "h10"]
    assert heads.next_name(KEY) == "h11"


def test_a_forgotten_head_does_not_live_on_under_the_name_of_the_next(
    heads: HeadRegistry, tmp_path: Path
):
    other = HeadRegistry(Store(str(tmp_path)))
    heads.save(KEY, head_set("h1"))
    assert other.get(KEY, "h1").created == head_set("h1").created
    (tmp_path / "heads" / KEY / "h1.json").unlink()
    with pytest.raises(StoreError, match="no head"):
        other.get(KEY, "h1")
    with pytest.raises(StoreError, match="no head"):
        other.set_serving(KEY, "h1")
    assert other.serving(KEY) == ZERO_SHOT
    later = replace(head_set("h1", scale=2.0), created="2026-11-26T10:00:00+00:00")
    heads.save(KEY, later)
    assert other.get(KEY, "h1").as_dict() == later.as_dict()


def test_a_copy_of_a_heads_file_is_no_head(heads: HeadRegistry, tmp_path: Path):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    for name in ("h1 copy.json", "h01.json", "notes.json"):
        (path.parent / name).write_text(path.read_text())
    assert heads.names(KEY) == ["h1"]
    assert heads.next_name(KEY) == "h2"


def test_a_damaged_head_names_the_way_back(heads: HeadRegistry, tmp_path: Path):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    path.write_text(path.read_text().replace('"encoder": "stub"', '"encoder": "other"'))
    with pytest.raises(StoreError, match="rollback"):
        HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    with pytest.raises(StoreError, match="no head 'h7'"):
        heads.get(KEY, "h7")


def test_a_head_without_a_schema_version_is_of_the_first(heads: HeadRegistry, tmp_path: Path):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    content = json.loads(path.read_text())
    assert content.pop("schema") == 1
    path.write_text(json.dumps(content))
    read = HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    assert read.as_dict() == head_set("h1").as_dict()


def test_a_head_of_a_newer_schema_version_is_refused_with_the_fix(
    heads: HeadRegistry, tmp_path: Path
):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2, "controls": []}))
    with pytest.raises(StoreError, match="newer version") as caught:
        HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    assert "Update" in caught.value.fix


def test_the_pointer_keeps_its_history(heads: HeadRegistry):
    assert heads.serving(KEY) == ZERO_SHOT
    for name in ("h1", "h2"):
        heads.save(KEY, head_set(name))
    heads.set_serving(KEY, "h1")
    heads.set_serving(KEY, "h1")
    heads.set_serving(KEY, ZERO_SHOT)
    assert heads.history(KEY) == [ZERO_SHOT, "h1", ZERO_SHOT]
    assert heads.serving(KEY) == ZERO_SHOT
    for name in ("h1", "h2"):
        heads.save(KEY, head_set(name))


def test_two_processes_agree_right_after_a_promotion_and_after_a_rollback(
    make_runtime: MakeRuntime,
):
    config = parse_config(choices_config())
    first, second = make_runtime(), make_runtime()
    task = {"id": 1, "data": {"image": data_uri(1)}}

    def answers() -> list[tuple[str, object]]:
        return [
            (prediction.model_version, prediction.result)
            for runtime in (first, second)
            for prediction in predictor_of(runtime, config).predict([task])
        ]

    before = answers()
    assert before[0] == before[1]
    encoder = first.encoder
    first.versions.heads.save(KEY, head_set("h1", encoder.id, encoder.dim))
    assert answers() == before
    first.versions.heads.set_serving(KEY, "h1")
    after = answers()
    assert after[0] == after[1]
    assert after != before
    assert "-h1-" in after[0][0]
    second.versions.heads.set_serving(KEY, ZERO_SHOT)
    assert answers() == before


def test_a_head_of_another_encoder_is_refused(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    runtime = make_runtime()
    config = parse_config(choices_config())
    before = runtime.versions.get(config, KEY).name
    runtime.versions.heads.save(KEY, head_set("h1", "another encoder", 3))
    with pytest.raises(SettingsError, match="another encoder") as refused:
        runtime.versions.get(config, KEY, "h1")
    assert "ls-clip train" in refused.value.fix
    # Whoever waits for an answer gets one all the same, and the log says why it is zero-shot.
    runtime.versions.heads.set_serving(KEY, "h1")
    assert runtime.versions.get(config, KEY).name == before
    assert [record.levelname for record in caplog.records if "h1" in record.message] == ["ERROR"]


def test_a_label_added_in_mid_project_starts_at_zero_shot_and_the_others_keep_their_head(
    make_runtime: MakeRuntime,
):
    runtime = make_runtime()
    runtime.versions.heads.save(KEY, head_set("h1", runtime.encoder.id, runtime.encoder.dim))
    runtime.versions.heads.set_serving(KEY, "h1")
    config = parse_config(choices_config("new", *LABELS[1:]))
    version = runtime.versions.get(config, KEY)
    head = version.heads["tags"].head
    assert head.card.labels == ("new", *LABELS[1:])
    row = version.table.row(Scores.BARE, len(LABELS))
    assert (float(head.slope[0]), float(head.offset[0])) == pytest.approx((row.slope, row.offset))
    assert not head.weight[0].any()
    assert head.weight[1:].all()


@pytest.mark.parametrize(("seen", "suggested"), [(0, False), (5, False), (6, True)])
def test_a_label_that_the_encoder_cannot_read_is_suggested_once_the_head_has_learned_it(
    make_runtime: MakeRuntime, seen: int, suggested: bool
):
    runtime = make_runtime()
    names = (*LABELS[:-1], "犬")
    base = head_set("h1", runtime.encoder.id, runtime.encoder.dim)
    fitted = base.controls["tags"]
    card = replace(fitted.head.card, labels=names, counts={"犬": seen, "(rows)": 40})
    control = FittedControl(replace(fitted.head, card=card), (0.0,) * len(names))
    learned = replace(base, controls={"tags": control})
    runtime.versions.heads.save(KEY, learned)
    runtime.versions.heads.set_serving(KEY, "h1")
    config = parse_config(choices_config(*names))
    task = {"id": 1, "data": {"image": data_uri(1)}}
    (prediction,) = predictor_of(runtime, config).predict([task])
    assert prediction.result is not None
    ticked = prediction.result[0]["value"]["choices"]
    assert ("犬" in ticked) == suggested
    assert set(LABELS[:-1]) <= set(ticked)


def test_many_trainings_at_once_lose_no_head(heads: HeadRegistry):
    def train(number: int) -> None:
        heads.save(KEY, head_set(f"h{number}"))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heads.names(KEY)) == 8


def test_purging_a_project_erases_its_heads(make_runtime: MakeRuntime):
    runtime = make_runtime()
    runtime.versions.heads.save(KEY, head_set("h1"))
    runtime.versions.heads.set_serving(KEY, "h1")
    state = ProjectState(runtime.store, KEY)
    state.set_trained_on({1: "x"}, "y")
    state.set_known_field("category")
    since = state.labels_since(parse_config(choices_config("cat")).label_keys(), 100.0)
    runtime.prediction_log.purge("1.")
    assert runtime.versions.heads.names(KEY) == []
    assert runtime.versions.heads.serving(KEY) == ZERO_SHOT
    assert state.trained_on() == ({}, "")
    # What is a setting stays: old reviews would be misread without it.
    assert state.known_field() == "category"
    assert state.labels_since(parse_config(choices_config("cat")).label_keys(), 900.0) == since


def test_another_head_of_the_same_name_is_not_taken_for_the_former(make_runtime: MakeRuntime):
    heads = make_runtime().versions.heads
    heads.save(KEY, head_set("h1"))
    assert heads.get(KEY, "h1").approvals == head_set("h1").approvals
    make_runtime().prediction_log.purge("1.")
    with pytest.raises(StoreError, match="no head 'h1'"):
        heads.get(KEY, "h1")
    heads.save(KEY, replace(head_set("h1"), approvals=1234))
    assert heads.get(KEY, "h1").approvals == 1234


@pytest.mark.parametrize("thresholds", [[], [0.3], [0.3, 0.3, float("nan")], None])
def test_a_head_without_a_threshold_for_each_label_is_damaged(
    heads: HeadRegistry, tmp_path: Path, thresholds: object
):
    heads.save(KEY, head_set("h1"))
    file = tmp_path / "heads" / KEY / "h1.json"
    content = json.loads(file.read_text())
    content["controls"]["tags"]["thresholds"] = thresholds
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="damaged"):
        HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")


@pytest.mark.parametrize(
    "damage",
    [
        {"clicks": {"tasks": 3}},
        {"clicks": 7},
        {"serving_clicks": []},
        {"labels": {"tags": [{"label": "cat"}]}},
        {"labels": ["tags"]},
    ],
)
def test_damaged_figures_damage_the_head(heads: HeadRegistry, tmp_path: Path, damage: Any):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(StoreError, match="damaged"):
        HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")


def test_a_head_of_a_release_that_measured_neither_clicks_nor_labels_is_read(
    heads: HeadRegistry, tmp_path: Path
):
    heads.save(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    content = json.loads(path.read_text())
    for name in ("clicks", "serving_clicks", "labels"):
        del content[name]
    path.write_text(json.dumps(content))
    read = HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    assert (read.clicks, read.serving_clicks, read.labels) == (None, None, {})


@pytest.mark.parametrize("history", ["h1", None, [1], {"h1": 1}])
def test_a_damaged_pointer_is_named(heads: HeadRegistry, tmp_path: Path, history: object):
    heads.save(KEY, head_set("h1"))
    heads.set_serving(KEY, "h1")
    for name in ("serving", "serving-copy"):
        file = tmp_path / "projects" / KEY / f"{name}.json"
        file.write_text(json.dumps({"history": history}))
    with pytest.raises(StoreError, match="damaged") as caught:
        heads.serving(KEY)
    assert "serving.json" in caught.value.message


# Changes by several processes


def test_a_rollback_outlasts_a_training_that_decides_at_the_same_moment(
    heads: HeadRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("h1", "h2"):
        heads.save(KEY, head_set(name))
    heads.set_serving(KEY, "h2")
    trainer = HeadRegistry(Store(str(tmp_path)))
    written = []
    write = Artifacts.write

    def meanwhile(artifacts: Artifacts, *arguments: Any, **options: Any) -> Any:
        # The training has read the pointer; before it writes, a person rolls back.
        if not written:
            written.append(
                threading.Thread(target=heads.set_serving, args=(KEY, "h1"), kwargs=BACK)
            )
            written[0].start()
            written[0].join(0.5)
        return write(artifacts, *arguments, **options)

    monkeypatch.setattr(Artifacts, "write", meanwhile)
    trainer.set_candidate(KEY, "h3")
    written[0].join(60)
    assert heads.serving(KEY) == "h1"
    assert heads.rolled_back(KEY)
    assert heads.candidate(KEY) == ""


def test_a_withdrawn_candidate_is_named(heads: HeadRegistry):
    heads.set_candidate(KEY, "h3")
    assert heads.withdraw_candidate(KEY) == "h3"
    assert heads.withdraw_candidate(KEY) == ""
