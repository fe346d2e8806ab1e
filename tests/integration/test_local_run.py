"""A run in this process: the same predictions as by workers, in bounded memory."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from tenacity import wait_none

from backend.errors import LabelConfigError, StudioError
from backend.inference.prediction import Prediction
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.importing import Importer
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from jobs import enqueue, predict_job
from jobs.local_run import run_locally
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore
from tests.support.builders import choices_config, data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

SHARD = 16
BAD_IMAGE = "data:image/png;base64,AAAA"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def make(make_runtime: MakeRuntime, studio: StubStudio, store: Path, **values: Any) -> Runtime:
    return make_runtime(
        store=str(store),
        label_studio_url=studio.url,
        label_studio_api_key="f" * 40,
        batch_size=8,
        shard_size=SHARD,
        **values,
    )


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path) -> Runtime:
    return make(make_runtime, studio, tmp_path / "local")


def add_tasks(studio: StubStudio, *numbers: int) -> None:
    studio.tasks |= {number: {"image": data_uri(number)} for number in numbers}


def predict(runtime: Runtime, states: list[Run] | None = None) -> tuple[Run, dict[int, Any]]:
    seen: list[Run] = [] if states is None else states
    return run_locally(runtime, PROJECT, Scope.MISSING, Trigger.CONNECT, seen.append)


def by_task(predictions: Sequence[Any]) -> bytes:
    """What was imported, as bytes, whatever the order and the ids."""
    items = [{name: one[name] for name in one if name != "id"} for one in predictions]
    return json.dumps(sorted(items, key=lambda item: item["task"])).encode()


def test_a_local_run_and_workers_give_the_same_predictions_byte_for_byte(
    make_runtime: MakeRuntime,
    runtime: Runtime,
    studio: StubStudio,
    queue_settings: Settings,
    connection: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_tasks(studio, *range(1, 61))
    studio.tasks[7] = {"image": BAD_IMAGE}
    url = queue_settings.redis_url.get_secret_value()
    working = make(make_runtime, studio, tmp_path / "workers", redis_url=url)
    monkeypatch.setattr("jobs.predict_job.process_runtime", lambda: working)
    runs = RunStore(connection)
    asked, _ = enqueue.start_run(runs, PROJECT, Scope.MISSING, Trigger.CONNECT)
    predict_job.plan(asked.id)
    for shard in runs.shards(asked.id):
        predict_job.embed(asked.id, shard.number)
    predict_job.finish(asked.id)
    by_workers = runs.get(asked.id)
    assert by_workers is not None and by_workers.state == RunState.DONE
    made, shown = by_task(studio.predictions), studio.shown
    studio.predictions, studio.shown = [], ""
    run, failures = predict(runtime)
    assert by_task(studio.predictions) == made
    assert studio.shown == shown == run.model_version
    assert failures == runs.failures(asked.id) and list(failures) == [7]
    internal = {"id", "created", "updated", "ended", "images_per_second", "seconds_left"}
    shared = set(run.as_dict()) - internal
    assert {name: run.as_dict()[name] for name in shared} == {
        name: by_workers.as_dict()[name] for name in shared
    }
    logs = [one.prediction_log.of_tasks(KEY, [1, 2, 3]) for one in (working, runtime)]
    assert logs[0].keys() == logs[1].keys()


def test_memory_holds_one_import_of_predictions_however_many_tasks_there_are(
    make_runtime: MakeRuntime,
    studio: StubStudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = 20
    runtime = make(make_runtime, studio, tmp_path / "small", import_size=size)
    add_tasks(studio, *range(1, 201))
    sent, held = [], []
    add = Importer.add

    def counting(self: Importer, items: Any) -> None:
        gc.collect()
        held.append(sum(type(thing) is Prediction for thing in gc.get_objects()))
        sent.append(len(items))
        add(self, items)

    gc.collect()
    before = sum(type(thing) is Prediction for thing in gc.get_objects())
    monkeypatch.setattr(Importer, "add", counting)
    run, failures = predict(runtime)
    assert (run.imported, failures, sum(sent)) == (200, {}, 200)
    # A shard at a time is added to what waits, until it is enough for an import.
    assert max(sent) < size + SHARD
    assert max(held) - before <= size + 2 * SHARD


def test_nothing_is_left_behind_and_progress_is_reported(
    runtime: Runtime, studio: StubStudio, tmp_path: Path
) -> None:
    add_tasks(studio, *range(1, 41))
    seen: list[Run] = []
    run, _ = predict(runtime, seen)
    assert [*(tmp_path / "temporary").iterdir()] == []
    assert not (Path(runtime.store.uri) / "runs").exists()
    assert (run.state, run.listed, run.embedded, run.shards_done) == (RunState.DONE, 40, 40, 3)
    assert {one.state for one in seen} == {RunState.LISTING, RunState.IMPORTING, RunState.DONE}
    assert max(one.embedded for one in seen if one.state == RunState.LISTING) == 40


def test_a_second_run_fetches_encodes_and_imports_nothing(
    runtime: Runtime, studio: StubStudio
) -> None:
    add_tasks(studio, *range(1, 41))
    first, _ = predict(runtime)
    encoded, calls = runtime.encoder.images, len(studio.predictions)  # type: ignore[attr-defined]
    second, failures = predict(runtime)
    assert (second.listed, second.imported, failures) == (0, 0, {})
    assert second.model_version == first.model_version == studio.shown
    assert (runtime.encoder.images, len(studio.predictions)) == (encoded, calls)  # type: ignore[attr-defined]


def test_an_annotated_task_keeps_the_prediction_that_was_seen(
    runtime: Runtime, studio: StubStudio
) -> None:
    add_tasks(studio, *range(1, 31))
    studio.annotated = {1, 2}
    predict(runtime)
    assert studio.shown_tasks() == set(studio.tasks)
    studio.config = choices_config("cat", "horse")
    run, failures = predict(runtime)
    assert (run.imported, failures) == (28, {})
    assert studio.shown_tasks() == set(studio.tasks) - {1, 2}


def test_a_task_whose_data_is_null_fails_alone(runtime: Runtime, studio: StubStudio) -> None:
    add_tasks(studio, *range(1, 6))
    tasks: dict[int, Any] = studio.tasks
    tasks[3] = None
    run, failures = predict(runtime)
    assert (run.imported, set(failures)) == (4, {3})


def test_connect_names_the_version_that_the_project_shows(
    runtime: Runtime, studio: StubStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.projects.calls.LOCKS", tmp_path / "locks")
    # What the stub does not have.
    for step in ("register_backend", "make_webhook", "show_scores"):
        monkeypatch.setattr(f"backend.projects.connect.{step}", lambda *_: None)
    client = LabelStudioClient(runtime.settings)
    assert connect(runtime.settings, client, runtime, PROJECT).model_version == studio.shown == ""
    add_tasks(studio, *range(1, 6))
    first = connect(runtime.settings, client, runtime, PROJECT)
    assert (first.model_version, first.predicted) == (studio.shown, 5)
    studio.annotated = set(studio.tasks)
    studio.config = choices_config("cat", "horse")
    # Annotated tasks keep what was seen, so no prediction of the new version is made.
    assert connect(runtime.settings, client, runtime, PROJECT).model_version == studio.shown
    assert studio.shown == first.model_version


def test_labels_changed_during_the_import_are_told_and_nothing_is_shown(
    runtime: Runtime, studio: StubStudio, tmp_path: Path
) -> None:
    def change(method: str, path: str) -> None:
        if path.endswith("/import/predictions"):
            studio.config = choices_config("cat", "horse")

    add_tasks(studio, *range(1, 11))
    studio.after = change
    with pytest.raises(LabelConfigError, match="was changed") as caught:
        predict(runtime)
    assert f"ls-clip connect {PROJECT}" in caught.value.fix
    assert studio.shown == ""
    assert [*(tmp_path / "temporary").iterdir()] == []


def test_a_refused_import_is_raised_and_nothing_is_shown(
    runtime: Runtime, studio: StubStudio
) -> None:
    add_tasks(studio, *range(1, 11))
    studio.before = lambda method, path: 403 if path.endswith("/import/predictions") else None
    with pytest.raises(StudioError):
        predict(runtime)
    assert studio.shown == ""


def test_a_project_without_tasks_shows_nothing(runtime: Runtime, studio: StubStudio) -> None:
    run, failures = predict(runtime)
    assert (run.state, run.imported, failures, studio.shown) == (RunState.DONE, 0, {}, "")
