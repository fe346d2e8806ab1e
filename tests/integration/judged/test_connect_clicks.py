"""What connecting a project says of the clicks that its suggestions cost on reviewed tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import ConnectReport, connect
from backend.runtime import Runtime
from backend.training.click_count import judged_tasks
from backend.training.pulling import pull
from tests.support.builders import LABELS_OF_TASKS, choices_config
from tests.support.fixtures import MakeRuntime
from tests.support.judged import judged
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

SINGLE = choices_config("cat", "dog").replace('choice="multiple"', 'choice="single"')


def connected(runtime: Runtime) -> ConnectReport:
    return connect(runtime.settings, LabelStudioClient(runtime.settings), runtime, PROJECT)


def test_nothing_is_said_before_a_randomly_chosen_task_was_reviewed(
    runtime: Runtime, reviewed: Callable[..., None]
):
    assert connected(runtime).clicks is None
    # Made in bulk: nobody looked.
    reviewed(lead_time=None, parent_prediction=7)
    report = connected(runtime)
    assert (report.clicks, report.warnings[1:]) == (None, [])


def test_clicks_are_those_of_the_present_suggestions_on_blind_and_audit_tasks(
    runtime: Runtime, reviewed: Callable[..., None]
):
    connected(runtime)
    reviewed()
    found = connected(runtime).clicks
    assert found is not None and found["tasks"] == len(judged()) > 10
    # Everything is ticked, and one of the two labels is wrong.
    assert (found["per_task"], found["from_nothing"], found["saved"]) == (1.0, 1.0, 0.0)
    assert "cannot be told yet" in found["text"]


def test_harm_is_told_with_the_threshold_that_ends_it(
    make_runtime: MakeRuntime, runtime: Runtime, studio: StubStudio, reviewed: Callable[..., None]
):
    studio.config = choices_config("cat", "dog", "pig", "cow")
    connected(runtime)
    reviewed()
    found = connected(runtime).clicks
    assert found is not None
    assert (found["per_task"], found["from_nothing"]) == (3.0, 1.0)
    text = "At present suggestions cost more clicks than they save (3.0 a task against 1.0)."
    assert text in found["text"]
    threshold = found["threshold"]
    assert f"LS_CLIP_THRESHOLD={threshold:g} shows fewer." in found["text"]
    other = make_runtime(
        **{"audit_share": 0.5, "blind_share": 0.2, "threshold": threshold},
        **{"label_studio_url": studio.url, "label_studio_api_key": "f" * 40},
    )
    then = connected(other).clicks
    assert then is not None and then["per_task"] <= then["from_nothing"]


def test_a_wrong_suggestion_of_a_single_choice_is_one_click(
    runtime: Runtime, studio: StubStudio, reviewed: Callable[..., None]
):
    studio.config = SINGLE
    connected(runtime)
    reviewed()
    found = connected(runtime).clicks
    version = runtime.versions.get(parse_config(SINGLE), KEY)
    tasks = [{"id": task, "data": studio.tasks[task]} for task in judged()]
    predictions = Predictor(version, runtime.embedder).predict_stored(tasks)
    wrong = sum(one.scored[0].suggested[0].key == "dog" for one in predictions)
    assert 0 < wrong < len(tasks)
    assert found is not None
    assert (found["per_task"], found["from_nothing"]) == (pytest.approx(wrong / len(tasks)), 1.0)


def test_labels_of_the_task_itself_count_as_others_do(
    runtime: Runtime, studio: StubStudio, reviewed: Callable[..., None]
):
    studio.config = LABELS_OF_TASKS
    for data in studio.tasks.values():
        data["options"] = [{"value": "cat"}, {"value": "dog"}]
    connected(runtime)
    reviewed()
    found = connected(runtime).clicks
    assert found is not None and (found["tasks"], found["per_task"]) == (len(judged()), 1.0)


def test_a_bounded_number_of_tasks_is_looked_at_and_no_image(
    runtime: Runtime,
    studio: StubStudio,
    reviewed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    connected(runtime)
    reviewed()
    monkeypatch.setattr("backend.training.project_measures.SCANNED", 20)
    encoded = runtime.encoder.images  # type: ignore[attr-defined]
    found = connected(runtime).clicks
    assert found is not None and found["tasks"] == len([task for task in judged() if task <= 20])
    assert runtime.encoder.images == encoded  # type: ignore[attr-defined]
    client = LabelStudioClient(runtime.settings)
    pulled = pull(client, runtime.store, PROJECT, 0.2, 20)
    assert len(judged_tasks(pulled, 0.5)) == found["tasks"]


def test_what_cannot_be_counted_is_told_and_the_project_is_connected(
    runtime: Runtime, studio: StubStudio, reviewed: Callable[..., None]
):
    connected(runtime)
    reviewed()

    def refused(method: str, path: str) -> int | None:
        """Once the version is shown, tasks can be listed no more."""
        is_shown = any(asked == "PATCH" for asked, _ in studio.calls)
        return 403 if path == "/api/tasks/" and is_shown else None

    studio.calls.clear()
    studio.before = refused
    report = connected(runtime)
    assert report.model_version == studio.shown != ""
    assert report.clicks is None
    assert any("could not be counted" in warning for warning in report.warnings)
