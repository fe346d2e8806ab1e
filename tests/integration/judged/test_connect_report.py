"""What connecting a project says of its suggestions: how many are ticked, and what is missing."""

from __future__ import annotations

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import ConnectReport, connect
from backend.projects.review import ticks_sentence
from backend.runtime import Runtime
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


def test_few_ticks_are_explained():
    assert ticks_sentence(1.234) == "Labels ticked: 1.23 a task."
    assert "likelier right than wrong" in ticks_sentence(0.02)


def test_without_a_queue_nobody_is_told_to_wait_for_a_head(runtime: Runtime, studio: StubStudio):
    assert not any("No head will learn" in note for note in connected(runtime).warnings)
    studio.config = choices_config("cat", "犬")
    assert any("No head will learn" in note for note in connected(runtime).warnings)
