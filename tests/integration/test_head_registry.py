"""Heads in the store: immutable, found again byte for byte, and one of them serves."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import SettingsError, StoreError
from backend.inference.holdout import blind_score, is_audit, is_blind
from backend.inference.prediction import logged
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.storage.head_registry import ZERO_SHOT, FittedControl, HeadRegistry
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from tests.support.builders import LABELS, choices_config, data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.heads import head_set

KEY = "1.1795416973"


@pytest.fixture
def heads(tmp_path: Path) -> HeadRegistry:
    return HeadRegistry(Store(str(tmp_path)))


def test_a_set_comes_back_as_it_was_and_is_never_written_over(heads: HeadRegistry, tmp_path: Path):
    heads.keep(KEY, head_set("h1"))
    heads.keep(KEY, head_set("h1", scale=2.0))
    found = HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    assert found.as_dict() == head_set("h1").as_dict()
    assert heads.names(KEY) == ["h1"]
    assert heads.next_name(KEY) == "h2"


def test_ten_comes_after_nine(heads: HeadRegistry):
    for number in (9, 10, 2):
        heads.keep(KEY, head_set(f"h{number}"))
    assert heads.names(KEY) == ["h2", "h9", "h10"]
    assert heads.next_name(KEY) == "h11"


def test_a_forgotten_head_does_not_live_on_under_the_name_of_the_next(
    heads: HeadRegistry, tmp_path: Path
):
    other = HeadRegistry(Store(str(tmp_path)))
    heads.keep(KEY, head_set("h1"))
    assert other.get(KEY, "h1").created == head_set("h1").created
    (tmp_path / "heads" / KEY / "h1.json").unlink()
    with pytest.raises(StoreError, match="no head"):
        other.get(KEY, "h1")
    with pytest.raises(StoreError, match="no head"):
        other.serve(KEY, "h1")
    assert other.serving(KEY) == ZERO_SHOT
    later = replace(head_set("h1", scale=2.0), created="2026-11-26T10:00:00+00:00")
    heads.keep(KEY, later)
    assert other.get(KEY, "h1").as_dict() == later.as_dict()


def test_a_copy_of_a_heads_file_is_no_head(heads: HeadRegistry, tmp_path: Path):
    heads.keep(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    for name in ("h1 copy.json", "h01.json", "notes.json"):
        (path.parent / name).write_text(path.read_text())
    assert heads.names(KEY) == ["h1"]
    assert heads.next_name(KEY) == "h2"


def test_a_damaged_head_names_the_way_back(heads: HeadRegistry, tmp_path: Path):
    heads.keep(KEY, head_set("h1"))
    path = tmp_path / "heads" / KEY / "h1.json"
    path.write_text(path.read_text().replace('"encoder": "stub"', '"encoder": "other"'))
    with pytest.raises(StoreError, match="rollback"):
        HeadRegistry(Store(str(tmp_path))).get(KEY, "h1")
    with pytest.raises(StoreError, match="no head 'h7'"):
        heads.get(KEY, "h7")


def test_the_pointer_keeps_its_history(heads: HeadRegistry):
    assert heads.serving(KEY) == ZERO_SHOT
    for name in ("h1", "h2"):
        heads.keep(KEY, head_set(name))
    heads.serve(KEY, "h1")
    heads.serve(KEY, "h1")
    heads.serve(KEY, ZERO_SHOT)
    assert heads.history(KEY) == [ZERO_SHOT, "h1", ZERO_SHOT]
    assert heads.serving(KEY) == ZERO_SHOT
    for name in ("h1", "h2"):
        heads.keep(KEY, head_set(name))


def test_two_processes_agree_right_after_a_promotion_and_after_a_rollback(
    make_runtime: MakeRuntime,
):
    config = parse_config(choices_config())
    one, two = make_runtime(), make_runtime()
    task = {"id": 1, "data": {"image": data_uri(1)}}

    def answers() -> list[tuple[str, object]]:
        return [
            (found.model_version, found.result)
            for house in (one, two)
            for found in Predictor(house.versions.get(config, KEY), house.embedder).predict([task])
        ]

    before = answers()
    assert before[0] == before[1]
    encoder = one.encoder
    one.versions.heads.keep(KEY, head_set("h1", encoder.id, encoder.dim))
    assert answers() == before
    one.versions.heads.serve(KEY, "h1")
    after = answers()
    assert after[0] == after[1]
    assert after != before
    assert "-h1-" in after[0][0]
    two.versions.heads.serve(KEY, ZERO_SHOT)
    assert answers() == before


def test_a_head_of_another_encoder_is_refused(
    make_runtime: MakeRuntime, caplog: pytest.LogCaptureFixture
):
    runtime = make_runtime()
    config = parse_config(choices_config())
    before = runtime.versions.get(config, KEY).name
    runtime.versions.heads.keep(KEY, head_set("h1", "another encoder", 3))
    with pytest.raises(SettingsError, match="another encoder") as refused:
        runtime.versions.get(config, KEY, "h1")
    assert "ls-clip train" in refused.value.fix
    # Whoever waits for an answer gets one all the same, and the log says why it is zero-shot.
    runtime.versions.heads.serve(KEY, "h1")
    assert runtime.versions.get(config, KEY).name == before
    assert [record.levelname for record in caplog.records if "h1" in record.message] == ["ERROR"]


def test_a_label_added_in_mid_project_starts_at_zero_shot_and_the_others_keep_their_head(
    make_runtime: MakeRuntime,
):
    house = make_runtime()
    house.versions.heads.keep(KEY, head_set("h1", house.encoder.id, house.encoder.dim))
    house.versions.heads.serve(KEY, "h1")
    config = parse_config(choices_config("new", *LABELS[1:]))
    version = house.versions.get(config, KEY)
    head = version.heads["tags"].head
    assert head.card.labels == ("new", *LABELS[1:])
    row = version.table.row(False, len(LABELS))
    assert (float(head.slope[0]), float(head.offset[0])) == pytest.approx((row.slope, row.offset))
    assert not head.weight[0].any()
    assert head.weight[1:].all()


@pytest.mark.parametrize(("seen", "suggested"), [(0, False), (4, False), (5, True)])
def test_a_label_that_the_encoder_cannot_read_is_suggested_once_the_head_has_learned_it(
    make_runtime: MakeRuntime, seen: int, suggested: bool
):
    runtime = make_runtime()
    names = (*LABELS[:-1], "犬")
    base = head_set("h1", runtime.encoder.id, runtime.encoder.dim)
    fitted = base.controls["tags"]
    card = replace(fitted.head.card, labels=names, counts={"犬": seen, "(rows)": 40})
    control = FittedControl(replace(fitted.head, card=card), (0.0,) * len(names))
    made = replace(base, controls={"tags": control})
    runtime.versions.heads.keep(KEY, made)
    runtime.versions.heads.serve(KEY, "h1")
    config = parse_config(choices_config(*names))
    task = {"id": 1, "data": {"image": data_uri(1)}}
    (found,) = Predictor(runtime.versions.get(config, KEY), runtime.embedder).predict([task])
    assert found.result is not None
    ticked = found.result[0]["value"]["choices"]
    assert ("犬" in ticked) == suggested
    assert set(LABELS[:-1]) <= set(ticked)


def test_many_trainings_at_once_lose_no_head(heads: HeadRegistry):
    def train(number: int) -> None:
        heads.keep(KEY, head_set(f"h{number}"))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heads.names(KEY)) == 8


# Slices


def test_slices_are_the_same_for_ever_and_about_as_large_as_asked():
    tasks = range(1, 5001)
    blind = {task for task in tasks if is_blind(KEY, task, 0.05)}
    assert blind == {task for task in tasks if is_blind(KEY, task, 0.05)}
    assert 200 < len(blind) < 300
    # A larger share holds the smaller one.
    assert blind < {task for task in tasks if is_blind(KEY, task, 0.1)}
    assert blind != {task for task in tasks if is_audit(KEY, task, 0.05)}
    assert not any(is_blind(KEY, task, 0.0) for task in tasks)


def test_blind_scores_lie_among_the_others():
    scores = [blind_score(KEY, task, "v1") for task in range(1000)]
    assert 0.2 <= min(scores) < 0.3
    assert max(scores) > 0.95
    assert blind_score(KEY, 1, "v1") != blind_score(KEY, 1, "v2")


def test_a_blind_task_is_answered_with_nothing_and_kept_as_blind(make_runtime: MakeRuntime):
    house = make_runtime(blind_share=0.5)
    version = house.versions.get(parse_config(choices_config()), KEY)
    tasks = [{"id": number, "data": {"image": data_uri(number)}} for number in range(1, 21)]
    found = Predictor(version, house.embedder).predict(tasks)
    for one in found:
        assert one.task is not None
        assert one.blind == is_blind(KEY, one.task, 0.5)
        assert not one.blind or one.result == []
    house.prediction_log.add(KEY, logged(found))
    kept = house.prediction_log.of_tasks(KEY, range(1, 21))
    for (task, _), one in kept.items():
        assert (one.choices is None) == is_blind(KEY, task, 0.5)


# Memory


def test_labels_have_an_age(tmp_path: Path):
    memory = ProjectState(Store(str(tmp_path)), KEY)
    first = parse_config(choices_config("cat", "dog"))
    assert memory.labels_since(first, 100.0) == {"tags": {"cat": 0.0, "dog": 0.0}}
    more = parse_config(choices_config("cat", "dog", "tree"))
    assert memory.labels_since(more, 200.0)["tags"] == {"cat": 0.0, "dog": 0.0, "tree": 200.0}
    assert memory.labels_since(more, 300.0)["tags"]["tree"] == 200.0
    memory.labels_since(parse_config(choices_config("cat")), 400.0)
    assert memory.labels_since(more, 500.0)["tags"]["dog"] == 500.0


def test_a_known_label_is_ticked_whatever_the_model_thinks(make_runtime: MakeRuntime):
    house = make_runtime(threshold=1.0)
    config = parse_config(choices_config())
    before = house.versions.get(config, KEY).name
    ProjectState(house.store, KEY).set_known_field("category")
    version = house.versions.get(config, KEY)
    assert version.name != before
    task = {"id": 1, "data": {"image": data_uri(1), "category": LABELS[2]}}
    (one,) = Predictor(version, house.embedder).predict([task])
    assert one.result is not None
    assert one.result[0]["value"] == {"choices": [LABELS[2]]}
    assert one.probabilities["tags"][LABELS[2]] == 1.0


def test_forgetting_a_project_erases_its_heads(make_runtime: MakeRuntime):
    house = make_runtime()
    house.versions.heads.keep(KEY, head_set("h1"))
    house.versions.heads.serve(KEY, "h1")
    memory = ProjectState(house.store, KEY)
    memory.set_trained_on({1: "x"}, "y")
    memory.set_known_field("category")
    since = memory.labels_since(parse_config(choices_config("cat")), 100.0)
    house.prediction_log.purge("1.")
    assert house.versions.heads.names(KEY) == []
    assert house.versions.heads.serving(KEY) == ZERO_SHOT
    assert memory.trained_on() == ({}, "")
    # What is a setting stays: old reviews would be misread without it.
    assert memory.known_field() == "category"
    assert memory.labels_since(parse_config(choices_config("cat")), 900.0) == since


def test_another_head_of_the_same_name_is_not_taken_for_the_former(make_runtime: MakeRuntime):
    heads = make_runtime().versions.heads
    heads.keep(KEY, head_set("h1"))
    assert heads.get(KEY, "h1").approvals == head_set("h1").approvals
    make_runtime().prediction_log.purge("1.")
    with pytest.raises(StoreError, match="no head 'h1'"):
        heads.get(KEY, "h1")
    heads.keep(KEY, replace(head_set("h1"), approvals=1234))
    assert heads.get(KEY, "h1").approvals == 1234
