"""Archives that are folders of image files."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from backend.errors import SettingsError
from tests.support.archives import as_parquet, labels_in, read, reasons_in, write
from tests.support.builders import choices_config


def test_a_folder_for_each_label_is_read(tmp_path: Path):
    for name in ("cat/1.jpg", "cat/2.PNG", "dog/1.webp"):
        write(tmp_path, name)
    archive = read(tmp_path)
    assert labels_in(archive) == {
        "cat/1.jpg": ("cat",),
        "cat/2.PNG": ("cat",),
        "dog/1.webp": ("dog",),
    }
    assert reasons_in(archive) == {} and not archive.is_incomplete


def test_a_folders_name_may_hold_several_labels(tmp_path: Path):
    write(tmp_path, "cat+dog/1.jpg")
    assert labels_in(read(tmp_path, separators="+")) == {"cat+dog/1.jpg": ("cat", "dog")}


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("training", "validation", "Test")])
def test_splits_above_the_folders_of_labels_are_no_labels(
    tmp_path: Path, splits: tuple[str, str, str]
):
    for split in splits:
        write(tmp_path, f"{split}/cat/1.jpg")
    write(tmp_path, f"{splits[0]}/loose.jpg")
    write(tmp_path, f"{splits[0]}/cat/more/1.jpg")
    archive = read(tmp_path)
    assert labels_in(archive) == {f"{split}/cat/1.jpg": ("cat",) for split in splits}
    assert reasons_in(archive) == {
        "deeper": (1, f"{splits[0]}/cat/more/1.jpg"),
        "loose": (1, f"{splits[0]}/loose.jpg"),
    }


def test_a_label_that_is_called_like_a_split_is_a_label(tmp_path: Path):
    for name in ("train/1.jpg", "train/steam/2.jpg", "car/1.jpg"):
        write(tmp_path, name)
    archive = read(tmp_path, choices_config("train", "car"))
    assert labels_in(archive) == {"train/1.jpg": ("train",), "car/1.jpg": ("car",)}
    assert reasons_in(archive) == {"deeper": (1, "train/steam/2.jpg")}


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path):
    names = ["cat/1.jpg", "cat/2.heic", "cat/3.tif", "cat/more.jpg/4.jpg", "cat/5/6/7.jpg"]
    names += ["cat/notes.txt", "loose.jpg", "cat/Thumbs.db", ".DS_Store", "cat/._1.jpg"]
    names += [".git/x.png", "__MACOSX/cat/1.jpg", "desktop.ini"]
    for name in names:
        write(tmp_path, name)
    write(tmp_path, "cat/empty.jpg", b"")
    archive = read(tmp_path)
    assert labels_in(archive) == {"cat/1.jpg": ("cat",)}
    assert reasons_in(archive) == {
        "deeper": (2, "cat/5/6/7.jpg"),
        "loose": (1, "loose.jpg"),
        "not_an_image": (1, "cat/notes.txt"),
        "other_format": (2, "cat/2.heic"),
        "system_file": (6, ".DS_Store"),
        "unreadable_file": (1, "cat/empty.jpg"),
    }


def test_files_of_the_system_are_counted_and_not_missed(tmp_path: Path):
    for name in ("cat/1.jpg", "Thumbs.db"):
        write(tmp_path, name)
    archive = read(tmp_path)
    assert reasons_in(archive) == {"system_file": (1, "Thumbs.db")} and not archive.is_incomplete


@pytest.mark.parametrize("name", [b"cat/\xff.jpg", b"\xe9t\xe9/1.jpg"])
def test_a_name_in_another_encoding_is_left_out_with_a_reason(tmp_path: Path, name: bytes):
    write(tmp_path, "cat/1.jpg")
    write(tmp_path, os.fsdecode(name))
    archive = read(tmp_path)
    assert labels_in(archive) == {"cat/1.jpg": ("cat",)}
    assert reasons_in(archive) == {"not_text": (1, os.fsdecode(name))}


def test_labels_are_composed_as_people_type_them(tmp_path: Path):
    write(tmp_path, f"{unicodedata.normalize('NFD', 'café')}/1.jpg")
    assert labels_in(read(tmp_path)) == {"café/1.jpg": ("café",)}


def test_a_link_out_of_the_archive_is_not_followed(tmp_path: Path):
    write(tmp_path, "secret/s.jpg")
    archive = tmp_path / "archive"
    write(archive, "cat/1.jpg")
    (archive / "cat" / "2.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (archive / "dog").symlink_to(tmp_path / "secret")
    found = read(archive)
    assert labels_in(found) == {"cat/1.jpg": ("cat",)}
    assert reasons_in(found) == {"outside": (2, "dog")}


def test_a_folder_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "cat/1.jpg")
    scan = os.scandir

    def refuse(path: str) -> object:
        # The tests may run as root, who may read everything.
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(SettingsError, match="cat cannot be read: Permission denied"):
        read(tmp_path)


def as_csv(rows: list[dict[str, str]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])


def as_lines(rows: list[dict[str, str]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_in_each_split_names_the_images_there(tmp_path: Path, name: str):
    rows = [{"file_name": "1.jpg", "label": "cat"}, {"file_name": "x/2.jpg", "label": "dog"}]
    rows += [{"file_name": "gone.jpg", "label": "dog"}]
    columns = {column: [row[column] for row in rows] for column in rows[0]}
    content: dict[str, str | bytes] = {
        "csv": as_csv(rows),
        "jsonl": as_lines(rows),
        "parquet": as_parquet(columns),
    }
    for split in ("train", "validation"):
        write(tmp_path, f"{split}/{name}", content[name.partition(".")[2]])
        for image in ("1.jpg", "x/2.jpg"):
            write(tmp_path, f"{split}/{image}")
    for extra in ("train/unlisted.jpg", "README.md", ".gitattributes"):
        write(tmp_path, extra)
    archive = read(tmp_path)
    assert labels_in(archive) == {
        f"{split}/{image}": (label,)
        for split in ("train", "validation")
        for image, label in (("1.jpg", "cat"), ("x/2.jpg", "dog"))
    }
    first = 4 if name.endswith("csv") else 3
    assert reasons_in(archive) == {
        "missing_file": (2, f"train/{name}, row {first}: gone.jpg"),
        "system_file": (1, ".gitattributes"),
        "unlisted": (1, "train/unlisted.jpg"),
    }


def test_one_metadata_file_may_name_the_images_of_all_splits(tmp_path: Path):
    rows = [{"file_name": "train/1.jpg", "labels": ["cat", "dog"]}]
    write(tmp_path, "metadata.jsonl", json.dumps(rows[0]))
    write(tmp_path, "train/1.jpg")
    assert labels_in(read(tmp_path)) == {"train/1.jpg": ("cat", "dog")}


def test_metadata_that_names_a_file_outside_publishes_nothing(tmp_path: Path):
    write(tmp_path, "secret.jpg")
    write(tmp_path, "archive/metadata.csv", "file_name,label\n../secret.jpg,cat\n1.jpg,dog\n")
    write(tmp_path, "archive/1.jpg")
    archive = read(tmp_path / "archive")
    assert labels_in(archive) == {"1.jpg": ("dog",)}
    assert reasons_in(archive) == {"outside": (1, "metadata.csv, row 2: ../secret.jpg")}


def test_metadata_of_another_form_is_told(tmp_path: Path):
    write(tmp_path, "metadata.jsonl", '{"file_name": "1.jpg"}\n["x"]\n')
    with pytest.raises(SettingsError, match="has a line that is no object"):
        read(tmp_path)
    write(tmp_path, "metadata.jsonl", '{"file_name": "1.jpg"}\n{"file_name": \n')
    with pytest.raises(SettingsError, match="is not JSON: line 2, column"):
        read(tmp_path)
