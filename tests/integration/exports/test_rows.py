"""Which labels of which tasks an export holds, and in which state."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.labels.config import parse_config
from backend.projects.export.export import Format, RowsPer
from backend.projects.export.splits import Shares
from backend.projects.label_states import State
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.decisions import NEGATIVE, POSITIVE, Provenance
from tests.support.attribute_configs import IMAGE
from tests.support.builders import LABELS_OF_TASKS, choices_config, data_uri
from tests.support.exporting import (
    ALL,
    annotation,
    connected,
    keep_scores,
    rows_of,
    run_export,
)
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import predict
from tests.support.stub_label_studio import KEY, StubStudio

TOKEN = {"label_studio_api_key": "f" * 40}
BOLD = choices_config("cat", "dog", attributes='choice="multiple" model_score_threshold="0"')
"""Suggests every label."""


def test_what_nobody_looked_at_is_not_exported_as_approved(
    make_runtime: MakeRuntime, studio: StubStudio
):
    studio.tasks = {number: {"image": data_uri(number)} for number in (1, 2)}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    states = (POSITIVE, NEGATIVE)
    found = [
        Approval(1, states, Provenance.BULK, 1.0),
        Approval(2, states, Provenance.EDITED, 1.0),
    ]
    config = parse_config(choices_config("cat", "dog"))
    rows = rows_of(runtime, Pulled(KEY, config, {"tags": found}, studio.tasks), pseudo=False)
    said = {task.task: [(one.state, one.presence) for one in task.labels] for task in rows}
    assert said == {
        1: [("unknown", "unknown"), ("unknown", "unknown")],
        2: [("approved", "present"), ("approved", "absent")],
    }


def test_labels_that_stand_in_the_data_are_exported_as_approved_or_as_they_were_suggested(
    make_runtime: MakeRuntime, studio: StubStudio
):
    bold = LABELS_OF_TASKS.replace("choice=", 'model_score_threshold="0" choice=')
    studio.tasks = {
        number: {"image": data_uri(number), "options": [{"value": "cat"}, {"value": "dog"}]}
        for number in (1, 2)
    }
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    shown = keep_scores(runtime, bold, studio.tasks)
    own = {"tags": [Approval(1, (NEGATIVE, POSITIVE), Provenance.EDITED, 1.0)]}
    pulled = Pulled(KEY, parse_config(bold), {}, {}, own)
    first, second = rows_of(runtime, pulled, pseudo=True, version=shown)
    assert [(one.label.key, one.state, one.presence) for one in first.labels] == [
        ("cat", "approved", "absent"),
        ("dog", "approved", "present"),
    ]
    assert {one.state for one in second.labels} == {"pseudo"}


def test_probabilities_are_those_that_were_kept(make_runtime: MakeRuntime, studio: StubStudio):
    studio.config, studio.tasks = BOLD, {1: {"image": data_uri(1)}}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    shown = keep_scores(runtime, BOLD, studio.tasks)
    (prediction,) = predict(runtime, BOLD, [{"id": 1, "data": studio.tasks[1]}])
    pulled = Pulled(KEY, parse_config(BOLD), {}, {})
    (task,) = rows_of(runtime, pulled, pseudo=True, version=shown)
    kept = {one.label.key: one.probability for one in task.labels}
    assert kept == pytest.approx(prediction.probabilities["tags"], abs=1e-3)
    assert task.score == prediction.score
    assert {one.version for one in task.labels} == {shown}
    # Of another version nothing is kept.
    (task,) = rows_of(runtime, pulled, pseudo=True, version="another")
    assert {(one.state, one.probability, one.version) for one in task.labels} == {
        ("unknown", None, "")
    }


def test_what_a_left_out_control_preselects_shows_and_hides_suggestions_as_in_the_prediction(
    make_runtime: MakeRuntime, studio: StubStudio
):
    def asked(name: str, when: str) -> str:
        return (
            f'<View visibleWhen="{when}" whenTagName="kind" whenChoiceValue="photo">'
            f'<Choices name="{name}" toName="image" choice="multiple" model_score_threshold="0">'
            '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
        )

    config = (
        f'<View>{IMAGE}<Choices name="kind" toName="image" model_skip="true">'
        '<Choice value="photo" selected="true"/><Choice value="drawing"/></Choices>'
        f"{asked('shown', 'choice-selected')}{asked('hidden', 'choice-unselected')}</View>"
    )
    studio.tasks = {1: {"image": data_uri(1)}}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    version = keep_scores(runtime, config, studio.tasks)
    pulled = Pulled(KEY, parse_config(config), {}, {})
    (task,) = rows_of(runtime, pulled, pseudo=True, version=version)
    assert {(one.control.name, one.state) for one in task.labels} == {
        ("shown", "pseudo"),
        ("hidden", "unknown"),
    }


def test_only_the_states_that_are_asked_for_are_in_the_file(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.config = BOLD
    studio.tasks = {number: {"image": data_uri(number)} for number in (1, 2)}
    studio.annotations = {1: [annotation(1, "cat")]}
    studio.annotated = {1}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    connected(runtime, studio)
    counts = {}
    for states in ((State.APPROVED,), (State.PSEUDO,), (State.KNOWN,), ALL):
        for kind in (Format.CSV, Format.COCO, Format.LABELSTUDIO):
            path = tmp_path / f"{kind}-{'-'.join(states)}"
            tally = run_export(runtime.settings, kind, path, states=states).tally
            counts[states, kind] = (tally.tasks, tally.no_label, dict(tally.states))
    for kind in (Format.CSV, Format.COCO, Format.LABELSTUDIO):
        assert counts[(State.APPROVED,), kind] == (1, 1, {"approved": 2})
        assert counts[(State.PSEUDO,), kind] == (1, 1, {"pseudo": 2})
        assert counts[(State.KNOWN,), kind] == (0, 2, {})
        assert counts[ALL, kind] == (2, 0, {"approved": 2, "pseudo": 2})


def test_suggestions_that_are_not_there_are_not_exported_as_none(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.tasks = {1: {"image": data_uri(1)}}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    for shown in ("", "another"):
        studio.shown = shown
        with pytest.raises(SettingsError, match="no suggestions are kept") as caught:
            run_export(runtime.settings, Format.CSV, tmp_path / "out.csv", states=ALL)
        assert "ls-clip connect 1" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_image_that_stands_in_the_data_is_named_in_each_row_and_not_repeated(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.tasks = {1: {"image": data_uri(1)}, 2: {"image": "/data/upload/1/a.jpg"}}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    connected(runtime, studio)
    run_export(runtime.settings, Format.CSV, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        images = [row["image"] for row in csv.DictReader(file)]
    digest = hashlib.sha256(data_uri(1).encode()).hexdigest()
    assert images == [f"data:{digest}"] * 3 + ["/data/upload/1/a.jpg"] * 3


SEVERAL = (
    '<View><Image name="front" value="$front"/><Image name="back" value="$back"/>'
    '<Choices name="seen" toName="front" choice="multiple"><Choice value="cat"/>'
    '<Choice value="task"/></Choices>'
    '<Choices name="more" toName="back" choice="multiple"><Choice value="cat"/></Choices></View>'
)


def test_each_image_of_a_task_has_a_row_and_each_label_a_column_of_its_own(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.config = SEVERAL
    studio.tasks = {
        number: {"front": data_uri(number), "back": data_uri(50 + number)} for number in (1, 2)
    }
    studio.tasks[3] = {"text": "no image"}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    connected(runtime, studio)
    path = tmp_path / "out.csv"
    written = run_export(runtime.settings, Format.CSV, path, rows=RowsPer.IMAGE)
    assert (written.tally.tasks, written.tally.no_image) == (2, 1)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["1", "1", "2", "2"]
    assert list(rows[0])[-3:] == ["seen/cat", "seen/task", "more/cat"]
    run_export(runtime.settings, Format.COCO, path, sizes=True)
    coco = json.loads(path.read_text())
    assert [(one["id"], one["task"]) for one in coco["images"]] == [(1, 1), (3, 1), (2, 2), (4, 2)]


def test_labels_that_only_tasks_know_have_columns_and_categories(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.config = LABELS_OF_TASKS
    studio.tasks = {
        1: {"image": data_uri(1), "options": [{"value": "cat"}]},
        2: {"image": data_uri(2), "options": [{"value": "dog"}, {"value": "cat"}]},
    }
    studio.annotations = {2: [annotation(1, "dog")]}
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    path = tmp_path / "out"
    run_export(runtime.settings, Format.CSV, path, rows=RowsPer.IMAGE)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cat"], row["dog"]) for row in rows] == [("", ""), ("0", "1")]
    run_export(runtime.settings, Format.COCO, path)
    assert [one["name"] for one in json.loads(path.read_text())["categories"]] == ["cat", "dog"]


def test_half_a_character_in_a_task_spoils_no_format(
    make_runtime: MakeRuntime, studio: StubStudio, tmp_path: Path
):
    studio.tasks = {
        1: {"image": data_uri(1), "clip_source": "half\ud800.png"},
        2: {"image": "https://photos.test/half\ud800.jpg"},
    }
    runtime = make_runtime(label_studio_url=studio.url, **TOKEN)
    shares = Shares(1.0, 0.0, 0.0)
    for kind in Format:
        written = run_export(runtime.settings, kind, tmp_path / kind, shares=shares)
        assert written.tally.tasks == (1 if kind == Format.IMAGEFOLDER else 2)
    items = json.loads((tmp_path / "labelstudio").read_text())
    assert [item["data"] for item in items] == [*studio.tasks.values()]
