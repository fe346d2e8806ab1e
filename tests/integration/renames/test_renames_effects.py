"""What follows a renamed label: heads, thresholds, known labels; and who tells of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.cli.labels import ask_about_renames
from backend.doctor.checks import CHECKS
from backend.doctor.context import Context
from backend.doctor.finding import Severity
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.runtime import Runtime
from backend.storage.head_registry import HeadRegistry
from backend.storage.head_set import FittedControl
from backend.storage.installations import open_store
from backend.storage.project_state import ProjectState
from tests.support.builders import choices_config, data_uri
from tests.support.commands import run_command
from tests.support.heads import head_set
from tests.support.renames import Labels, Rename
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio


def test_known_labels_follow_and_the_version_is_another_one(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename
):
    ProjectState(runtime.store, KEY).set_known_field("category")
    labels("cat", "dog")
    labels("cat", "hound")
    task = {"id": 1, "data": {"image": data_uri(1), "category": "dog"}}
    config = parse_config(studio.config)

    def ticked() -> tuple[str, set[str]]:
        version = runtime.versions.get(config, KEY)
        (prediction,) = Predictor(version, runtime.embedder).predict([task])
        known = {
            label.key
            for part in prediction.scored
            for label in part.suggested
            if part.control.labels.index(label) in part.known
        }
        return version.name, known

    before, known = ticked()
    assert known == set()
    go("dog", "hound")
    after, known = ticked()
    assert known == {"hound"}
    assert after != before
    go("hound", "dog")
    assert ticked() == (before, set())


def test_a_head_and_its_thresholds_follow_the_label(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename
):
    heads = HeadRegistry(runtime.store)
    trained = head_set("h1", runtime.encoder.id, runtime.encoder.dim)
    fitted = trained.controls["tags"]
    head = replace(fitted.head, card=replace(fitted.head.card, counts={"dog": 9, "cat": 1}))
    trained = replace(trained, controls={"tags": FittedControl(head, (0.1, 0.2, 0.3))})
    heads.save(KEY, trained)
    heads.set_serving(KEY, "h1")
    labels("cat", "dog", "outdoor")
    labels("cat", "hound", "outdoor")
    config = parse_config(studio.config)
    row = runtime.versions.get(config, KEY).heads["tags"]
    assert float(row.head.weight[1].abs().sum()) == 0.0
    go("dog", "hound")
    version = runtime.versions.get(config, KEY)
    row = version.heads["tags"]
    assert row.thresholds == (0.1, 0.2, 0.3)
    assert row.head.card.labels == ("cat", "hound", "outdoor")
    assert row.head.weight.equal(head.weight) and row.head.slope.equal(head.slope)
    assert version.learned["tags"] == {"hound"}


def test_a_merged_label_keeps_its_own_part_of_the_head(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename
):
    heads = HeadRegistry(runtime.store)
    trained = head_set("h1", runtime.encoder.id, runtime.encoder.dim)
    fitted = trained.controls["tags"]
    trained = replace(trained, controls={"tags": FittedControl(fitted.head, (0.1, 0.2, 0.3))})
    heads.save(KEY, trained)
    heads.set_serving(KEY, "h1")
    labels("cat", "dog", "outdoor")
    labels("cat", "outdoor")
    go("dog", "cat")
    row = runtime.versions.get(parse_config(studio.config), KEY).heads["tags"]
    assert row.thresholds == (0.1, 0.3)
    assert row.head.slope.tolist() == fitted.head.slope[[0, 2]].tolist()


def test_the_command_renames_and_the_others_show_it(
    labels: Labels, studio: StubStudio, runtime: Runtime, tmp_path: Path
):
    given = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
        "LS_CLIP_ENCODER": "offline",
    }

    def cli(*arguments: str) -> tuple[int, str]:
        done = run_command(*arguments, cwd=tmp_path, **given)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    labels("cat", "dog")
    labels("cat", "hound")
    code, text = cli("rename", "1", "dog", "wolf")
    assert code == 1 and "Error:" in text and "Fix:" in text
    code, text = cli("rename", "1", "dog", "hound")
    assert code == 0 and "'dog' is understood as 'hound'" in text
    code, text = cli("heads", "1", "--json")
    assert json.loads(text)["renamed"] == {"tags": {"dog": "hound"}}
    assert "dog is understood as hound" in cli("heads", "1")[1]
    code, text = cli("rename", "1", "hound", "dog")
    assert code == 0 and "again" in text
    assert json.loads(cli("heads", "1", "--json")[1])["renamed"] == {}


def test_renames_are_kept_by_forget(labels: Labels, runtime: Runtime, go: Rename):
    labels("cat", "dog")
    labels("cat", "hound")
    go("dog", "hound")
    runtime.prediction_log.purge(f"{PROJECT}.")
    again = ProjectState(open_store(runtime.settings), KEY)
    assert again.former_names() == {"tags": {"dog": "hound"}}


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_question_is_asked_once(
    answer: bool,
    labels: Labels,
    client: LabelStudioClient,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
):
    labels("cat", "dog")
    labels("cat", "hound")
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    for _ in range(2):
        ask_about_renames(runtime.settings, client, PROJECT)
    assert len(asked) == 1
    former = ProjectState(runtime.store, KEY).former_names()
    assert former == ({"tags": {"dog": "hound"}} if answer else {})


def test_doctor_names_a_probable_rename_and_those_in_effect(
    labels: Labels, studio: StubStudio, runtime: Runtime, go: Rename
):
    (check,) = [one for one in CHECKS if one.id == "labels-renamed"]
    context = Context(runtime.settings, PROJECT)
    labels("cat", "dog")
    # Nobody has run connect since.
    studio.config = choices_config("cat", "hound")
    (finding,) = check.function(context)
    assert finding.severity == Severity.NOTE
    assert "ls-clip rename 1 dog hound" in finding.fix
    go("dog", "hound")
    (finding,) = check.function(Context(runtime.settings, PROJECT))
    assert finding.severity == Severity.OK
    assert "'dog' as 'hound'" in finding.what
