"""What comes in from archives and goes out in exports, file by file."""

from __future__ import annotations

from pathlib import Path

from backend.labelstudio.client import LabelStudioClient
from backend.projects.archives.importing import Imported, import_rows
from backend.projects.archives.rows import Row
from tests.support.builders import data_uri, make_settings
from tests.support.stub_label_studio import stub_studio

TOKEN = {"label_studio_api_key": "f" * 40}


def test_tasks_with_several_pages_are_no_obstacle_to_an_import():
    with stub_studio() as stub:
        stub.tasks = {1: {"image": ["a.jpg", "b.jpg"], "clip_source": {"x": 1}}, 2: {"image": "c"}}
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN)
        )
        rows = [Row("row 2", ("cat",), image="c")]
        assert import_rows(studio, 1, rows, "image", "known_label") == Imported(0, 1)


def test_a_label_that_has_changed_in_the_archive_is_counted():
    uri = data_uri(1)
    with stub_studio() as stub:
        stub.tasks = {
            1: {"image": uri, "known_label": "cat"},
            2: {"image": "b", "known_label": ["cat", "dog"]},
        }
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN)
        )
        rows = [Row("row 2", ("cat",), image=uri), Row("row 3", ("dog",), image="b")]
        assert import_rows(studio, 1, rows, "image", "known_label") == Imported(0, 1)
