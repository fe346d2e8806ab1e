"""``ls-clip evaluate --project``: kept scores against what people decided on random tasks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from backend.cli.evaluation import _print_project
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.runtime import Runtime
from backend.storage.score_files import ScoreFiles
from backend.training.project_measures import ProjectMeasures, measure_project
from jobs.local_run import run_locally
from jobs.run import Scope, Trigger
from tests.support.builders import LABELS_OF_TASKS, choices_config
from tests.support.fixtures import Cli
from tests.support.judged import judged
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

Review = Callable[..., None]


def predict(runtime: Runtime) -> str:
    run, _ = run_locally(runtime, PROJECT, Scope.ALL, Trigger.CLI, lambda _: None)
    return run.model_version


def measured(runtime: Runtime) -> ProjectMeasures:
    studio = LabelStudioClient(runtime.settings)
    return measure_project(runtime.settings, studio, runtime.versions, runtime.embedder, PROJECT)


def test_only_reviewed_tasks_that_chance_has_chosen_count(
    runtime: Runtime,
    reviewed: Review,
):
    version = predict(runtime)
    assert measured(runtime).clicks is None
    reviewed()
    found = measured(runtime)
    assert found.model_version == version
    assert (found.reviewed, found.judged) == (40, len(judged()))
    assert found.controls["tags"].tasks == len(judged())
    # Everything is ticked, and every task has the same one of two labels.
    rates = found.controls["tags"].rates
    assert (rates.precision, rates.recall) == (0.5, 1.0)
    assert found.clicks is not None
    assert (found.clicks.per_task, found.clicks.from_nothing) == (1.0, 1.0)
    cat, dog = found.controls["tags"].labels
    assert (cat.reviewed, cat.judged, cat.precision, cat.recall) == (40, len(judged()), 1.0, 1.0)
    assert (dog.reviewed, dog.judged, dog.precision) == (0, 0, None)


def test_nothing_is_scored_and_no_embedding_is_read(
    runtime: Runtime,
    reviewed: Review,
    monkeypatch: pytest.MonkeyPatch,
):
    predict(runtime)
    reviewed()
    before = measured(runtime)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is scored again")

    monkeypatch.setattr("backend.inference.model_version.ModelVersion.probabilities", refused)
    monkeypatch.setattr("backend.storage.vectors.Vectors.embeddings", refused)
    assert measured(runtime) == before


def test_the_kept_scores_decide(
    runtime: Runtime,
    studio: StubStudio,
    reviewed: Review,
):
    version = predict(runtime)
    reviewed()
    scores = ScoreFiles(runtime.store).read(KEY, version)["tags"]
    sure = type(scores).of(
        scores.labels,
        scores.thresholds,
        scores.tasks.tolist(),
        np.array([[0.9, 0.1]] * len(scores.tasks), dtype=np.float32),
    )
    ScoreFiles(runtime.store).add(KEY, version, lambda: {"tags": sure})
    (cat, _) = measured(runtime).controls["tags"].labels
    assert cat.average_precision == 1.0


def test_a_label_that_was_added_later_is_unknown_and_counts_for_nothing(
    runtime: Runtime,
    studio: StubStudio,
    reviewed: Review,
):
    predict(runtime)
    reviewed()
    measured(runtime)
    studio.config = choices_config("cat", "dog", "pig")
    predict(runtime)
    found = measured(runtime)
    rates = found.controls["tags"].rates
    assert (rates.precision, rates.recall) == (0.5, 1.0)
    assert found.clicks is not None and found.clicks.per_task == 1.0


def test_without_scores_it_says_how_to_get_them(
    runtime: Runtime,
    reviewed: Review,
):
    version = predict(runtime)
    shutil.rmtree(Path(runtime.store.uri, "scores"))
    with pytest.raises(SettingsError, match=version) as caught:
        measured(runtime)
    assert f"ls-clip connect {PROJECT}" in caught.value.fix


def test_before_the_present_version_is_there_the_one_that_is_shown_is_measured(
    runtime: Runtime, studio: StubStudio, reviewed: Review
):
    shown = predict(runtime)
    reviewed()
    before = measured(runtime)
    # Its method, its table or its bank has changed.
    table = runtime.versions.table()
    runtime.versions.save_table(replace(table, spread=2 * table.spread))
    found = measured(runtime)
    assert found.model_version == shown == studio.shown
    assert found.clicks == before.clicks


def test_of_tasks_with_labels_of_their_own_the_clicks_are_counted(
    runtime: Runtime, studio: StubStudio, reviewed: Review
):
    studio.config = LABELS_OF_TASKS
    for data in studio.tasks.values():
        data["options"] = [{"value": "cat"}, {"value": "dog"}]
    predict(runtime)
    reviewed()
    found = measured(runtime)
    assert found.controls == {} and found.clicks is not None
    assert (found.judged, found.clicks.per_task) == (len(judged()), 1.0)


def test_a_person_reads_version_tasks_rates_labels_and_clicks(
    runtime: Runtime,
    reviewed: Review,
    capsys: pytest.CaptureFixture[str],
):
    version = predict(runtime)
    reviewed()
    found = measured(runtime)
    _print_project(found, Console(width=100))
    said = " ".join(capsys.readouterr().out.split())
    assert f"{version}: measured on {len(judged())} of 40 reviewed tasks" in said
    assert f"tags: precision 50 %, recall 100 %, F1 67 %, over all ticks of {len(judged())}" in said
    assert "Clicks a task: 1.0" in said
    content = json.loads(json.dumps(found.as_dict()))
    assert content["clicks_per_image"] == content["clicks_from_nothing"] == 1.0
    assert content["controls"]["tags"]["micro_precision"] == 50.0
    assert [one["label"] for one in content["controls"]["tags"]["labels"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "Name a folder, or a project"),
        ((".", "--project", "1"), "one of them at a time"),
        (("--project", "1", "--fit"), "--fit needs a folder"),
    ],
)
def test_it_is_either_a_folder_or_a_project(cli: Cli, given: tuple[str, ...], told: str):
    code, said = cli("evaluate", *given)
    assert code == 1 and told in " ".join(said.split())


def test_a_label_studio_that_is_away_and_a_project_that_is_not_there_are_named(cli: Cli):
    code, said = cli("evaluate", "--project", "1", LABEL_STUDIO_URL="http://127.0.0.1:9")
    assert code == 1 and "127.0.0.1:9" in said and "Fix:" in said
    code, said = cli("evaluate", "--project", "77")
    assert code == 1 and "Fix:" in said
