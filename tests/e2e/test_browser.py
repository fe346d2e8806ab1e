"""What a person sees: a task opens with boxes ticked, and Submit accepts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.live import (
    MakeProject,
    Review,
    Servers,
    choices_of,
    review_what_has_no_box_ticked,
    shows_nothing,
    ticking_early,
)
from tests.support.waiting import until


def ticked(page: Any) -> list[str]:
    """The labels of the ticked boxes, without their shortcut keys."""
    boxes = page.locator("label:has(input[type=checkbox]:checked)")
    return [text.split("[")[0].strip() for text in boxes.all_inner_texts()]


def test_a_task_opens_with_suggestions_ticked_and_submit_accepts_them(
    servers: Servers,
    page: Any,
    settings: Settings,
    studio: LabelStudioClient,
    runtime: Runtime,
    make_project: MakeProject,
    label_config: str,
    api: Callable[..., Any],
) -> None:
    project = make_project(config=ticking_early(label_config))
    connect(settings, studio, runtime, project)
    review_what_has_no_box_ticked(studio, project)
    task = opened(page, servers, project)
    expected = choices_of(task["predictions"][0])
    submit = page.get_by_test_id("bottombar-submit-button")
    page.get_by_text("suggested: ").first.wait_for(timeout=60_000)

    assert sorted(ticked(page)) == sorted(expected)
    assert page.get_by_text("not calibrated yet").first.is_visible()

    with page.expect_response(lambda answer: "/annotations" in answer.url) as saved:
        submit.click()
    assert saved.value.ok

    annotations = api("GET", f"/api/tasks/{task['id']}/annotations/")
    item = next(one for one in annotations[0]["result"] if one["from_name"] == "tags")
    assert item["origin"] == "prediction"
    assert item["value"]["choices"] == expected
    assert annotations[0]["parent_prediction"] == task["predictions"][0]["id"]


def opened(page: Any, servers: Servers, project: int) -> dict[str, Any]:
    """Open the label stream; the task that it shows."""
    with page.expect_response(lambda answer: "next_task" in answer.url) as answered:
        page.goto(f"{servers.studio_url}/projects/{project}/data?labeling=1")
    page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
    task: dict[str, Any] = answered.value.json()
    return task


def test_submitting_an_edited_task_refreshes_the_suggestions_of_the_next(
    servers: Servers, page: Any, studio: LabelStudioClient, connected: int, review: Review
) -> None:
    before = studio.projects.get(connected)["model_version"]
    review(connected, 11)
    task = opened(page, servers, connected)
    first = page.locator("label:has(input[type=checkbox])").first
    was = set(ticked(page))
    first.click()
    assert set(ticked(page)) != was
    with page.expect_response(lambda answer: "/annotations" in answer.url) as saved:
        page.get_by_test_id("bottombar-submit-button").click()
    assert saved.value.ok
    assert studio.projects.get(connected)["model_version"] == before

    until(lambda: studio.projects.get(connected)["model_version"] != before, 120)
    following = opened(page, servers, connected)
    assert following["id"] != task["id"]
    (prediction,) = following["predictions"]
    assert prediction["model_version"] == studio.projects.get(connected)["model_version"]
    assert sorted(ticked(page)) == sorted(choices_of(prediction))
    if not shows_nothing(prediction):
        page.get_by_text("trained on 12 reviewed tasks").first.wait_for(timeout=60_000)
