"""What people decided about labels that are never predicted, and in controls that are left out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.projects.archives.label_studio import rows_of_tasks
from backend.projects.archives.request import ArchiveRequest
from backend.projects.export.export import Format, Written
from backend.projects.label_states import State
from backend.storage.project_state import ProjectState
from tests.support.builders import data_uri
from tests.support.commands import run_command
from tests.support.exporting import ALL, annotation, connected, run_export
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, StubStudio

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<Choices name="tags" toName="image" choice="multiple" model_score_threshold="0">'
    '<Choice value="cat"/><Choice value="その他" model_skip="true"/>'
    '<Choice value="old" visible="false"/></Choices>'
    '<Choices name="quality" toName="image" model_skip="true">'
    '<Choice value="sharp"/><Choice value="blurred"/></Choices>'
    '<Choices name="part" toName="image" perRegion="true"><Choice value="head"/></Choices></View>'
)
BOX = {"id": "r1", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": {}}
PART = {**BOX, "from_name": "part", "type": "choices", "value": {"choices": ["head"]}}

Export = Callable[..., Written]


def item(control: str, *choices: str) -> dict[str, Any]:
    return annotation(0, *choices, control=control)["result"][0]


@pytest.fixture
def export(make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path) -> Export:
    """Exports a project whose first two tasks are annotated."""
    studio.config = CONFIG
    studio.tasks = {number: {"image": data_uri(number)} for number in (1, 2, 3)}
    both = [item("tags", "その他"), item("quality", "blurred")]
    studio.annotations = {
        1: [annotation(1) | {"result": both}],
        2: [annotation(2, "cat")],
    }
    studio.annotated = {1, 2}
    runtime = make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40)
    connected(runtime, studio)

    def run(kind: Format, **fields: Any) -> Written:
        return run_export(runtime.settings, kind, tmp_path / kind, **fields)

    return run


def test_what_people_chose_among_skipped_labels_and_controls_is_exported_without_a_probability(
    export: Export, tmp_path: Path
):
    assert not export(Format.CSV, states=ALL).unread
    with (tmp_path / Format.CSV).open(newline="") as file:
        rows = {(row["task"], row["label"]): row for row in csv.DictReader(file)}
    labels = ("cat", "その他", "sharp", "blurred")
    said = {task: [rows[task, label]["presence"] for label in labels] for task in "123"}
    assert said == {
        "1": ["absent", "present", "absent", "present"],
        "2": ["present", "absent", "absent", "absent"],
        "3": ["present", "unknown", "unknown", "unknown"],
    }
    skipped = [rows[task, label] for task in "123" for label in labels[1:]]
    assert {(row["probability"], row["version"]) for row in skipped} == {("", "")}
    assert rows["3", "cat"]["state"] == "pseudo"
    export(Format.COCO)
    coco = json.loads((tmp_path / Format.COCO).read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    found = [(one["image_id"], names[one["category_id"]]) for one in coco["annotations"]]
    assert found == [(1, "その他"), (1, "blurred"), (2, "cat")]


def test_label_studio_tasks_keep_all_results(export: Export, studio: StubStudio, tmp_path: Path):
    studio.annotations[1] = [
        annotation(1)
        | {"result": [item("tags", "その他", "old"), BOX, item("clip_evidence", "x")]},
        annotation(2, completed_by=2, updated_at="2026-11-22T07:00:00Z")
        | {"result": [item("tags", "その他"), PART]},
    ]
    studio.annotations[3] = [annotation(3) | {"result": [BOX], "lead_time": None}]
    assert not export(Format.LABELSTUDIO, states=(State.APPROVED,)).unread
    first, second, third = json.loads((tmp_path / Format.LABELSTUDIO).read_text())
    results = [[one["result"] for one in task["annotations"]] for task in (first, second, third)]
    assert results[0] == [[item("tags", "その他", "old"), BOX], [PART]]
    assert results[1:] == [[[item("tags", "cat")]], [[BOX]]]
    request = ArchiveRequest(parse_config(CONFIG))
    (row, *_) = rows_of_tasks(tmp_path, [first], request)
    assert row.labels == ("その他", "old") and request.names.has("その他")


def test_answers_in_controls_that_cannot_be_exported_are_told_with_the_reason(
    export: Export, studio: StubStudio, tmp_path: Path
):
    studio.annotations[1][0]["result"] += [PART, {**PART, "id": "r2"}]
    studio.annotations[2][0]["result"] = [item("tags", "cat", "old")]
    variables = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": "f" * 40}
    variables |= {"LS_CLIP_STORE": str(tmp_path / "store")}
    done = run_command("export", "1", cwd=tmp_path, **variables)
    text = " ".join(done.stderr.split())
    assert done.returncode == 3, text
    assert "Left out: <Choices name='part'>: it labels regions, not the image. 1 task has" in text
    assert "Left out: <Choices name='tags'>: nobody can select old" in text
    done = run_command("export", "1", "--format", "labelstudio", cwd=tmp_path, **variables)
    assert done.returncode == 0 and "Left out" not in done.stderr


def test_a_reviewed_task_stays_so_where_a_skipped_label_was_added_later(
    export: Export, make_runtime: MakeRuntime, tmp_path: Path
):
    before = {"tags": ["cat"]}
    ProjectState(make_runtime().store, KEY).labels_since(before, 0.0)
    export(Format.COCO)
    first, second, third = json.loads((tmp_path / Format.COCO).read_text())["images"]
    assert [one["reviewed"] for one in (first, second, third)] == [True, True, False]
    # What was not yet asked is not absent.
    assert len(first["present_category_ids"]) == 2 and len(first["absent_category_ids"]) == 1
    assert len(second["unknown_category_ids"]) == 3
