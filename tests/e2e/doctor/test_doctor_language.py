"""A project that is connected and examined in Japanese, while the server still speaks English."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.labels.config import EVIDENCE_NAME
from backend.labelstudio.client import LabelStudioClient
from backend.messages.catalogue import Language
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.commands import run_command
from tests.support.doctor import changed
from tests.support.english import said_in_english
from tests.support.live import MakeProject, environment_of, shown_predictions


def test_a_project_in_japanese(
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    project = make_project(photos=3)
    english = connect(settings, studio, runtime, project)
    spoken = changed(settings, language=Language.JAPANESE)
    monkeypatch.setattr("backend.runtime.get_encoder", lambda *_: runtime.encoder)
    japanese = connect(spoken, studio, Runtime(spoken), project)
    assert (japanese.imported, japanese.failures) == (3, {})
    assert japanese.model_version != english.model_version
    for prediction in shown_predictions(studio, project).values():
        lines = next(
            item["value"]["text"]
            for item in prediction["result"]
            if item["from_name"] == EVIDENCE_NAME
        )
        assert lines[0].startswith(("候補: ", "このタスクには、あえて候補を表示していません"))

    monkeypatch.setattr("backend.doctor.context.get_encoder", lambda *_: runtime.encoder)
    done = run_command("doctor", str(project), "--json", cwd=tmp_path, **environment_of(spoken))
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["backend-settings"]["what"].endswith("値が異なります: LS_CLIP_LANGUAGE")
    assert english.model_version in findings["backend-version"]["what"]
    assert findings["predictions-versions"]["severity"] == "note"
    for finding in findings.values():
        said = f"{finding['what']} {finding['why']} {finding['fix']}"
        assert said_in_english(said) == [], finding
