"""What connecting a project says of its suggestions: how many are ticked, and what is missing."""

from __future__ import annotations

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import ConnectReport, connect
from backend.projects.review import ticks_sentence
from backend.runtime import Runtime
from tests.support.attribute_configs import IMAGE
from tests.support.builders import choices_config
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import PROJECT, StubStudio


def connected(runtime: Runtime) -> ConnectReport:
    return connect(runtime.settings, LabelStudioClient(runtime.settings), runtime, PROJECT)


def test_labels_that_are_ticked_are_counted_a_task(
    make_runtime: MakeRuntime, runtime: Runtime, studio: StubStudio
):
    # Everything is over a threshold of 0.
    assert connected(runtime).ticks == 2.0
    given = {"label_studio_url": studio.url, "label_studio_api_key": "f" * 40}
    assert connected(make_runtime(threshold=1.0, **given)).ticks == 0.0
    studio.config = choices_config("cat", "dog").replace('"multiple"', '"single"')
    assert connected(runtime).ticks == 1.0


def tags(name: str, labels: int, attributes: str = "", each: str = "") -> str:
    inner = "".join(f'<Choice value="{name}{place}" {each}/>' for place in range(labels))
    return f'<Choices name="{name}" toName="image" {MULTIPLE} {attributes}>{inner}</Choices>'


MULTIPLE = 'choice="multiple"'
BOLD = 'model_score_threshold="0"'
SHY = 'model_score_threshold="1"'
UNSEEN = 'visibleWhen="choice-selected" whenTagName="a" whenChoiceValue="a0"'


@pytest.mark.parametrize(
    ("controls", "ticks"),
    [
        (
            tags("t", 8, f'maxUsages="3" {BOLD}')
            .replace("Choices", "Taxonomy")
            .replace(MULTIPLE, ""),
            3.0,
        ),
        (
            tags("a", 4, BOLD) + tags("b", 8, f"{BOLD} {UNSEEN.replace('selected', 'unselected')}"),
            4.0,
        ),
        (tags("a", 3, SHY) + tags("b", 4, f"{BOLD} {UNSEEN}"), 0.0),
        (tags("a", 2, SHY, 'selected="true"'), 2.0),
        (tags("a", 2, f'model_skip="true" {SHY}', 'selected="true"') + tags("b", 1, BOLD), 3.0),
        (tags("a", 1, f'value="$options" {BOLD}'), 3.0),
    ],
    ids=["limited", "hidden", "not asked", "preselected", "preselected in one left out", "own"],
)
def test_ticks_are_those_of_the_predictions(
    controls: str, ticks: float, runtime: Runtime, studio: StubStudio
):
    for data in studio.tasks.values():
        data["options"] = [{"value": "cat"}, {"value": "dog"}]
    studio.config = f"<View>{IMAGE}{controls}</View>"
    assert connected(runtime).ticks == ticks
    assert connected(runtime).ticks == ticks


def test_of_many_tasks_a_sample_is_counted_which_is_said(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backend.projects.connect.TICKED_TASKS", 20)
    assert len(studio.tasks) > 20
    assert connected(runtime).ticks == 2.0
    assert (
        ticks_sentence(1.0, 2001, required=False)
        == "Labels ticked: 1.00 a task, in a sample of 2000 tasks."
    )


def test_few_ticks_are_explained():
    assert ticks_sentence(1.234, 10, required=False) == "Labels ticked: 1.23 a task."
    for required in (False, True):
        few = ticks_sentence(0.02, 10, required=required)
        assert "likelier right than wrong" in few
        assert ('required="true"' in few) is not required


def test_without_a_queue_nobody_is_told_to_wait_for_a_head(runtime: Runtime, studio: StubStudio):
    assert not any("No head will learn" in note for note in connected(runtime).warnings)
    studio.config = choices_config("cat", "犬")
    assert any("No head will learn" in note for note in connected(runtime).warnings)
