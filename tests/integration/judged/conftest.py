"""A project on the stub Label Studio, to be reviewed; see `tests.support.judged`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from backend.runtime import Runtime
from tests.support.builders import choices_config, data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.judged import AUDIT_SHARE, BLIND_SHARE, TASKS
from tests.support.stub_label_studio import StubStudio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())
    monkeypatch.setattr("backend.labelstudio.importing.SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("backend.projects.calls.LOCKS", tmp_path / "locks")
    # What the stub does not have.
    for step in ("register_backend", "make_webhook", "show_scores"):
        monkeypatch.setattr(f"backend.projects.connect.{step}", lambda *_: None)


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio) -> Runtime:
    studio.config = choices_config("cat", "dog")
    studio.tasks |= {number: {"image": data_uri(number)} for number in TASKS}
    given = {"label_studio_url": studio.url, "label_studio_api_key": "f" * 40}
    return make_runtime(audit_share=AUDIT_SHARE, blind_share=BLIND_SHARE, threshold=0.0, **given)


@pytest.fixture
def reviewed(studio: StubStudio) -> Callable[..., None]:
    """Let all tasks be reviewed; the truth is one label."""

    def review(label: str = "cat", **fields: Any) -> None:
        item = {"from_name": "tags", "to_name": "image", "type": "choices"}
        for number in TASKS:
            studio.annotated.add(number)
            studio.annotations[number] = [
                {
                    "id": number,
                    "result": [{**item, "value": {"choices": [label]}}],
                    "was_cancelled": False,
                    "completed_by": 1,
                    "lead_time": 3.0,
                    "created_at": "2026-11-23T07:00:00Z",
                    "updated_at": "2026-11-23T07:00:00Z",
                    **fields,
                }
            ]

    return review
