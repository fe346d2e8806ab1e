"""What images were called, and names that every file system takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.projects.export.names import FileNames, original_name


@pytest.mark.parametrize(
    ("data", "address", "name"),
    [
        ({"clip_source": "cat/1.jpg"}, "/data/upload/1/0a1b2c3d-1.jpg", "cat/1.jpg"),
        # Of an annotated project, and of a CSV file: no paths.
        ({"clip_source": "12/345"}, "/data/upload/1/0a1b2c3d-1.jpg", "1.jpg"),
        ({"clip_source": "https://x.test/a/b.jpg"}, "https://x.test/a/b.jpg", "a/b.jpg"),
        ({"clip_source": "data:0123"}, "data:image/png;base64,AAAA", "task-7"),
        ({"clip_source": 3}, "/data/local-files/?d=a%20b/c%26d.png", "a b/c&d.png"),
        ({}, "/ls/data/upload/12/0a1b2c3d-my-photo.jpg", "my-photo.jpg"),
        ({}, "/data/upload/12/photo.jpg", "photo.jpg"),
        ({}, "s3://bucket/folder/a.jpg", "folder/a.jpg"),
        ({}, "gs://bucket/%41 b.jpg", "%41 b.jpg"),
        ({}, "https://x.test/%E7%8A%AC.jpg?token=secret", "犬.jpg"),
        ({}, "https://x.test", "task-7"),
        ({}, "/data/local-files/?d=a&d=b", "task-7"),
        ({}, "http://[broken", "task-7"),
    ],
)
def test_an_image_keeps_the_name_that_it_had(data: dict[str, Any], address: str, name: str):
    assert original_name(data, address, 7) == name


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cat/1.jpg", "cat/1.jpg"),
        ("../../etc/passwd", "etc/passwd.png"),
        ("/absolute/a.png", "absolute/a.png"),
        ("C:\\photos\\a.png", "C_/photos/a.png"),
        ("a/./b/../c.png", "a/b/c.png"),
        ("..", "task-7.png"),
        ("", "task-7.png"),
        ("line\nbreak.png", "line_break.png"),
        (".hidden/.png", "hidden/png.png"),
        ("aux/con.jpg", "_aux/_con.jpg"),
        ("dots. . /a.jpg", "dots/a.jpg"),
        ("half\ud800.jpg", "half_.jpg"),
    ],
)
def test_a_copy_has_a_name_that_leads_nowhere_else(name: str, file: str):
    assert FileNames().take(name, 7, ".png") == file


def test_names_that_some_file_system_takes_for_equal_are_told_apart():
    names = FileNames()
    taken = [
        names.take(name, task)
        for task, name in enumerate(
            [
                "a.jpg",
                "A.JPG",
                "é.jpg",
                "e\u0301.jpg",
                "x.png",
                "x.png/b.jpg",
                "x",
                "a-1.jpg",
                "a.jpg",
            ]
        )
    ]
    assert taken[:4] == ["a.jpg", "A-1.JPG", "é.jpg", "é-3.jpg"]
    assert taken[5] == "b-5.jpg" and len({one.casefold() for one in taken}) == len(taken)
    flat = FileNames(flat=True)
    assert [flat.take("cat/1.jpg", 1), flat.take("dog/1.jpg", 2)] == ["cat_1.jpg", "dog_1.jpg"]


@given(st.lists(st.text(max_size=400) | st.text("aA./\\\n", max_size=8), max_size=12))
def test_whatever_images_are_called_their_copies_have_names_of_their_own(wanted: list[str]):
    for flat in (False, True):
        names = FileNames(flat=flat)
        taken = [names.take(name, task, ".jpg") for task, name in enumerate(wanted)]
        assert len({name.casefold() for name in taken}) == len(taken)
        for name in taken:
            parts = name.split("/")
            assert all(part and part not in {".", ".."} for part in parts)
            assert all(len(part.encode()) <= 150 and "\n" not in part for part in parts)
            assert not name.startswith("/") and "\\" not in name and "\0" not in name
