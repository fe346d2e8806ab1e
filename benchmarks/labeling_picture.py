"""Takes the picture of a task that the README shows, from a demo that runs.

    ./uvw run ls-clip demo --simulate 100 --directory DEMO
    ./uvw run python -m benchmarks.labeling_picture DEMO docs/img/labeling.png

The task is one that nobody reviewed, so no head was trained on it. Of those with three labels or
more whose suggestions are right and complete, it is the one with the lowest number, and it is said
how many there are of how many: the picture shows the suggestions where they are good, not the
average.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from backend.demo.annotator import CONTROL
from backend.demo.photos import make_photos
from backend.demo.run import EMAIL
from backend.demo.state import DemoState
from backend.inference.holdout import is_blind
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.settings import Settings

LEAST_LABELS = 3
ATTRIBUTION = frozenset({"flower", "temple"})
"""Labels of photos whose licence asks for the photographer's name, beside the picture."""
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Read the command line, choose a task, and take the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("demo", type=Path, help="the --directory of a demo that runs")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    given = parser.parse_args()
    state = DemoState.load(given.demo)
    assert state.project is not None and state.url, "no demo runs there"
    settings = Settings(
        _env_file=None,
        label_studio_url=state.url,
        label_studio_api_key=state.token,
    )
    photos = make_photos(given.demo / "files" / "images", state.tasks)
    truth = {photo.file: photo.labels for photo in photos}
    studio = LabelStudioClient(settings)
    right, candidates = well_suggested(studio, state.project, truth, settings.blind_share)
    print(
        f"tasks that nobody reviewed, with {LEAST_LABELS} labels or more: {candidates}; "
        f"suggestions right and complete: {len(right)}"
    )
    task = next(task for task, labels in right.items() if not labels & ATTRIBUTION)
    tab = studio.views.save(state.project, {"title": "picture", "filters": only(task)})
    take(state, int(tab["id"]), given.picture)
    print(f"task {task}: {given.picture}")


def well_suggested(
    studio: LabelStudioClient, project: int, truth: Mapping[str, Sequence[str]], share: float
) -> tuple[dict[int, set[str]], int]:
    """Task -> its labels, where the suggestions are these, in order; and of how many tasks.

    Args:
        studio: of the demo.
        project: its number.
        truth: photo -> its labels.
        share: of tasks that are blind, in [0, 1].
    """
    described = studio.projects.get(project)
    key, version = project_key(described), described["model_version"]
    shown = {
        prediction["task"]: _choices(prediction)
        for prediction in studio.predictions.of_project(project)
        if prediction["model_version"] == version
    }
    right, candidates = {}, 0
    for task in sorted(studio.tasks.iterate(project), key=lambda task: int(task["id"])):
        labels = set(truth[str(task["data"]["image"]).rpartition("/")[2]])
        is_reviewed = bool(task["total_annotations"])
        if is_reviewed or is_blind(key, task["id"], share) or len(labels) < LEAST_LABELS:
            continue
        candidates += 1
        if shown.get(task["id"]) == labels:
            right[int(task["id"])] = labels
    return right, candidates


def only(task: int) -> dict[str, Any]:
    """Filters of a tab of the Data Manager that shows one task."""
    item = {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task}
    return {"conjunction": "and", "items": [item]}


def take(state: DemoState, tab: int, picture: Path) -> None:
    """Label the tasks of a tab in a browser, and take a picture of the page."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE).new_page()  # type: ignore[arg-type]
        page.goto(f"{state.url}/user/login/")
        page.fill("input[name=email]", EMAIL)
        page.fill("input[name=password]", state.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        page.goto(f"{state.url}/projects/{state.project}/data?tab={tab}")
        page.get_by_role("button", name="Toggle open").click()
        page.get_by_text("Label Tasks As Displayed").click()
        page.get_by_text("suggested: ").first.wait_for(timeout=60_000)
        page.wait_for_load_state("networkidle")
        # Away from what shows buttons of its own under the mouse.
        page.mouse.move(SIZE["width"] - 100, 350)
        page.screenshot(path=str(picture), animations="disabled")
        browser.close()


def _choices(prediction: Mapping[str, Any]) -> set[str]:
    return {
        choice
        for item in prediction["result"]
        if item["from_name"] == CONTROL
        for choice in item["value"]["choices"]
    }


if __name__ == "__main__":
    main()
