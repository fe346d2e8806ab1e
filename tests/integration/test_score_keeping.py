"""The scores that runs keep: of every task, once, as it was shown; of no task that was deleted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from tenacity import wait_none

from backend.inference.embedder import Embedder
from backend.inference.holdout import is_blind
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.importing import Importer
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.score_files import ControlScores, ScoreFiles
from jobs import enqueue, listing, predict_job, score_keeping
from jobs.local_run import run_locally
from jobs.run import Run, Scope, Trigger
from jobs.run_files import RunFiles
from jobs.run_store import RunStore
from tests.support.builders import LABELS_OF_TASKS, choices_config, data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

SHARD = 16


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())


def make(make_runtime: MakeRuntime, studio: StubStudio, store: Path, **values: Any) -> Runtime:
    given: dict[str, Any] = {"label_studio_url": studio.url, "label_studio_api_key": "f" * 40}
    given |= {"batch_size": 8, "shard_size": SHARD, "blind_share": 0.2}
    return make_runtime(store=str(store), **{**given, **values})


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path) -> Runtime:
    add_tasks(studio, *range(1, 41))
    return make(make_runtime, studio, tmp_path / "local")


def add_tasks(studio: StubStudio, *numbers: int) -> None:
    studio.tasks |= {number: {"image": data_uri(number)} for number in numbers}


def predict(runtime: Runtime, scope: Scope = Scope.MISSING, *, revalidate: bool = False) -> Run:
    seen: list[Run] = []
    run, _ = run_locally(
        runtime, PROJECT, scope, Trigger.CONNECT, seen.append, revalidate=revalidate
    )
    return run


def kept(runtime: Runtime, version: str) -> ControlScores:
    return ScoreFiles(runtime.store).read(KEY, version)["tags"]


def tasks_of(studio: StubStudio, numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"id": number, "data": studio.tasks[number]} for number in numbers]


def files(runtime: Runtime) -> list[Path]:
    return sorted(Path(runtime.store.uri, "scores").rglob("*.safetensors"))


def test_every_task_has_the_scores_that_it_was_predicted_with_blind_ones_too(
    runtime: Runtime, studio: StubStudio
):
    run = predict(runtime)
    scores = kept(runtime, run.model_version)
    assert scores.tasks.tolist() == sorted(studio.tasks)
    assert any(is_blind(KEY, task, 0.2) for task in studio.tasks)
    version = runtime.versions.get(parse_config(studio.config), KEY)
    assert version.name == run.model_version
    (control,) = version.config.controls
    assert scores.labels == tuple(label.key for label in control.labels)
    assert list(scores.thresholds) == version.thresholds(control)
    predictions = Predictor(version, runtime.embedder).predict_stored(
        tasks_of(studio, scores.tasks.tolist())
    )
    shown = np.stack([one.scored[0].probabilities for one in predictions])
    assert np.abs(scores.probabilities - shown).max() < 0.0005


def test_workers_that_score_early_keep_the_same_scores(
    make_runtime: MakeRuntime,
    runtime: Runtime,
    studio: StubStudio,
    queue_settings: Settings,
    connection: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    add_tasks(studio, *range(41, 131))
    run = predict(runtime)
    # With its bank and statistics, so that nothing can change the version any more.
    shutil.copytree(tmp_path / "local", tmp_path / "workers")
    studio.predictions, studio.shown = [], ""
    url = queue_settings.redis_url.get_secret_value()
    working = make(make_runtime, studio, tmp_path / "workers", redis_url=url)
    ScoreFiles(working.store).purge(KEY, None)
    monkeypatch.setattr("jobs.predict_job.process_runtime", lambda: working)
    runs = RunStore(connection)
    asked, _ = enqueue.start_run(runs, PROJECT, Scope.MISSING, Trigger.CONNECT)
    predict_job.plan(asked.id)
    early = sorted(Path(working.store.uri, "runs").rglob("*.safetensors"))
    assert len(early) == (len(studio.tasks) + SHARD - 1) // SHARD
    predict_job.finish(asked.id)
    assert studio.shown == run.model_version
    by_workers, here = (kept(one, run.model_version) for one in (working, runtime))
    assert np.array_equal(by_workers.tasks, here.tasks)
    assert np.array_equal(by_workers.probabilities, here.probabilities)


def test_a_reviewed_task_gets_the_scores_of_a_new_version_and_no_prediction(
    runtime: Runtime, studio: StubStudio
):
    predict(runtime)
    studio.annotated = {1, 2}
    studio.config = choices_config("cat", "horse")
    run = predict(runtime)
    assert (run.listed, run.imported) == (38, 38) and {1, 2}.isdisjoint(studio.shown_tasks())
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)


def test_scores_are_kept_where_label_studio_has_the_prediction_already(
    runtime: Runtime, studio: StubStudio
):
    run = predict(runtime)
    # As if an earlier release had made the predictions.
    shutil.rmtree(Path(runtime.store.uri, "scores"))
    encoded, sent = runtime.encoder.images, len(studio.predictions)  # type: ignore[attr-defined]
    again = predict(runtime)
    assert (again.listed, again.imported, again.shards) == (0, 0, 3)
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)
    assert (runtime.encoder.images, len(studio.predictions)) == (encoded, sent)  # type: ignore[attr-defined]


def test_a_run_without_news_writes_nothing(runtime: Runtime):
    predict(runtime)
    before = [(file.name, file.stat().st_mtime_ns) for file in files(runtime)]
    again = predict(runtime)
    predict(runtime, Scope.ALL)
    assert again.shards == 0
    assert [(file.name, file.stat().st_mtime_ns) for file in files(runtime)] == before


def test_tasks_that_came_later_make_a_part_of_their_own(runtime: Runtime, studio: StubStudio):
    run = predict(runtime)
    add_tasks(studio, 50, 51)
    assert predict(runtime).listed == 2
    assert len(files(runtime)) == 2
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)


def test_an_image_that_is_not_stored_has_no_scores_and_is_not_fetched_for_them(
    runtime: Runtime, studio: StubStudio
):
    studio.annotated = {3}
    encoded = runtime.encoder.images  # type: ignore[attr-defined]
    run = predict(runtime, Scope.UNLABELLED)
    assert run.listed == 39
    assert runtime.encoder.images == encoded + 39  # type: ignore[attr-defined]
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(set(studio.tasks) - {3})


def test_scores_of_the_version_before_stay_and_older_ones_go(runtime: Runtime, studio: StubStudio):
    versions = []
    for label in ("horse", "sheep", "goat"):
        studio.config = choices_config("cat", label)
        versions.append(predict(runtime).model_version)
    assert {file.parent.name for file in files(runtime)} == set(versions[1:])
    add_tasks(studio, 60)
    assert predict(runtime).model_version == versions[2]
    assert {file.parent.name for file in files(runtime)} == set(versions[1:])


def test_a_task_that_is_purged_while_a_run_goes_on_leaves_no_score(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
):
    add = Importer.add

    def purging(self: Importer, items: Any) -> None:
        add(self, items)
        runtime.prediction_log.purge(KEY, [5])

    monkeypatch.setattr(Importer, "add", purging)
    run = predict(runtime)
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(set(studio.tasks) - {5})


def test_a_large_project_is_written_in_parts(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(score_keeping, "WRITTEN_FROM", 10)
    run = predict(runtime)
    assert len(files(runtime)) == 3
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)


def test_an_image_that_changed_changes_the_scores(runtime: Runtime, studio: StubStudio):
    version = predict(runtime).model_version
    before = kept(runtime, version)
    studio.tasks[7] = {"image": data_uri(700)}
    predict(runtime, Scope.ALL, revalidate=True)
    after = kept(runtime, version)
    assert np.array_equal(after.tasks, before.tasks)
    changed = (after.probabilities != before.probabilities).any(axis=1)
    assert after.tasks[changed].tolist() == [7]


def test_controls_whose_labels_stand_in_the_tasks_have_no_score_files(
    runtime: Runtime, studio: StubStudio
):
    studio.config = LABELS_OF_TASKS
    for data in studio.tasks.values():
        data["options"] = [{"value": "cat"}, {"value": "dog"}]
    run = predict(runtime)
    assert run.model_version and files(runtime) == []


def test_scores_do_not_pile_up_where_nothing_is_left_to_predict(
    runtime: Runtime, studio: StubStudio
):
    predict(runtime)
    studio.annotated = set(studio.tasks)
    for label in ("horse", "sheep", "goat", "cow"):
        studio.config = choices_config("cat", label)
        assert predict(runtime).imported == 0
    assert len({file.parent for file in files(runtime)}) == 2


def test_a_version_that_changes_inside_a_run_scores_the_reviewed_tasks_anew(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    runtime = make(make_runtime, studio, tmp_path / "local")
    add_tasks(studio, *range(1, 21))
    first = predict(runtime)
    # Reviewed without a prediction, so that none is missing.
    studio.annotated, studio.predictions = set(studio.tasks), []
    add_tasks(studio, *range(21, 61))
    run = predict(runtime, Scope.UNLABELLED)
    # Statistics were frozen.
    assert run.model_version != first.model_version
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)
    assert run.imported == 40


def left_of(runtime: Runtime, number: int) -> dict[str, Any]:
    address = runtime.embedder.address(data_uri(number))
    encoder = runtime.encoder
    keys = runtime.store.vectors.keys_of([address])
    found = runtime.store.vectors.embeddings(encoder.id, encoder.dim, [*keys.values()])
    return {
        **keys,
        **found,
        **{str(task): task for task in runtime.prediction_log.tasks(KEY, [number])},
    }


@pytest.mark.parametrize("when", ["listed", "embedding"])
def test_a_task_that_is_deleted_while_a_run_goes_on_comes_back_nowhere(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch, when: str
):
    purged: list[bool] = []

    def purge() -> None:
        if not purged:
            purged.append(True)
            del studio.tasks[5]
            runtime.prediction_log.purge(KEY, [5])

    if when == "listed":
        link = listing.link_images

        def linked(*arguments: Any) -> None:
            link(*arguments)
            purge()

        monkeypatch.setattr("jobs.pipeline.link_images", linked)
    else:
        fill = Embedder.fill

        def filled(self: Embedder, *arguments: Any, **options: Any) -> Any:
            purge()
            return fill(self, *arguments, **options)

        monkeypatch.setattr(Embedder, "fill", filled)
    run = predict(runtime)
    assert purged and run.imported == 39
    assert kept(runtime, run.model_version).tasks.tolist() == sorted(studio.tasks)
    assert left_of(runtime, 5) == {} != left_of(runtime, 6)


def test_a_damaged_early_score_file_is_no_reason_to_fail(runtime: Runtime):
    files = RunFiles(runtime.store.artifacts, "a" * 12)
    version = runtime.versions.get(parse_config(choices_config()), KEY)
    files.write_scores(0, version.name, {})
    (file,) = Path(runtime.store.uri, "runs").rglob("*.safetensors")
    for content in (b"", b"no scores", b"\xff" * 100):
        file.write_bytes(content)
        assert files.scores(0, version.name) is None


def test_labels_that_stand_in_the_tasks_cost_no_second_look(runtime: Runtime, studio: StubStudio):
    studio.config = LABELS_OF_TASKS
    for data in studio.tasks.values():
        data["options"] = [{"value": "cat"}, {"value": "dog"}]
    predict(runtime)
    assert predict(runtime).shards == 0
