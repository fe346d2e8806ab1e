"""What comes in from archives and goes out in exports, file by file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.importing import Imported, import_rows
from backend.projects.archives.rows import Archive, Row
from tests.support.archives import choices_result, read, write
from tests.support.builders import data_uri, make_settings
from tests.support.stub_label_studio import StubStudio, stub_studio

TOKEN = {"label_studio_api_key": "f" * 40}


@pytest.fixture
def stub() -> Iterator[StubStudio]:
    with stub_studio() as found:
        yield found


def imported(stub: StubStudio, rows: Any) -> Imported:
    studio = LabelStudioClient(make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN))
    given = rows.rows if isinstance(rows, Archive) else rows
    return import_rows(studio, 1, given, "image", "known_label")


def test_tasks_with_several_pages_are_no_obstacle_to_an_import(stub: StubStudio):
    stub.tasks = {1: {"image": ["a.jpg", "b.jpg"], "clip_source": {"x": 1}}, 2: {"image": "c"}}
    assert imported(stub, [Row("row 2", ("cat",), image="c")]) == Imported(0, 1)


def test_a_label_that_has_changed_in_the_archive_is_counted(stub: StubStudio):
    uri = data_uri(1)
    stub.tasks = {
        1: {"image": uri, "known_label": "cat"},
        2: {"image": "b", "known_label": ["cat", "dog"]},
    }
    rows = [Row("row 2", ("cat",), image=uri), Row("row 3", ("dog",), image="b")]
    assert imported(stub, rows) == Imported(0, 1)


PAGES = ["http://h/1.jpg", "http://h/2.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        [{"data": {"image": PAGES, "was": "cat"}, "annotations": []}],
        [{"image": PAGES, "was": "cat", "annotation_id": 1}],
    ],
    ids=["task", "record"],
)
def test_no_page_of_a_task_is_lost_and_the_task_is_known_again(
    stub: StubStudio, tmp_path: Path, content: Any
):
    path = write(tmp_path, "a.json", json.dumps(content))
    archive = read(path, label_columns=("was",))
    assert imported(stub, archive).made == 1
    assert [data["image"] for data in stub.tasks.values()] == [PAGES]
    assert imported(stub, archive) == Imported(0, 0)
    # The same first page in another task is another task.
    other = json.dumps(content).replace("2.jpg", "3.jpg")
    assert imported(stub, read(write(tmp_path, "b.json", other), label_columns=("was",))).made == 1


def test_another_file_of_the_same_name_is_another_task(stub: StubStudio, tmp_path: Path):
    for content in (b"first", b"second"):
        write(tmp_path, "cat/1.jpg", content)
        assert imported(stub, read(tmp_path)) == Imported(1, 0)
        assert imported(stub, read(tmp_path)) == Imported(0, 0)
    sources = [data["clip_source"] for data in stub.tasks.values()]
    assert len({*sources}) == 2 and all(source.startswith("cat/1.jpg#") for source in sources)


@pytest.mark.parametrize(
    ("address", "made"),
    [
        ("/data/upload/1/00000001-1.jpg", 0),
        ("/data/upload/1/00000002-1.jpg", 1),
        # It cannot be had any more, or never could.
        ("/data/upload/1/00000003-1.jpg", 0),
        ("http://h/1.jpg", 0),
    ],
    ids=["same", "other", "gone", "elsewhere"],
)
def test_a_task_of_an_earlier_release_is_known_by_its_files_content(
    stub: StubStudio, tmp_path: Path, address: str, made: int
):
    stub.uploads = {
        1: ("upload/1/00000001-1.jpg", b"mine"),
        2: ("upload/1/00000002-1.jpg", b"another"),
    }
    stub.tasks = {1: {"image": address, "clip_source": "cat/1.jpg", "known_label": "cat"}}
    write(tmp_path, "cat/1.jpg", b"mine")
    assert imported(stub, read(tmp_path)) == Imported(made, 0)


def test_no_request_has_more_bytes_than_label_studio_takes(
    stub: StubStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backend.projects.archives.importing.MOST_BYTES", 1000)
    for number, size in enumerate((400, 500, 2000, 100)):
        write(tmp_path, f"cat/{number}.jpg", bytes([number]) * size)
    assert imported(stub, read(tmp_path)).made == 4
    assert stub.uploaded_together == [2, 1, 1]
    assert {data["image"].rpartition("-")[2] for data in stub.tasks.values()} == {
        f"{number}.jpg" for number in range(4)
    }
    rows = [Row("", ("cat",), image=f"data:image/png;base64,{n}{'A' * 600}") for n in range(3)]
    before = len(stub.calls)
    assert imported(stub, rows).made == 3
    assert len(stub.calls[before:]) == 4  # One lists the tasks, and each of three makes one.


@pytest.mark.parametrize(
    ("image", "before"),
    [
        ("/data/upload/2/a.jpg", {"clip_source": "/data/upload/2/a.jpg"}),
        ("/data/upload/2/a.jpg", {"clip_source": "2/9"}),
        (" http://h/1.jpg", {}),
        (PAGES, {}),
    ],
)
def test_a_task_of_another_project_is_known_by_its_image_however_it_came(
    stub: StubStudio, image: Any, before: dict[str, Any]
):
    with stub_studio() as source:
        result = [choices_result("tags", ["cat"])]
        source.tasks = {9: {"image": image}, 10: {"image": "http://h/new.jpg"}}
        source.annotations = {number: [{"id": number, "result": result}] for number in (9, 10)}
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=source.url, **TOKEN)
        )
        archive = read(Path("1"), studio=studio)
    stub.tasks = {1: {"image": image, "known_label": "cat", **before}}
    assert imported(stub, archive) == Imported(1, 0)
    assert stub.tasks[2]["image"] == stub.tasks[2]["clip_source"] == "http://h/new.jpg"
    assert imported(stub, archive) == Imported(0, 0)


def test_what_an_image_was_once_called_stays_with_its_task(stub: StubStudio):
    data = {"image": "http://h/1.jpg", "clip_source": "old/1.jpg"}
    rows = [Row("task 1", ("cat",), image="http://h/1.jpg", data=data)]
    assert imported(stub, rows).made == 1
    assert stub.tasks[1] == {**data, "known_label": "cat"}
    assert imported(stub, rows) == Imported(0, 0)
