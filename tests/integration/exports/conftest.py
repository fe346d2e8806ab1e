"""A project that has a bit of everything: reviews, suggestions, odd names, and a lost image."""

from __future__ import annotations

import pytest

from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.builders import choices_config, data_uri
from tests.support.exporting import annotation, connected
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import StubStudio

LOST = 6
"""A task whose image is gone."""


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio) -> Runtime:
    """Of a project that shows predictions of its tasks; a stub encoder, and no network."""
    studio.config = choices_config(
        "cat", "dog, &quot;wild&quot;", "犬", attributes='choice="multiple" threshold="0.5"'
    )
    names = {
        1: "cat/1.jpg",
        2: "CAT/1.JPG",
        3: f"cat/{'x' * 300}.png",
        4: "a, b\nc.png",
        5: "../../etc/passwd.png",
    }
    studio.tasks = {
        number: {"image": data_uri(number), "clip_source": name} for number, name in names.items()
    }
    runtime = make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40)
    connected(runtime, studio)
    studio.tasks[LOST] = {"image": "/data/upload/1/0a1b2c3d-gone.jpg"}
    studio.annotations = {
        1: [annotation(1, "cat")],
        2: [annotation(2, "犬", 'dog, "wild"')],
        LOST: [annotation(3)],
    }
    return runtime


@pytest.fixture
def settings(runtime: Runtime) -> Settings:
    return runtime.settings
