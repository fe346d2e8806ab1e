"""Archives with one label per image: imported, suggested, reviewed, and exported again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests

from backend.labelstudio.client import LabelStudioClient
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings
from backend.training.approvals import PARTIAL
from backend.training.head_trainer import HeadTrainer
from tests.support.commands import run_command
from tests.support.live import (
    Review,
    Servers,
    choices_of,
    environment_of,
    read_truth,
    shown_predictions,
    shows_nothing,
    ticking_early,
)

Cli = Callable[..., Any]


@pytest.fixture
def cli(loop: Settings, tmp_path: Path) -> Cli:
    environment = environment_of(loop)

    def run(*arguments: str, code: int = 0) -> Any:
        done = run_command(*arguments, cwd=tmp_path, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def empty(make_project: Callable[..., int], label_config: str) -> int:
    return make_project(photos=0, config=ticking_early(label_config))


def test_a_csv_archive_is_suggested_trained_on_and_exported(
    cli: Cli,
    servers: Servers,
    loop: Settings,
    loop_runtime: Runtime,
    studio: LabelStudioClient,
    empty: int,
    review: Review,
    api: Callable[..., Any],
    tmp_path: Path,
):
    truth = {name: labels for name, labels in read_truth(servers).items() if labels}
    rows = [
        (f"/data/local-files/?d=images/{name}", labels[0]) for name, labels in sorted(truth.items())
    ]
    with (tmp_path / "archive.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("photo", "category"), *rows])
    names = ("--image-column", "photo", "--label-column", "category")
    assert (
        f"{len(rows)} tasks were made"
        in cli("import-archive", str(empty), "archive.csv", *names).stderr
    )
    # A second time nothing is made.
    assert "No task was made" in cli("import-archive", str(empty), "archive.csv", *names).stderr

    report = connect(loop, studio, loop_runtime, empty)
    assert not report.failures
    tasks = {task["id"]: task["data"] for task in studio.tasks.iterate(empty)}
    for task, prediction in shown_predictions(studio, empty).items():
        if not shows_nothing(prediction):
            assert tasks[task]["known_label"] in choices_of(prediction)

    pulled = HeadTrainer(loop, studio, loop_runtime.versions, loop_runtime.embedder).pull(empty)
    assert pulled.reviewed == {} and pulled.tasks == len(tasks)
    assert {one.provenance for one in pulled.approvals["tags"]} == {"known"}
    reviewed = set(review(empty, 10))
    pulled = HeadTrainer(loop, studio, loop_runtime.versions, loop_runtime.embedder).pull(empty)
    assert set(pulled.reviewed) == reviewed
    assert {
        one.task for one in pulled.approvals["tags"] if one.provenance not in PARTIAL
    } == reviewed

    everything = ("--include", "human,pseudo")
    cli("export", str(empty), "--output", "out.csv", *everything)
    with (tmp_path / "out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert {row["state"] for row in found} == {"approved", "known", "pseudo", "unknown"}
    assert {int(row["task"]) for row in found if row["state"] == "approved"} == reviewed
    assert all(row["present"] == "True" for row in found if row["state"] in {"known", "pseudo"})
    assert all(0 <= float(row["probability"]) <= 1 for row in found)
    cli("export", str(empty), "--format", "parquet")
    table = pq.read_table(tmp_path / f"project-{empty}.parquet").to_pylist()
    assert len(table) == len(found)
    assert "pseudo" not in {row["state"] for row in table}

    cli("export", str(empty), "--format", "coco", "--output", "coco.json", *everything)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert len(coco["images"]) == len(rows)
    assert {one["id"] for one in coco["images"] if one["reviewed"]} == reviewed
    assert len(coco["annotations"]) == sum(row["present"] == "True" for row in found)
    absent = sum(len(image["absent_category_ids"]) for image in coco["images"])
    assert absent == sum(row["presence"] == "absent" for row in found)
    assert all(image["width"] > 1 and image["height"] > 1 for image in coco["images"])
    assert {image["file_name"] for image in coco["images"]} == {f"images/{name}" for name in truth}

    cli("export", str(empty), "--format", "imagefolder", "--split", "2/1/1", "--output", "folder")
    copies = [*(tmp_path / "folder").rglob("*.jpg")]
    assert {path.name for path in copies} == {f"images_{name}" for name in truth}
    assert {path.parent.name for path in copies} <= {"train", "validation", "test"}

    # What goes out comes in again, evidence left behind.
    cli("export", str(empty), "--format", "labelstudio", "--output", "ls.json", *everything)
    items = json.loads((tmp_path / "ls.json").read_text())
    assert "clip_evidence" not in json.dumps(items)
    again = studio.projects.create("again", studio.projects.get(empty)["label_config"])["id"]
    studio.tasks.create(again, items)
    assert sum(1 for _ in studio.tasks.annotated(again)) == len(reviewed)
    first = next(studio.tasks.iterate(again))
    meta = api("GET", f"/api/tasks/{first['id']}/")["meta"]
    assert meta["images"][0]["name"] in {f"images/{name}" for name in truth}
    assert len(studio.predictions.of_project(again)) == len(rows) - len(reviewed)

    # An annotated project becomes an archive too.
    target = studio.projects.create("target", studio.projects.get(empty)["label_config"])["id"]
    annotated = list(studio.tasks.annotated(again))
    some = [one for one in annotated if one["annotations"][0]["result"]]
    code = 3 if len(some) < len(annotated) else 0
    made = cli("import-archive", str(target), str(again), "--field", "was", code=code)
    assert f"{len(some)} tasks were made" in made.stderr
    assert all(task["data"]["was"] for task in studio.tasks.iterate(target))


def test_a_task_that_is_deleted_while_reviews_are_listed_hides_no_other(
    studio: LabelStudioClient, make_project: Callable[..., int], api: Callable[..., Any]
):
    project = make_project(photos=7)
    tasks = [int(task["id"]) for task in studio.tasks.iterate(project)]
    for task in tasks:
        body = {"result": [], "lead_time": 1.0}
        api("POST", f"/api/tasks/{task}/annotations/", json=body)
    listing = studio.tasks.annotated(project, page_size=2)
    found = [next(listing)["id"]]
    for gone in (tasks[0], tasks[3]):
        api("DELETE", f"/api/tasks/{gone}/")
    found += [task["id"] for task in listing]
    assert found == [task for task in tasks if task != tasks[3]]


def test_a_folder_for_each_label_is_uploaded(
    cli: Cli, servers: Servers, studio: LabelStudioClient, empty: int, tmp_path: Path
):
    photos = sorted((servers.files / "images").iterdir())[:3]
    for label, photo in zip(("cat", "coffee", "cat"), photos, strict=True):
        folder = tmp_path / "archive" / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / f"写真 {photo.name}")
    assert "3 tasks were made" in cli("import-archive", str(empty), "archive").stderr
    found = {task["data"]["clip_source"]: task["data"] for task in studio.tasks.iterate(empty)}
    assert {source.split("/")[0]: data["known_label"] for source, data in found.items()} == {
        "cat": "cat",
        "coffee": "coffee",
    }
    token = studio.headers()
    for data in found.values():
        answer = requests.get(studio.url + data["image"], headers=token, timeout=10)
        assert answer.headers["Content-Type"].startswith("image/")
    assert "No task was made" in cli("import-archive", str(empty), "archive").stderr


def test_what_an_archive_cannot_be_is_said_with_its_fix(cli: Cli, empty: int, tmp_path: Path):
    (tmp_path / "a.csv").write_text("image,label\nhttp://h.test/x.jpg,wolf\n")
    assert "wolf" in cli("import-archive", str(empty), "a.csv", code=1).stderr
    assert (
        "--image-column"
        in cli("import-archive", str(empty), "a.csv", "--image-column", "photo", code=1).stderr
    )
    (tmp_path / "nothing").mkdir()
    assert "one subfolder per label" in cli("import-archive", str(empty), "nothing", code=1).stderr
    assert "no file or folder" in cli("import-archive", str(empty), "missing.csv", code=1).stderr
    assert "coco" in cli("export", str(empty), "--format", "xml", code=1).stderr
    assert "human,pseudo" in cli("export", str(empty), "--include", "all", code=1).stderr
