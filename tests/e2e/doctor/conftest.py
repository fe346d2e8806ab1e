"""A connected project for the doctor."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.doctor import Connected
from tests.support.live import MakeProject


@pytest.fixture
def connected(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> Connected:
    """Make a project and connect it."""

    def make(**arguments: Any) -> int:
        project = make_project(**{"photos": 3, **arguments})
        connect(settings, studio, runtime, project)
        return project

    return make
