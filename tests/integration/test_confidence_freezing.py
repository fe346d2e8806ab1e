"""Runs freeze the spread of a version's confidences, and blind tasks agree wherever predicted."""

from __future__ import annotations

import pytest

from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.runtime import Runtime
from jobs.local_run import run_locally
from jobs.run import Scope, Trigger
from tests.support.builders import data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
) -> Runtime:
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    return make_runtime(
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        shard_size=40,
        blind_share=0.4,
    )


def add_tasks(studio: StubStudio, *numbers: int) -> None:
    studio.tasks |= {number: {"image": data_uri(number)} for number in numbers}


def predict(runtime: Runtime) -> int:
    """Run over what is missing; returns how many predictions were imported."""
    run, failures = run_locally(runtime, PROJECT, Scope.MISSING, Trigger.CONNECT, lambda _: None)
    assert failures == {}
    return run.imported


@pytest.mark.parametrize("early", [False, True], ids=["at the end", "with the first shard"])
def test_a_run_freezes_confidences_before_it_imports_and_the_next_has_nothing_to_do(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch, early: bool
):
    if early:
        monkeypatch.setattr("jobs.pipeline.STATISTICS_UP_TO", 40)
    add_tasks(studio, *range(1, 61))
    assert predict(runtime) == 60
    version = runtime.versions.get(parse_config(studio.config), KEY)
    assert studio.shown == version.name
    assert version.confidences is not None
    assert {one["model_version"] for one in studio.predictions} == {version.name}
    assert predict(runtime) == 0

    tasks = [{"id": number, "data": data} for number, data in studio.tasks.items()]
    live = {one.task: one for one in Predictor(version, runtime.embedder).predict(tasks)}
    for kept in studio.predictions:
        assert kept["score"] == live[kept["task"]].score
    assert 0 < sum(one.blind for one in live.values()) < 60


def test_tasks_predicted_before_there_was_anything_to_measure_get_the_new_version(
    runtime: Runtime, studio: StubStudio
):
    add_tasks(studio, *range(1, 11))
    assert predict(runtime) == 10
    first = studio.shown
    assert runtime.versions.get(parse_config(studio.config), KEY).confidences is None
    add_tasks(studio, *range(11, 61))
    predict(runtime)
    assert studio.shown != first
    assert studio.shown_tasks() == set(studio.tasks)
