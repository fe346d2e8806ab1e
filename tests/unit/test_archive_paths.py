"""Absolute paths of another machine: which files below the folder of the images they mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import SettingsError
from tests.support.archives import read, reasons_in, write

FILES = ("x.jpg", "Urlaub/1.jpg", "Urlaub/2.jpg", "Hund/1.jpg")


def table(folder: Path, *paths: str) -> Path:
    return write(folder, "a.tsv", "\n".join(["image\tlabel", *(f"{path}\tdog" for path in paths)]))


@pytest.fixture
def images(tmp_path: Path) -> str:
    for name in FILES:
        write(tmp_path, f"photos/{name}")
    return str(tmp_path / "photos")


def found_in(tmp_path: Path, images: str, *paths: str) -> tuple[list[str], str]:
    archive = read(table(tmp_path, *paths), images=images)
    assert not archive.left_out
    for row in archive.rows:
        assert row.file == Path(images) / row.source and row.labels == ("dog",)
    return [row.source for row in archive.rows], archive.stripped


@pytest.mark.parametrize(
    ("before", "separator", "stripped"),
    [
        ("C:\\Users\\me\\Pictures\\", "\\", "C:\\Users\\me\\Pictures\\"),
        ("c:/Users/me/", "/", "C:/Users/me/"),
        ("\\\\server\\share\\", "\\", "\\\\server\\share\\"),
        ("/home/me/", "/", "/home/me/"),
        ("/", "/", "/"),
        ("file:///C:/my%20photos/", "/", "file:///C:/my photos/"),
        ("file://localhost/home/me/", "/", "file:///home/me/"),
    ],
)
def test_absolute_paths_are_found_below_the_folder_by_their_ends(
    tmp_path: Path, images: str, before: str, separator: str, stripped: str
):
    paths = [before + name.replace("/", separator) for name in FILES]
    assert found_in(tmp_path, images, *paths) == ([*FILES], stripped)


def test_the_longest_end_is_the_one_that_counts(tmp_path: Path, images: str):
    write(tmp_path, "photos/1.jpg")
    assert found_in(tmp_path, images, "D:\\a\\Urlaub\\1.jpg") == (["Urlaub/1.jpg"], "D:\\a\\")


def test_what_is_stripped_of_one_path_is_stripped_of_all(tmp_path: Path, images: str):
    write(tmp_path, "photos/1.jpg")
    # In Katze is a file of this name, which is another one.
    paths = ("D:\\a\\Urlaub\\1.jpg", "D:\\a\\Urlaub\\2.jpg", "D:\\a\\Katze\\1.jpg", "D:\\a\\7.jpg")
    archive = read(table(tmp_path, *paths), images=images)
    assert [row.source for row in archive.rows] == ["Urlaub/1.jpg", "Urlaub/2.jpg"]
    assert reasons_in(archive) == {
        "ambiguous": (1, "row 4: D:\\a\\Katze\\1.jpg"),
        "missing_file": (1, "row 5: D:\\a\\7.jpg"),
    }


def test_paths_that_agree_on_nothing_are_left_out_and_not_guessed(tmp_path: Path, images: str):
    write(tmp_path, "photos/1.jpg")
    paths = ("D:\\a\\1.jpg", "D:\\b\\1.jpg", "D:\\b\\x.jpg")
    archive = read(table(tmp_path, *paths), images=images)
    assert (archive.rows, archive.stripped) == ([], "")
    assert reasons_in(archive) == {"ambiguous": (3, "row 2: D:\\a\\1.jpg")}


def test_no_path_leads_out_of_the_folder(tmp_path: Path, images: str):
    write(tmp_path, "secret.jpg")
    (Path(images) / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    paths = ("/home/../secret.jpg", "/home/me/../../secret.jpg", "/home/link.jpg", "/home/x.jpg")
    archive = read(table(tmp_path, *paths), images=images)
    assert [row.source for row in archive.rows] == ["x.jpg"]
    assert {name: count for name, (count, _) in reasons_in(archive).items()} == {
        "missing_file": 2,
        "outside": 1,
    }


def test_what_is_no_path_on_a_disk_or_has_no_folder_is_still_refused(tmp_path: Path, images: str):
    for path, given in (("ftp://h/x.jpg", images), ("C:\\x.jpg", ""), ("C:\\x.jpg", "http://h/")):
        with pytest.raises(SettingsError, match="cannot be shown") as caught:
            read(table(tmp_path, path), images=given)
        assert "--images FOLDER" in caught.value.fix


def test_tasks_and_coco_files_may_name_absolute_paths(tmp_path: Path, images: str):
    result = [{"from_name": "tags", "type": "choices", "value": {"choices": ["dog"]}}]
    tasks = [
        {"data": {"image": image}, "annotations": [{"result": result, "was_cancelled": skipped}]}
        for image, skipped in [
            ("C:\\p\\Urlaub\\1.jpg", False),
            (["C:\\p\\Hund\\1.jpg"], False),
            (["C:\\p\\x.jpg", "C:\\p\\Hund\\1.jpg"], False),
            ("C:\\p\\gone.jpg", True),
        ]
    ]
    archive = read(write(tmp_path, "a.json", json.dumps(tasks)), images=images)
    assert [row.source for row in archive.rows] == ["Urlaub/1.jpg", "Hund/1.jpg"]
    assert {name: count for name, (count, _) in reasons_in(archive).items()} == {
        "pages": 1,
        "skipped": 1,
    }
    coco = {
        "images": [{"id": 1, "file_name": "C:\\p\\x.jpg"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    }
    archive = read(write(tmp_path, "c.json", json.dumps(coco)), images=images)
    assert [row.source for row in archive.rows] == ["x.jpg"] and archive.stripped == "C:\\p\\"


def test_a_name_that_is_elsewhere_below_the_folder_says_where(tmp_path: Path, images: str):
    left_out = read(table(tmp_path, "2.jpg", "x.jpg"), images=images).left_out
    assert [one.elsewhere for one in left_out.values()] == ["Urlaub/2.jpg"]
    # Two are called so.
    left_out = read(table(tmp_path, "1.jpg", "x.jpg"), images=images).left_out
    assert [one.elsewhere for one in left_out.values()] == [""]
