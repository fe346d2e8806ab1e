"""What training and exports believe: only what a person said, through a real Label Studio."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.doctor.checks import doctor
from backend.errors import LabelConfigError
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.projects.export.export import Format
from backend.runtime import Runtime
from backend.settings import Settings
from backend.training.approvals import provenance_counts
from backend.training.head_trainer import HeadTrainer
from tests.support.commands import run_command
from tests.support.exporting import ALL, run_export
from tests.support.live import MakeProject, Servers, environment_of, read_truth

IMAGE = '<Image name="image" value="$image"/>'
Counts = Callable[[int], dict[str, int]]


def item(control: str, *labels: str) -> dict[str, Any]:
    return {
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(labels)},
    }


@pytest.fixture
def partly_blind(settings: Settings) -> Settings:
    return settings.model_copy(update={"blind_share": 0.2})


@pytest.fixture
def counts(partly_blind: Settings, studio: LabelStudioClient) -> Counts:
    """How a project's tasks were reviewed, as a training reads it."""

    def of(project: int) -> dict[str, int]:
        mine = Runtime(partly_blind)
        trainer = HeadTrainer(partly_blind, studio, mine.versions, mine.embedder)
        return provenance_counts(trainer.pull(project).approvals["tags"])

    return of


def test_work_of_before_the_first_connect_stays_what_it_was(
    servers: Servers,
    partly_blind: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
    counts: Counts,
    api: Callable[..., Any],
    label_config: str,
) -> None:
    project, truth = make_project(photos=20), read_truth(servers)
    tasks = sorted(studio.tasks.iterate(project), key=lambda task: task["id"])

    def submit(task: dict[str, Any], **fields: Any) -> int:
        labels = truth[task["data"]["image"].rpartition("/")[2]]
        body = {"result": [item("tags", *labels)], "lead_time": 4.2, **fields}
        made = api("POST", f"/api/tasks/{task['id']}/annotations/", json=body)
        return int(made["id"])

    made = [submit(task) for task in tasks[:16]]
    # Begun as a draft now, and submitted after the predictions have come.
    begun = {"result": [item("tags", "cat")], "lead_time": 2.0}
    draft = api("POST", f"/api/tasks/{tasks[16]['id']}/drafts", json=begun)
    before = counts(project)
    assert set(before) <= {"unaided", "blind"} and sum(before.values()) == 16

    connect(partly_blind, studio, Runtime(partly_blind), project)
    assert {p["task"] for p in studio.predictions.of_project(project)} == {t["id"] for t in tasks}
    assert counts(project) == before

    # Opened again, saved as it was, and marked as the ground truth: nothing was suggested there.
    api("PATCH", f"/api/annotations/{made[0]}/", json={"result": [], "lead_time": 9.0})
    api("PATCH", f"/api/annotations/{made[1]}/", json={"ground_truth": True})
    assert counts(project) == before
    # Nor was it where an annotation of before is copied.
    submit(tasks[2], parent_annotation=made[2])
    assert counts(project) == before
    submit(tasks[16], draft_id=draft["id"])
    after_draft = counts(project)
    assert set(after_draft) <= {"unaided", "blind"} and sum(after_draft.values()) == 17

    # From here on suggestions are seen.
    shown = {p["task"]: p["id"] for p in studio.predictions.of_project(project)}
    for task in tasks[17:]:
        submit(task, parent_prediction=shown[task["id"]])
    now = counts(project)
    assert sum(now.values()) == 20
    assert now.get("unaided") == after_draft.get("unaided")

    # What Label Studio exports and takes in again is nobody's review of these suggestions.
    content = api("GET", f"/api/projects/{project}/export?exportType=JSON")
    for one in content:
        # Only their ids, which Label Studio refuses.
        del one["predictions"]
    other = make_project(photos=0, config=label_config)
    api("POST", f"/api/projects/{other}/import", json=content)
    taken = counts(other)
    assert set(taken) == {"imported"}
    connect(partly_blind, studio, Runtime(partly_blind), other)
    assert counts(other) == taken


FOLLOW_UP = (
    f'<View>{IMAGE}<Choices name="place" toName="image" choice="single" showInline="true">'
    '<Choice value="inside" model_score_threshold="0"/>'
    '<Choice value="outside" model_score_threshold="1"/></Choices>'
    '<View visibleWhen="choice-selected" whenTagName="place" whenChoiceValue="outside">'
    '<Choices name="more" toName="image" choice="multiple" model_score_threshold="0">'
    '<Choice value="street"/><Choice value="beach"/></Choices></View></View>'
)


def test_a_question_that_nobody_was_asked_is_unknown(
    servers: Servers,
    page: Any,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    tmp_path: Path,
) -> None:
    project = make_project(photos=2, config=FOLLOW_UP)
    assert connect(settings, studio, runtime, project).imported == 2
    ticked = [
        {one["from_name"]: one["value"]["choices"] for one in prediction["result"]}
        for prediction in studio.predictions.of_project(project)
    ]
    assert ticked == [{"place": ["inside"]}] * 2

    submit = page.get_by_test_id("bottombar-submit-button")
    page.goto(f"{servers.studio_url}/projects/{project}/data?labeling=1")
    page.locator("input:checked").first.wait_for(timeout=60_000)
    assert not page.get_by_text("street").first.is_visible()
    with page.expect_response(lambda answer: "/annotations" in answer.url) as saved:
        submit.click()
    first = saved.value.json()["task"]
    assert [one["from_name"] for one in saved.value.request.post_data_json["result"]] == ["place"]

    # The second one is outside, and only then is the question there.
    page.goto(f"{servers.studio_url}/projects/{project}/data?labeling=1")
    page.locator("input:checked").first.wait_for(timeout=60_000)
    page.get_by_text("outside").first.click()
    page.get_by_text("street").first.click()
    with page.expect_response(lambda answer: "/annotations" in answer.url) as saved:
        submit.click()
    assert saved.value.json()["task"] != first

    trainer = HeadTrainer(settings, studio, runtime.versions, runtime.embedder)
    pulled = trainer.pull(project)
    assert [one.task for one in pulled.approvals["more"]] == [saved.value.json()["task"]]
    assert pulled.approvals["more"][0].states == (1, -1)
    path = tmp_path / "export.csv"
    run_export(settings, Format.CSV, path, project=project, states=ALL)
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["control"] == "more"]
    states = {(int(row["task"]) == first, row["label"]): row["state"] for row in rows}
    assert states == {
        (True, "street"): "unknown",
        (True, "beach"): "unknown",
        (False, "street"): "approved",
        (False, "beach"): "approved",
    }


def test_choices_for_a_selected_region_are_left_out_and_named(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    rest = '<RectangleLabels name="rect" toName="image"><Label value="Car"/></RectangleLabels>'
    region = (
        '<View visibleWhen="region-selected" whenLabelValue="Car"><Choices name="part" '
        'toName="image" choice="multiple"><Choice value="wheel"/></Choices></View>'
    )
    alone = make_project(photos=1, config=f"<View>{IMAGE}{rest}{region}</View>")
    with pytest.raises(LabelConfigError, match="for a selected region only"):
        connect(settings, studio, runtime, alone)
    whole = '<Choices name="tags" toName="image" visibleWhen="no-region-selected">'
    both = make_project(
        photos=1,
        config=f"<View>{IMAGE}{rest}{region}{whole}"
        '<Choice value="cat" model_score_threshold="0"/></Choices></View>',
    )
    report = connect(settings, studio, runtime, both)
    assert any("'part'>: shown for a selected region only" in one for one in report.warnings)
    (prediction,) = studio.predictions.of_project(both)
    assert [one["from_name"] for one in prediction["result"]] == ["tags"]
    notes = [one.what for one in doctor(settings, both) if one.check == "config"]
    assert any("selected region only" in note for note in notes)


def test_a_label_that_is_renamed_in_mid_project_keeps_its_approvals(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    api: Callable[..., Any],
    tmp_path: Path,
) -> None:
    config = (
        f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
        '<Choice value="cat"/><Choice value="coffee"/></Choices></View>'
    )
    project = make_project(photos=2, config=config)
    connect(settings, studio, runtime, project)
    tasks = sorted(task["id"] for task in studio.tasks.iterate(project))
    for task, labels in zip(tasks, (["coffee"], ["cat"]), strict=True):
        body = {"result": [item("tags", *labels)], "lead_time": 3.0}
        api("POST", f"/api/tasks/{task}/annotations/", json=body)
    studio.projects.update(project, label_config=config.replace("coffee", "espresso"))
    report = connect(settings, studio, runtime, project)
    command = f"ls-clip rename {project} coffee espresso"
    assert any(command in warning for warning in report.warnings)

    def states() -> list[tuple[int, ...]]:
        trainer = HeadTrainer(settings, studio, runtime.versions, runtime.embedder)
        return [one.states for one in trainer.pull(project).approvals["tags"]]

    assert states() == [(-1, 0), (1, 0)]
    done = run_command(*command.split()[1:], cwd=tmp_path, **environment_of(settings))
    assert done.returncode == 0, done.stderr
    assert states() == [(-1, 1), (1, -1)]
    assert not any("rename" in one for one in connect(settings, studio, runtime, project).warnings)
    # Label Studio has what was submitted.
    (first,) = api("GET", f"/api/tasks/{tasks[0]}/annotations/")
    assert first["result"][0]["value"]["choices"] == ["coffee"]
