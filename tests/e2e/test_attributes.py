"""Every attribute of the labeling config on the real Label Studio: imported, seen, submitted, read.

A prediction holds nothing that the annotator does not see, and what is seen is what is submitted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from backend.errors import LabelConfigError
from backend.labels.attributes import ATTRIBUTES, Tag
from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.attribute_configs import CASES, NOT_SHOWN, Case
from tests.support.http_server import Server, answer
from tests.support.live import MakeProject, Servers

ARE_TICKED = """labels => {
  const seen = element => element.getClientRects().length > 0
    && getComputedStyle(element).visibility !== "hidden";
  const places = "label:has(input:checked), [class*=taxonomy] *, [data-testid=choiceOptionText], "
    + "button span";
  const shown = [...document.querySelectorAll(places)].filter(seen)
    .map(element => (element.innerText ?? "").replace(/\\[.*\\]$/, "").trim());
  return labels.every(label => shown.some(text => text.split("\\n").includes(label)));
}"""
"""Whether labels are selected where a person sees them: boxes, taxonomies, drop-down lists."""
ARE_SEEN = """labels => labels.filter(label => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.textContent.trim() !== label) continue;
    const range = document.createRange();
    range.selectNode(node);
    const boxes = [...range.getClientRects()].filter(box => box.width > 0 && box.height > 0);
    let hides = boxes.length === 0 || getComputedStyle(node.parentElement).visibility !== "visible";
    for (let around = node.parentElement; around; around = around.parentElement) {
      const style = getComputedStyle(around);
      const clips = style.overflowX !== "visible" && style.display !== "inline";
      hides ||= style.opacity === "0" || (clips && around.clientWidth * around.clientHeight === 0);
    }
    if (!hides) return true;
  }
  return false;
})"""
"""Those of these labels that a person sees."""
SHOWN_AS = {"LB": "look b", "D": "dog"}
"""What is stored -> what is on the screen."""


@pytest.fixture(scope="module")
def trees() -> Iterator[str]:
    """The address of a web server with a taxonomy that pages from anywhere may read."""
    with Server() as server:
        server.routes["/tree.json"] = answer(
            b"[]", Access_Control_Allow_Origin="*", Content_Type="application/json"
        )
        yield server.url
        server.shutdown()


def task_of(case: Case, servers: Servers, trees: str) -> dict[str, Any]:
    first, second = sorted(path.name for path in (servers.files / "images").iterdir())[:2]
    data = {"image": "/data/local-files/?d=images/{first}", **case.data}
    text = json.dumps(data).replace("{first}", first).replace("{second}", second)
    text = text.replace("{server}", trees)
    return {"data": json.loads(text)}


def labels_on_screen(case: Case) -> list[str]:
    shown = []
    for name, values in case.selected.items():
        for value in values:
            label = value[-1] if isinstance(value, list) else SHOWN_AS.get(value, value)
            # This one shows whole paths.
            shown.append("-".join(value) if name == "wide" else label)
    return shown


def selected(result: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = ("choices", "taxonomy")
    return {
        item["from_name"]: item["value"][item["type"]] for item in result if item["type"] in kinds
    }


@pytest.mark.parametrize("kind", CASES)
def test_what_is_predicted_is_on_the_screen_and_is_what_is_submitted(
    kind: str,
    servers: Servers,
    page: Any,
    settings: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
    api: Callable[..., Any],
    trees: str,
) -> None:
    case = CASES[kind]
    project = make_project(photos=0, config=case.xml, extra=[task_of(case, servers, trees)])
    low = settings.model_copy(update={"threshold": 0.0})

    report = connect(low, studio, Runtime(low), project)

    assert report.failures == {}
    for name, reason in case.reasons.items():
        assert any(f"'{name}'" in one and reason in one for one in report.warnings), name
    (prediction,) = studio.predictions.of_project(project)
    assert selected(prediction["result"]) == case.selected

    page.goto(f"{servers.studio_url}/projects/{project}/data?labeling=1")
    submit = page.get_by_test_id("bottombar-submit-button")
    submit.wait_for(timeout=60_000)
    page.wait_for_function(ARE_TICKED, arg=labels_on_screen(case), timeout=60_000)
    styled = [name for name, why in case.reasons.items() if "a style hides it" in why]
    assert page.evaluate(ARE_SEEN, [f"{name} a" for name in styled]) == []
    if kind == "styles":
        on_screen = labels_on_screen(case)
        assert page.evaluate(ARE_SEEN, [*on_screen, "boxes b", "boxes c"]) == on_screen
    with page.expect_response(lambda answer: "/annotations" in answer.url) as saved:
        submit.click()
    assert saved.value.ok
    (annotation,) = api("GET", f"/api/tasks/{prediction['task']}/annotations/")
    assert selected(annotation["result"]) == case.selected


@pytest.mark.parametrize("kind", NOT_SHOWN)
def test_a_config_that_label_studio_takes_but_cannot_show_is_refused_with_the_place(
    kind: str,
    servers: Servers,
    page: Any,
    settings: Settings,
    studio: LabelStudioClient,
    make_project: MakeProject,
) -> None:
    config, message = NOT_SHOWN[kind]
    project = make_project(photos=1, config=f"<View>{config}</View>")
    with pytest.raises(LabelConfigError) as raised:
        connect(settings, studio, Runtime(settings), project)
    assert message in str(raised.value)
    # If this fails Label Studio has learned to show it.
    with page.expect_response(lambda answer: "next_task" in answer.url):
        page.goto(f"{servers.studio_url}/projects/{project}/data?labeling=1")
    page.wait_for_load_state("networkidle")
    assert page.locator("input[type=checkbox]").count() == 0


def test_the_table_has_every_attribute_of_the_tag_reference(servers: Servers) -> None:
    script = requests.get(f"{servers.studio_url}/react-app/main.js", timeout=60).text
    reference = next(
        json.loads(found.replace("\\'", "'").replace("\\\\", "\\"))
        for found in re.findall(r"JSON\.parse\('(\{.*?\})'\)", script)
        if '"leafsOnly"' in found
    )
    known = {(entry.tag, entry.name) for entry in ATTRIBUTES}
    for tag in (Tag.CHOICES, Tag.CHOICE, Tag.TAXONOMY, Tag.IMAGE, Tag.VIEW, Tag.COLLAPSE):
        for name in reference[tag]["attrs"]:
            assert (tag, name.rstrip("=")) in known, f"{tag} {name}"
