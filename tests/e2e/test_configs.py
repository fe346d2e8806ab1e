"""Labeling configs of many kinds, through Label Studio's own silent validation."""

from __future__ import annotations

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.live import MakeProject, Servers, choices_of

IMAGE = '<Image name="image" value="$image"/>'
THINGS = '<Choice value="cat"/><Choice value="coffee"/><Choice value="rocket"/>'
CONFIGS = {
    "single": f'<View>{IMAGE}<Choices name="tags" toName="image">{THINGS}</Choices></View>',
    "alias": f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
    '<Choice value="cat" alias="C-1"/><Choice value="rocket" alias="R-1" hint="flies"/>'
    "</Choices></View>",
    "taxonomy": f'<View>{IMAGE}<Taxonomy name="tags" toName="image">'
    '<Choice value="animal"><Choice value="cat"/></Choice>'
    '<Choice value="vehicle"><Choice value="rocket"/></Choice></Taxonomy></View>',
    "several": f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">{THINGS}'
    '</Choices><Choices name="mood" toName="image"><Choice value="bright"/>'
    '<Choice value="dark"/></Choices></View>',
    "japanese": f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
    '<Choice value="猫" model_prompt="a photo of a cat"/>'
    '<Choice value="ロケット" model_prompt="a photo of a rocket"/></Choices></View>',
    "one label": f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
    '<Choice value="cat"/></Choices></View>',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_label_studio_keeps_every_prediction_of_each_kind_of_config(
    kind: str,
    settings: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
) -> None:
    project = make_project(photos=30, config=CONFIGS[kind])
    low = settings.model_copy(update={"threshold": 0.05})
    report = connect(low, studio, Runtime(low), project)
    assert (report.imported, report.failures) == (30, {})
    assert any(choices_of(one) for one in studio.predictions.of_project(project))


def test_labels_that_the_model_cannot_read_are_named_with_the_ways_out(
    settings: Settings, studio: LabelStudioClient, runtime: Runtime, make_project: MakeProject
) -> None:
    config = CONFIGS["japanese"].replace(' model_prompt="a photo of a cat"', "")
    report = connect(settings, studio, runtime, make_project(photos=1, config=config))
    warning = next(one for one in report.warnings if "猫" in one)
    assert "ロケット" not in warning
    assert "model_prompt" in warning
    assert "xlm-roberta" in warning


def test_labels_from_the_tasks_data_are_predicted_per_task(
    servers: Servers,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
) -> None:
    config = (
        f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple" value="$options"/>'
        "</View>"
    )
    names = sorted(path.name for path in (servers.files / "images").iterdir())[:2]
    options = [
        [{"value": label} for label in labels]
        for labels in (("cat", "rocket"), ("coffee", "flower"))
    ]
    tasks = [
        {"data": {"image": f"/data/local-files/?d=images/{name}", "options": labels}}
        for name, labels in zip(names, options, strict=True)
    ]
    project = make_project(photos=0, config=config, extra=tasks)
    low = settings.model_copy(update={"threshold": 0.0})

    report = connect(low, studio, Runtime(low), project)

    assert report.failures == {}
    found = [
        choices_of(one)
        for one in sorted(studio.predictions.of_project(project), key=lambda p: p["task"])
    ]
    assert found == [["cat", "rocket"], ["coffee", "flower"]]
