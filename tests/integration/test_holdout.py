"""Blind and audit tasks: which they are, and what is predicted and logged for them."""

from __future__ import annotations

from backend.inference.holdout import blind_score, is_audit, is_blind
from backend.inference.prediction import logged
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from tests.support.builders import choices_config, data_uri
from tests.support.fixtures import MakeRuntime

KEY = "1.1795416973"


def test_a_task_stays_in_or_out_of_the_holdout_and_the_share_is_about_as_asked():
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
