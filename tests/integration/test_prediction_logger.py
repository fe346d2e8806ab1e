"""What live predictions showed is logged once, and again after anyone has changed the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from backend.inference.prediction import Prediction
from backend.runtime import Runtime
from backend.server.background import Background
from backend.server.prediction_logger import PredictionLogger
from backend.storage.compaction import FEWEST_FILES
from backend.storage.prediction_log import LoggedPrediction, PredictionLog
from backend.storage.store import Store
from tests.support.fixtures import MakeRuntime
from tests.support.waiting import until

PROJECT, OTHER = "1.1795416973", "2.1795416999"


@pytest.fixture
def runtime(make_runtime: MakeRuntime) -> Runtime:
    return make_runtime(offline=True)


@pytest.fixture
def logger(runtime: Runtime) -> PredictionLogger:
    return PredictionLogger(runtime.prediction_log, runtime.embedder)


@pytest.fixture
def appends(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that were appended to."""
    made: list[str] = []
    append = runtime.store.tables.append

    def counted(name: str, rows: Any) -> None:
        made.append(name)
        append(name, rows)

    monkeypatch.setattr(runtime.store.tables, "append", counted)
    return made


def shown(task: int | None, *labels: str, version: str = "v1", image: str = "") -> Prediction:
    item = {
        "from_name": "tags",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(labels)},
    }
    return Prediction(task, version, [item], 0.5, images=(image or f"https://x/{task}.jpg",))


def choices(runtime: Runtime, *tasks: int, project: str = PROJECT) -> dict[tuple[int, str], Any]:
    stored = runtime.prediction_log.of_tasks(project, tasks)
    return {key: (entry.choices or {}).get("tags") for key, entry in stored.items()}


def test_the_same_prediction_is_logged_once(
    logger: PredictionLogger, runtime: Runtime, appends: list[str]
):
    for _ in range(3):
        logger.write([(PROJECT, [shown(1, "cat"), shown(2, "dog")])])
    assert appends == ["shown", "task_images"]
    assert choices(runtime, 1, 2) == {(1, "v1"): ["cat"], (2, "v1"): ["dog"]}


@pytest.mark.parametrize(
    "changed", [shown(1, "dog"), shown(1, "cat", version="v2"), shown(1, "cat", image="y.jpg")]
)
def test_whatever_differs_is_logged(
    logger: PredictionLogger, runtime: Runtime, appends: list[str], changed: Prediction
):
    logger.write([(PROJECT, [shown(1, "cat")])])
    appends.clear()
    logger.write([(PROJECT, [changed])])
    assert "shown" in appends
    assert changed.result is not None
    expected = changed.result[0]["value"]["choices"]
    assert choices(runtime, 1)[1, changed.model_version] == expected


def test_the_same_task_of_another_project_is_logged(logger: PredictionLogger, runtime: Runtime):
    logger.write([(PROJECT, [shown(1, "cat")])])
    logger.write([(OTHER, [shown(1, "cat")])])
    assert choices(runtime, 1, project=OTHER) == {(1, "v1"): ["cat"]}


def test_a_batch_is_one_append_per_project_and_its_last_prediction_of_a_task_counts(
    logger: PredictionLogger, runtime: Runtime, appends: list[str]
):
    logger.write(
        [
            (PROJECT, [shown(1, "cat")]),
            (OTHER, [shown(1, "fox")]),
            (PROJECT, [shown(2, "cat"), shown(1, "dog")]),
        ]
    )
    assert sorted(appends) == ["shown", "shown", "task_images", "task_images"]
    assert choices(runtime, 1, 2) == {(1, "v1"): ["dog"], (2, "v1"): ["cat"]}
    assert choices(runtime, 1, project=OTHER) == {(1, "v1"): ["fox"]}


def test_after_a_purge_by_another_process_the_same_prediction_is_logged_again(
    logger: PredictionLogger, runtime: Runtime
):
    logger.write([(PROJECT, [shown(1, "cat")])])
    logger.write([(PROJECT, [shown(2, "cat")])])
    PredictionLog(Store(runtime.store.uri)).purge(PROJECT, [1])
    assert choices(runtime, 1) == {}
    logger.write([(PROJECT, [shown(1, "cat")])])
    assert choices(runtime, 1) == {(1, "v1"): ["cat"]}
    assert runtime.prediction_log.has(PROJECT, [1])


def test_a_purge_while_something_is_logged_is_noticed(
    logger: PredictionLogger, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
):
    log = runtime.prediction_log
    link = log.link_images

    def purged_meanwhile(project: str, images: Sequence[tuple[int, str]]) -> bool:
        PredictionLog(Store(runtime.store.uri)).purge(PROJECT, [1])
        return link(project, images)

    with monkeypatch.context() as patch:
        patch.setattr(log, "link_images", purged_meanwhile)
        logger.write([(PROJECT, [shown(1, "cat")])])
    assert choices(runtime, 1) == {}
    logger.write([(PROJECT, [shown(1, "cat")])])
    assert choices(runtime, 1) == {(1, "v1"): ["cat"]}


def test_what_another_process_logged_last_is_replaced(logger: PredictionLogger, runtime: Runtime):
    logger.write([(PROJECT, [shown(1, "cat")])])
    other = LoggedPrediction(1, "v1", 0.5, {"tags": ["dog"]})
    PredictionLog(Store(runtime.store.uri)).add(PROJECT, [other])
    logger.write([(PROJECT, [shown(1, "cat")])])
    assert choices(runtime, 1) == {(1, "v1"): ["cat"]}


def test_a_compaction_loses_nothing(logger: PredictionLogger, runtime: Runtime):
    for task in range(1, FEWEST_FILES + 3):
        logger.write([(PROJECT, [shown(task, "cat")])])
    assert len(choices(runtime, *range(1, FEWEST_FILES + 3))) == FEWEST_FILES + 2


def test_predictions_without_a_task_or_a_result_are_left_out(
    logger: PredictionLogger, appends: list[str]
):
    logger.write([(PROJECT, [shown(None, "cat"), Prediction(3, "v1", None, None)])])
    assert appends == []


def test_predictions_that_come_while_the_store_is_busy_share_an_append(
    runtime: Runtime, appends: list[str]
):
    background = Background(runtime)
    with runtime.store.tables.writing:
        # The first one is being logged, and waits for the lock.
        for task in range(1, 21):
            background.log_predictions(PROJECT, [shown(task, "cat")])
    until(lambda: len(choices(runtime, *range(1, 21))) == 20)
    assert len(appends) <= 6
