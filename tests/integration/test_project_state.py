"""A project's state in the store: the ages of its labels and its known-label field."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import StoreError
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.storage.label_history import FormerLabel
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


def test_a_store_of_the_first_release_keeps_its_ages_and_begins_a_history(tmp_path: Path):
    store = Store(str(tmp_path))
    store.artifacts.write(f"projects/{KEY}/labels", {"tags": {"cat": 0.0, "dog": 7.0}})
    state = ProjectState(store, KEY)
    assert state.labels_since({"tags": ["cat", "tree"]}, 9.0)["tags"] == {"cat": 0.0, "tree": 9.0}
    history = state.label_history()
    assert history.began == 0.0
    assert history.gone == {"tags": {"dog": FormerLabel(7.0, 9.0, 1)}}
    assert state.labels_since({"tags": ["dog"]}, 10.0)["tags"] == {"dog": 10.0}
    assert set(state.label_history().gone["tags"]) == {"cat", "tree"}


def test_a_damaged_file_about_labels_is_named(tmp_path: Path):
    store = Store(str(tmp_path))
    state = ProjectState(store, KEY)
    store.artifacts.write(f"projects/{KEY}/renames", {"controls": {"tags": [{"old": 1}]}})
    store.artifacts.write(f"projects/{KEY}/former-labels", {"began": "x"})
    with pytest.raises(StoreError, match=r"renames\.json"):
        state.renames()
    with pytest.raises(StoreError, match=r"former-labels\.json"):
        state.label_history()
