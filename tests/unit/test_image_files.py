"""Which image files a command line names, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.images.image_files import find_images


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_of_one_name_get_as_many_folders_as_tell_them_apart(tmp_path: Path):
    touched(tmp_path, "a/2023/1.jpg", "a/2023/2.jpg", "a/2024/1.jpg", "b/2024/1.jpg")
    folders = [str(tmp_path / name) for name in ("a/2023", "a/2024", "b/2024")]
    names = list(find_images(folders).names.values())
    assert names == ["2023/1.jpg", "2.jpg", "a/2024/1.jpg", "b/2024/1.jpg"]


def test_an_image_that_is_named_twice_has_the_first_name(tmp_path: Path):
    touched(tmp_path, "a/1.jpg")
    found = find_images([str(tmp_path / "a"), str(tmp_path / "a" / "1.jpg")])
    assert list(found.names.values()) == ["1.jpg"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**/*.jpg", ["2024/IMG_1.JPG", "b.jpg"]),
        ("*/img_?.*", ["2024/IMG_1.JPG"]),
        ("20?4/IMG*", ["2024/IMG_1.JPG"]),
        ("[A-C].*", ["b.jpg"]),
        ("[!A-C].*", []),
        ("[]b].jpg", ["b.jpg"]),
    ],
)
def test_a_pattern_finds_names_in_upper_and_lower_case(
    pattern: str, names: list[str], tmp_path: Path
):
    touched(tmp_path, "2024/IMG_1.JPG", "b.jpg", "2024/.hidden.jpg")
    source = str(tmp_path / pattern)
    found = find_images([source])
    assert [name for path, name in found.names.items() if path != source] == names


def test_files_that_are_no_images_are_told_unless_they_are_named(tmp_path: Path):
    touched(tmp_path, "a.jpg", "deep/IMG_3.MOV", "Thumbs.db", ".hidden/a.txt", "notes.txt")
    assert find_images([str(tmp_path)]).left_out == ["Thumbs.db", "deep/IMG_3.MOV", "notes.txt"]
    assert find_images([str(tmp_path / "*.*")]).left_out == ["Thumbs.db", "notes.txt"]
    named = find_images([str(tmp_path), str(tmp_path / "notes.txt")])
    assert named.left_out == ["Thumbs.db", "deep/IMG_3.MOV"]
