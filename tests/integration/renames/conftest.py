"""A project whose labels are changed, and what renames them."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.projects.renaming import notice, rename
from backend.runtime import Runtime
from backend.training.approvals import Approval
from backend.training.head_trainer import HeadTrainer
from tests.support.builders import choices_config
from tests.support.fixtures import MakeRuntime
from tests.support.renames import Labels, Pulled, Rename
from tests.support.stub_label_studio import PROJECT, StubStudio


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio) -> Runtime:
    return make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40)


@pytest.fixture
def client(runtime: Runtime) -> LabelStudioClient:
    return LabelStudioClient(runtime.settings)


@pytest.fixture
def labels(studio: StubStudio, client: LabelStudioClient, runtime: Runtime) -> Labels:
    def change(*names: str, more: tuple[str, ...] = ()) -> None:
        extra = "".join(f'<Choice value="{name}"/>' for name in more)
        second = f'<Choices name="more" toName="image" choice="multiple">{extra}</Choices>'
        studio.config = choices_config(*names, extra=second if more else "")
        notice(client, runtime.store, PROJECT)

    return change


@pytest.fixture
def go(client: LabelStudioClient, runtime: Runtime) -> Rename:
    def run(old: str, new: str, control: str | None = None) -> Any:
        return rename(client, runtime.store, PROJECT, (old, new), control)

    return run


@pytest.fixture
def pulled(client: LabelStudioClient, runtime: Runtime) -> Pulled:
    trainer = HeadTrainer(runtime.settings, client, runtime.versions, runtime.embedder)

    def pull() -> dict[str, list[Approval]]:
        return {name: list(items) for name, items in trainer.pull(PROJECT).approvals.items()}

    return pull
