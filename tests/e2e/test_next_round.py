"""The tab with the next tasks, on the page of a real Label Studio and kept by a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.projects.connect import ConnectReport, connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder, RoundRecord
from jobs.review_round import TAB_TITLE
from tests.support.live import MakeProject, Servers, read_truth
from tests.support.waiting import until

PICTURES = os.environ.get("PICTURES")
"""A folder into which the pictures of the documentation are written; see CONTRIBUTING.md."""
Submit = Callable[[list[int]], None]


def tab_of(studio: LabelStudioClient, project: int) -> dict[str, Any] | None:
    tabs = studio.views.of_project(project)
    same = [tab for tab in tabs if tab["data"].get("title") == TAB_TITLE]
    assert len(same) < 2
    return same[0] if same else None


def offered(studio: LabelStudioClient, project: int) -> set[int]:
    """The tasks that the tab's filters name."""
    tab = tab_of(studio, project)
    assert tab is not None
    return {item["value"] for item in tab["data"]["filters"]["items"]}


def record_of(runtime: Runtime, studio: LabelStudioClient, project: int) -> RoundRecord:
    record = ProjectState(runtime.store, project_key(studio.projects.get(project))).round()
    assert record is not None
    return record


def twice(servers: Servers) -> list[dict[str, Any]]:
    """More tasks, so that a second full round is left."""
    names = sorted(path.name for path in (servers.files / "images").iterdir())
    return [{"data": {"image": f"/data/local-files/?d=images/{name}"}} for name in names]


def submitter(servers: Servers, studio: LabelStudioClient, project: int) -> Submit:
    """Submits the truth for tasks, as the label stream does."""
    truth = read_truth(servers)
    names = {
        int(task["id"]): task["data"]["image"].rpartition("/")[2]
        for task in studio.tasks.iterate(project)
    }

    def submit(tasks: list[int]) -> None:
        item = {"from_name": "tags", "to_name": "image", "type": "choices"}
        for task in tasks:
            value = {"choices": truth[names[task]]}
            studio.tasks.annotate(task, [{**item, "value": value}], None, seconds=4.2)

    return submit


def served_as_displayed(page: Any, picture: str = "") -> dict[str, Any]:
    """Choose "Label Tasks As Displayed" on the page; the task that comes.

    Args:
        page: with the Data Manager.
        picture: name of the picture of the page that the documentation shows.
    """
    page.get_by_role("button", name="Toggle open").click()
    entry = page.get_by_text("Label Tasks As Displayed")
    entry.wait_for()
    if PICTURES and picture:
        page.screenshot(path=str(Path(PICTURES) / picture), animations="disabled")
    with page.expect_response(lambda answer: "next_task" in answer.url) as answered:
        entry.click()
    page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
    task: dict[str, Any] = answered.value.json()
    return task


def test_the_tab_shows_the_round_serves_from_it_and_gets_the_next_one_from_a_worker(
    servers: Servers,
    page: Any,
    loop: Settings,
    loop_runtime: Runtime,
    studio: LabelStudioClient,
    make_project: MakeProject,
) -> None:
    project = make_project(extra=twice(servers))
    report: ConnectReport = connect(loop, studio, loop_runtime, project)
    assert (report.tab, report.order, report.warnings) == (TAB_TITLE, ReviewOrder.RANDOM, [])
    assert 0 < report.blind < report.tasks == 60
    first = offered(studio, project)
    assert len(first) == 25
    assert first == {*record_of(loop_runtime, studio, project).tasks}

    tab = tab_of(studio, project)
    assert tab is not None
    page.goto(f"{servers.studio_url}/projects/{project}/data?tab={tab['id']}")
    page.get_by_text("Tasks: 25 / 60").wait_for(timeout=60_000)
    served = served_as_displayed(page, "next-25.png")
    assert served["id"] in first

    submit = submitter(servers, studio, project)
    submit(sorted(first)[:19])
    assert offered(studio, project) == first
    submit(sorted(first)[19:])
    until(lambda: offered(studio, project) != first, 180)
    second = offered(studio, project)
    assert len(second) == 25
    assert second.isdisjoint(first)
    page.goto(f"{servers.studio_url}/projects/{project}/data?tab={tab['id']}")
    page.get_by_text("Tasks: 25 / 60").wait_for(timeout=60_000)
    assert served_as_displayed(page)["id"] in second
    (former,) = record_of(loop_runtime, studio, project).former
    assert {*former.tasks} == first

    # The same tab, and as a person has arranged it.
    kept = tab_of(studio, project)
    assert kept is not None
    assert kept["id"] == tab["id"]
    assert kept["data"]["hiddenColumns"] == tab["data"]["hiddenColumns"]


def test_a_project_whose_tab_nobody_opens_or_keeps_loses_nothing(
    servers: Servers,
    loop: Settings,
    loop_runtime: Runtime,
    studio: LabelStudioClient,
    make_project: MakeProject,
    api: Callable[..., Any],
) -> None:
    project = make_project(extra=twice(servers))
    connect(loop, studio, loop_runtime, project)
    first = offered(studio, project)
    tab = tab_of(studio, project)
    assert tab is not None
    submit = submitter(servers, studio, project)
    # "Label All Tasks" serves the whole project, at random, and not by its ids.
    served = []
    for _ in range(10):
        action = f"/api/dm/actions?id=next_task&project={project}&tabID={tab['id']}"
        served.append(api("POST", action)["id"])
        submit(served[-1:])
    assert {*served} - first
    assert served != sorted(served)
    shown = studio.projects.get(project)["model_version"]
    assert studio.predictions.versions(project)[shown] == 60

    api("DELETE", f"/api/dm/views/{tab['id']}/?project={project}")
    submit(sorted(first - {*served}))
    key = project_key(studio.projects.get(project))
    # The reviews lead to a training as ever, and its job leads to a look at the round.
    until(lambda: loop_runtime.versions.heads.names(key) != [], 180)
    assert tab_of(studio, project) is None
    again = connect(loop, studio, loop_runtime, project)
    assert again.tab == TAB_TITLE
    assert offered(studio, project).isdisjoint(first)
