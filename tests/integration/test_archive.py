"""What comes in from archives and goes out in exports, file by file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.importing import Imported, import_rows
from backend.projects.archives.rows import Row
from backend.projects.export import exported, write
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.head import Provenance
from backend.vlpl.objectives import NEGATIVE, POSITIVE
from tests.support.builders import choices_config, data_uri, make_settings
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, stub_studio

TOKEN = {"label_studio_api_key": "f" * 40}


def test_an_image_that_stands_in_the_data_is_named_in_each_row_and_not_repeated(
    tmp_path: Path, make_runtime: MakeRuntime
):
    with stub_studio() as stub:
        stub.tasks = {1: {"image": data_uri(1)}, 2: {"image": "/data/upload/1/a.jpg"}}
        runtime = make_runtime(label_studio_url=stub.url, **TOKEN)
        pulled = Pulled(KEY, parse_config(choices_config()), {}, {})
        tasks = exported(LabelStudioClient(runtime.settings), runtime, 1, pulled, pseudo=True)
        written = write("csv", tasks, tmp_path / "out.csv")
    assert written.tasks == 2
    assert sum(written.states.values()) == 2 * len(pulled.config.controls[0].labels)
    with (tmp_path / "out.csv").open() as file:
        images = {row["task"]: row["image"] for row in csv.DictReader(file)}
    assert images["1"].startswith("data:") and len(images["1"]) < 80
    assert images["2"] == "/data/upload/1/a.jpg"


def test_tasks_with_several_pages_are_no_obstacle_to_an_import():
    with stub_studio() as stub:
        stub.tasks = {1: {"image": ["a.jpg", "b.jpg"], "clip_source": {"x": 1}}, 2: {"image": "c"}}
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN)
        )
        rows = [Row("row 2", ("cat",), image="c")]
        assert import_rows(studio, 1, rows, "image", "known_label") == Imported(0, 1)


def test_a_label_that_has_changed_in_the_archive_is_counted():
    uri = data_uri(1)
    with stub_studio() as stub:
        stub.tasks = {
            1: {"image": uri, "known_label": "cat"},
            2: {"image": "b", "known_label": ["cat", "dog"]},
        }
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN)
        )
        rows = [Row("row 2", ("cat",), image=uri), Row("row 3", ("dog",), image="b")]
        assert import_rows(studio, 1, rows, "image", "known_label") == Imported(0, 1)


def test_what_nobody_looked_at_is_not_exported_as_approved(make_runtime: MakeRuntime):
    with stub_studio() as stub:
        stub.tasks = {number: {"image": data_uri(number)} for number in (1, 2)}
        runtime = make_runtime(label_studio_url=stub.url, **TOKEN)
        states = (POSITIVE, NEGATIVE)
        found = [
            Approval(1, states, Provenance.BULK, 1.0),
            Approval(2, states, Provenance.EDITED, 1.0),
        ]
        config = parse_config(choices_config("cat", "dog"))
        pulled = Pulled(KEY, config, {"tags": found}, stub.tasks)
        studio = LabelStudioClient(runtime.settings)
        tasks = [*exported(studio, runtime, 1, pulled, pseudo=False)]
    said = {one.task: [state.state for state in one.controls[0][1]] for one in tasks}
    assert said == {1: ["unknown", "unknown"], 2: ["approved", "approved"]}


def test_coco_has_an_annotation_for_what_is_there_and_names_what_is_absent(
    make_runtime: MakeRuntime, tmp_path: Path
):
    with stub_studio() as stub:
        stub.tasks = {1: {"image": data_uri(1)}}
        runtime = make_runtime(label_studio_url=stub.url, **TOKEN)
        found = [Approval(1, (POSITIVE, NEGATIVE, 0), Provenance.EDITED, 1.0)]
        config = parse_config(choices_config("cat", "dog", "tree"))
        pulled = Pulled(KEY, config, {"tags": found}, stub.tasks)
        tasks = exported(LabelStudioClient(runtime.settings), runtime, 1, pulled, pseudo=False)
        written = write("coco", tasks, tmp_path / "coco.json")
    assert dict(written.states) == {"approved": 2, "unknown": 1}
    content = json.loads((tmp_path / "coco.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert [names[one["category_id"]] for one in content["annotations"]] == ["cat"]
    (image,) = content["images"]
    assert [names[number] for number in image["absent"]] == ["dog"]


def test_labels_that_stand_in_the_data_are_exported_as_approved(make_runtime: MakeRuntime):
    config = parse_config(
        '<View><Image name="image" value="$image"/>'
        '<Choices name="tags" toName="image" choice="multiple" value="$options"/></View>'
    )
    with stub_studio() as stub:
        stub.tasks = {1: {"image": data_uri(1), "options": [{"value": "cat"}, {"value": "dog"}]}}
        runtime = make_runtime(label_studio_url=stub.url, **TOKEN)
        own = {"tags": [Approval(1, (NEGATIVE, POSITIVE), Provenance.EDITED, 1.0)]}
        pulled = Pulled(KEY, config, {}, {}, own)
        (one,) = exported(LabelStudioClient(runtime.settings), runtime, 1, pulled, pseudo=False)
    rows = one.controls[0][1]
    assert [(row.label, row.state, row.present) for row in rows] == [
        ("cat", "approved", False),
        ("dog", "approved", True),
    ]
