"""Blind and audit tasks: which they are, and what is predicted and logged for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from backend.errors import StoreError
from backend.inference.confidence_freezing import freeze_confidences
from backend.inference.holdout import blind_score, is_audit, is_blind
from backend.inference.model_version import ModelVersion
from backend.inference.prediction import logged
from backend.inference.predictor import Predictor
from backend.labels.config import EVIDENCE_NAME, parse_config
from backend.runtime import Runtime
from backend.storage.check import check_store
from backend.storage.prediction_log import PredictionLog
from backend.vlpl.confidences import Confidences
from tests.support.builders import EVIDENCE, LABELS, choices_config, data_uri
from tests.support.fixtures import MakeRuntime

KEY = "1.1795416973"
CONFIG = choices_config(extra=EVIDENCE)


def test_a_task_stays_in_or_out_of_the_holdout_and_the_share_is_about_as_asked():
    tasks = range(1, 5001)
    blind = {task for task in tasks if is_blind(KEY, task, 0.05)}
    assert blind == {task for task in tasks if is_blind(KEY, task, 0.05)}
    assert 200 < len(blind) < 300
    # A larger share holds the smaller one.
    assert blind < {task for task in tasks if is_blind(KEY, task, 0.1)}
    assert blind != {task for task in tasks if is_audit(KEY, task, 0.05)}
    assert not any(is_blind(KEY, task, 0.0) for task in tasks)


@pytest.mark.parametrize(("low", "high"), [(0.95, 0.999), (0.05, 0.1), (0.5, 0.5)])
def test_blind_scores_are_spread_as_those_of_the_project(low: float, high: float):
    confidences = Confidences.of([low + (high - low) * step / 400 for step in range(401)])
    scores = sorted(blind_score(KEY, task, "v1", confidences) for task in range(2000))
    assert low <= scores[0] and scores[-1] <= high
    middle = (low + high) / 2
    assert abs(scores[1000] - middle) <= 0.05 * (high - low)
    if low < high:
        assert blind_score(KEY, 1, "v1", confidences) != blind_score(KEY, 1, "v2", confidences)


def test_blind_scores_before_there_is_anything_to_measure_lie_in_the_documented_range():
    scores = [blind_score(KEY, task, "v1", None) for task in range(1000)]
    assert 0.2 <= min(scores) < 0.3
    assert max(scores) > 0.95


def test_quantiles_survive_the_store_and_damaged_ones_are_refused():
    confidences = Confidences.of([0.25, 0.5, 0.125])
    assert Confidences.from_dict(confidences.as_dict()) == confidences
    for quantiles in ([0.5], [0.5] * 100 + [0.4], [0.1] * 100 + [2.0], [float("nan")] * 101):
        with pytest.raises(ValueError, match="quantiles"):
            Confidences.from_dict({"quantiles": quantiles, "count": 3})


def frozen(runtime: Runtime, tasks: list[dict[str, Any]]) -> ModelVersion:
    """The project's version once all that can be measured has been."""
    config = parse_config(CONFIG)
    runtime.embedder.fill([task["data"]["image"] for task in tasks])
    runtime.versions.statistics.freeze(config, KEY, tasks, runtime.embedder.stored)
    freeze_confidences(runtime.versions, runtime.versions.get(config, KEY), tasks, runtime.embedder)
    return runtime.versions.get(config, KEY)


def tasks_of(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "data": {"image": data_uri(number)}} for number in range(1, count + 1)]


def test_blind_tasks_come_no_earlier_than_the_others_in_a_confident_project(
    make_runtime: MakeRuntime,
):
    # Above every probability: nothing is ticked, and the confidences are what they are.
    runtime = make_runtime(blind_share=0.5, threshold=1.0)
    tasks = tasks_of(60)
    version = frozen(runtime, tasks)
    predictions = Predictor(version, runtime.embedder).predict(tasks)
    scores = {
        blind: sorted(one.score for one in predictions if one.blind == blind and one.score)
        for blind in (True, False)
    }
    everyone = Predictor(replace(version, blind_share=0.0), runtime.embedder).predict(tasks)
    spread = sorted(one.score for one in everyone if one.score is not None)
    assert scores[True] and scores[False]
    assert spread[0] <= scores[True][0] and scores[True][-1] <= spread[-1]
    # Confident or not, the range that is documented for the first moments is not used any more.
    assert version.confidences is not None
    assert version.confidences.count == 60


def test_the_same_version_gives_blind_tasks_the_same_bytes_live_and_in_bulk(
    make_runtime: MakeRuntime,
):
    runtime = make_runtime(blind_share=0.5)
    tasks = tasks_of(30)
    version = frozen(runtime, tasks)
    again = make_runtime(blind_share=0.5)
    live = again.versions.get(parse_config(CONFIG), KEY)
    assert live.name == version.name
    bulk = Predictor(version, runtime.embedder).predict_stored(tasks)
    for task, one in zip(tasks, bulk, strict=True):
        (other,) = Predictor(live, again.embedder).predict([task])
        assert other.as_import() == one.as_import()
    # More tasks change nothing: what is frozen stays.
    assert frozen(again, tasks_of(40)).name == version.name


def test_freezing_confidences_makes_another_version_and_needs_enough_tasks(
    make_runtime: MakeRuntime,
):
    runtime = make_runtime(blind_share=0.5)
    config = parse_config(CONFIG)
    few = frozen(runtime, tasks_of(24))
    assert few.confidences is None and not few.is_settled
    runtime.embedder.fill([data_uri(number) for number in range(1, 31)])
    assert freeze_confidences(runtime.versions, few, tasks_of(30), runtime.embedder)
    now = runtime.versions.get(config, KEY)
    assert now.confidences is not None and now.name != few.name
    # Where no task is blind, nothing is measured and no name depends on it.
    bare = make_runtime(blind_share=0.0).versions.get(config, KEY)
    assert bare.is_settled and bare.confidences is None


def test_damaged_confidences_are_found_and_repaired_as_a_new_version(make_runtime: MakeRuntime):
    runtime = make_runtime(blind_share=0.5)
    version = frozen(runtime, tasks_of(30))
    name = f"confidences/{KEY}/{version.content[:12]}"
    runtime.store.artifacts.write(name, {"quantiles": [2.0], "count": 1}, replace=True)
    runtime.store.generation.change()
    with pytest.raises(StoreError, match="confidences"):
        runtime.versions.get(parse_config(CONFIG), KEY)
    assert [problem.place for problem in check_store(runtime.store)] == [name]
    assert all(problem.repaired for problem in check_store(runtime.store, repair=True))
    assert runtime.versions.get(parse_config(CONFIG), KEY).confidences is None
    frozen(runtime, tasks_of(30))
    PredictionLog(runtime.store).purge("1.")
    assert runtime.store.artifacts.names(f"confidences/{KEY}") == []


def test_a_blind_task_says_that_it_is_shown_so_on_purpose_and_reveals_nothing(
    make_runtime: MakeRuntime,
):
    runtime = make_runtime(blind_share=0.5)
    version = runtime.versions.get(parse_config(CONFIG), KEY)
    everyone = Predictor(version, runtime.embedder).predict(tasks_of(40))
    predictions = [one for one in everyone if one.blind]
    assert len(predictions) > 5
    results = {json.dumps(one.result) for one in predictions}
    # The same for every image: it can depend on no score.
    assert len(results) == 1
    (item,) = json.loads(results.pop())
    assert (item["from_name"], item["type"]) == (EVIDENCE_NAME, "textarea")
    text = " ".join(item["value"]["text"])
    assert "on purpose" in text
    assert not any(character.isdigit() or character == "%" for character in text)
    assert not any(label in text.split() for label in LABELS)
    assert all(entry.choices is None for entry in logged(predictions))


def test_a_blind_task_is_answered_with_nothing_and_kept_as_blind(make_runtime: MakeRuntime):
    runtime = make_runtime(blind_share=0.5)
    version = runtime.versions.get(parse_config(choices_config()), KEY)
    tasks = [{"id": number, "data": {"image": data_uri(number)}} for number in range(1, 21)]
    predictions = Predictor(version, runtime.embedder).predict(tasks)
    for prediction in predictions:
        assert prediction.task is not None
        assert prediction.blind == is_blind(KEY, prediction.task, 0.5)
        assert not prediction.blind or prediction.result == []
    runtime.prediction_log.add(KEY, logged(predictions))
    shown = runtime.prediction_log.of_tasks(KEY, range(1, 21))
    for (task, _), logged_prediction in shown.items():
        assert (logged_prediction.choices is None) == is_blind(KEY, task, 0.5)


def test_a_project_name_that_utf8_cannot_hold_is_one_like_others():
    assert is_blind("\ud800", 1, 1.0) and not is_blind("\ud800", 1, 0.0)
