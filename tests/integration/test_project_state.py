"""A project's state in the store: the ages of its labels and its known-label field."""

from __future__ import annotations

from pathlib import Path

from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.storage.project_state import ProjectState
from backend.storage.store import Store
from tests.support.builders import LABELS, choices_config, data_uri
from tests.support.fixtures import MakeRuntime

KEY = "1.1795416973"


def test_labels_have_an_age(tmp_path: Path):
    state = ProjectState(Store(str(tmp_path)), KEY)
    first = parse_config(choices_config("cat", "dog"))
    assert state.labels_since(first.label_keys(), 100.0) == {"tags": {"cat": 0.0, "dog": 0.0}}
    more = parse_config(choices_config("cat", "dog", "tree"))
    assert state.labels_since(more.label_keys(), 200.0)["tags"] == {
        "cat": 0.0,
        "dog": 0.0,
        "tree": 200.0,
    }
    assert state.labels_since(more.label_keys(), 300.0)["tags"]["tree"] == 200.0
    state.labels_since(parse_config(choices_config("cat")).label_keys(), 400.0)
    assert state.labels_since(more.label_keys(), 500.0)["tags"]["dog"] == 500.0


def test_a_known_label_is_ticked_whatever_the_model_thinks(make_runtime: MakeRuntime):
    runtime = make_runtime(threshold=1.0)
    config = parse_config(choices_config())
    before = runtime.versions.get(config, KEY).name
    ProjectState(runtime.store, KEY).set_known_field("category")
    version = runtime.versions.get(config, KEY)
    assert version.name != before
    task = {"id": 1, "data": {"image": data_uri(1), "category": LABELS[2]}}
    (prediction,) = Predictor(version, runtime.embedder).predict([task])
    assert prediction.result is not None
    assert prediction.result[0]["value"] == {"choices": [LABELS[2]]}
    assert prediction.probabilities["tags"][LABELS[2]] == 1.0
