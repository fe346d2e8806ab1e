"""Which image files a command line names, and what they are called."""

from __future__ import annotations

from pathlib import Path

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
