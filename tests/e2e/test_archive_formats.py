"""Archives of every format that docs/archives.md shows, and a real Label Studio's own exports."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.labelstudio.client import LabelStudioClient
from backend.settings import Settings
from tests.support.archives import choices_result, write
from tests.support.builders import ROOT
from tests.support.commands import Done, run_command
from tests.support.live import MakeProject, Servers, environment_of

SECTION = re.compile(r"^###? +(.*)\n((?:(?!^##).*\n)+)", re.M)
FILE = re.compile(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", re.S)
TREE = re.compile(r"```text\n(.*?)```", re.S)
COMMAND = re.compile(r"^    ls-clip (import-archive PROJECT .*)$", re.M)
EXAMPLES = {
    title: text
    for title, text in SECTION.findall((ROOT / "docs" / "archives.md").read_text())
    if COMMAND.search(text)
}
"""Section of the page -> its text."""
TRUTH = {"1.jpg": {"cat", "coffee"}, "2.jpg": {"rocket"}}


@pytest.fixture
def cli(settings: Settings, tmp_path: Path) -> Callable[..., Done]:
    def run(*arguments: str) -> Done:
        return run_command(*arguments, cwd=tmp_path, **environment_of(settings))

    return run


def known(studio: LabelStudioClient, project: int) -> dict[str, set[str]]:
    """End of the image's address -> the labels that its task names."""
    found = {}
    for task in studio.tasks.iterate(project):
        labels = task["data"]["known_label"]
        # An upload's name has something random before it.
        name = re.split("[/-]", task["data"]["image"])[-1]
        found[name] = {labels} if isinstance(labels, str) else {*labels}
    return found


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_examples_of_the_page_work(
    title: str,
    cli: Callable[..., Done],
    studio: LabelStudioClient,
    make_project: MakeProject,
    servers: Servers,
    tmp_path: Path,
):
    text = EXAMPLES[title]
    photo = next((servers.files / "images").iterdir()).read_bytes()
    for name, content in FILE.findall(text):
        write(tmp_path, name, content)
    for tree in TREE.findall(text):
        for name in tree.split():
            write(tmp_path, name, photo)
    for command in COMMAND.findall(text):
        project = make_project(photos=0)
        arguments = shlex.split(command.replace("PROJECT", str(project)))
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        found = known(studio, project)
        assert found.keys() == TRUTH.keys()
        assert all(labels and labels <= TRUTH[name] for name, labels in found.items())
        # A folder says one label of each image.
        assert found == TRUTH or "text" in text
        assert "No task was made; 2 were there already." in cli(*arguments).stderr


def test_the_page_has_an_example_of_each_format():
    assert len(EXAMPLES) == 8


def test_what_label_studio_exports_comes_in_again(
    cli: Callable[..., Done],
    studio: LabelStudioClient,
    make_project: MakeProject,
    api: Callable[..., Any],
    settings: Settings,
    tmp_path: Path,
):
    config = (
        '<View><Image name="image" value="$image"/><Choices name="tags" toName="image" '
        'choice="multiple"><Choice value="cat" alias="felis"/><Choice value="coffee"/></Choices>'
        '<Taxonomy name="kind" toName="image"><Choice value="animal"><Choice value="dog"/></Choice>'
        "</Taxonomy></View>"
    )
    both = [
        choices_result("tags", ["felis", "coffee"]),
        choices_result("kind", [["animal", "dog"]], "taxonomy"),
    ]
    one = [choices_result("tags", ["felis"])]
    answers: list[list[dict[str, Any]]] = [
        [{"result": both}],
        [{"result": one}, {"result": [choices_result("tags", ["coffee"])]}],
        [{"result": both, "was_cancelled": True}],
        [{"result": []}],
    ]
    annotated = make_project(photos=4, config=config)
    tasks = sorted(studio.tasks.iterate(annotated), key=lambda task: int(task["id"]))
    for task, submitted in zip(tasks, answers, strict=True):
        for annotation in submitted:
            api("POST", f"/api/tasks/{task['id']}/annotations/", json=annotation)
    wanted = {
        tasks[0]["data"]["image"]: {"felis", "coffee", "animal / dog"},
        tasks[1]["data"]["image"]: {"felis", "coffee"},
    }
    sources = [str(annotated)]
    for kind in ("CSV", "TSV", "JSON", "JSON_MIN"):
        name = f"export.{kind.lower().replace('_', '.')}"
        write(tmp_path, name, exported(settings, annotated, kind))
        sources.append(name)
    for source in sources:
        project = make_project(photos=0, config=config)
        done = cli("import-archive", str(project), source)
        # One is skipped, and one has no label.
        assert done.returncode == 3, done.stderr
        found = {
            task["data"]["image"]: {*task["data"]["known_label"]}
            for task in studio.tasks.iterate(project)
        }
        assert found == wanted, source


def exported(settings: Settings, project: int, kind: str) -> bytes:
    """A project's annotated tasks as Label Studio's export page gives them."""
    answer = requests.get(
        f"{settings.label_studio_url}/api/projects/{project}/export",
        params={"exportType": kind},
        headers={"Authorization": f"Token {settings.label_studio_api_key.get_secret_value()}"},
        timeout=120,
    )
    assert answer.ok, answer.text[:500]
    return answer.content
