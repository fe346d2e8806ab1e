"""What comes in from archives and goes out in exports, file by file."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.projects.archive import Entry, Imported, from_csv, from_folder, import_entries
from tests.support.builders import data_uri, make_settings
from tests.support.stub_label_studio import stub_studio

TOKEN = {"label_studio_api_key": "f" * 40}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_csv_of_any_spreadsheet_is_read(tmp_path: Path, separator: str, mark: bytes):
    lines = ["image,label", '"/data/a, b; c.jpg",犬', "/data/d.jpg,cat", "/data/d.jpg,dog", ",x"]
    text = "\r\n".join([lines[0].replace(",", separator), lines[1].replace('",', f'"{separator}')])
    text += "\r\n" + "\r\n".join(line.replace(",", separator) for line in lines[2:])
    path = tmp_path / "archive.csv"
    path.write_bytes(mark + text.encode())
    archive = from_csv(path, "image", "label", "image")
    found = {one.data["image"]: one.labels for one in archive.entries}
    assert archive.notes == ["Rows without an image or a label: 1."]
    assert found == {"/data/a, b; c.jpg": ("犬",), "/data/d.jpg": ("cat", "dog")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no column image, label"),
        (b"photo,label\nx,y\n", "It has: photo, label"),
        (b"image,label,label\nx,y,z\n", "several columns label"),
        ("image,label\n写真,犬\n".encode("cp932"), "CSV UTF-8"),
        (b'image,label\nx.jpg,"cat\ny.jpg,dog\n', "with every quote closed"),
    ],
)
def test_a_csv_that_cannot_be_used_is_told_with_the_way_out(
    tmp_path: Path, content: bytes, said: str
):
    path = tmp_path / "archive.csv"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        from_csv(path, "image", "label", "image")
    assert said in str(caught.value)


def test_what_a_file_manager_leaves_behind_is_no_image(tmp_path: Path):
    for name in ("cat/1.jpg", "cat/._1.jpg", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    archive = from_folder(tmp_path)
    assert [entry.source for entry in archive.entries] == ["cat/1.jpg"]
    assert archive.notes == []


def test_what_else_lies_in_a_folder_is_counted(tmp_path: Path):
    (tmp_path / "cat" / "more.jpg").mkdir(parents=True)
    for name in ("cat/1.jpg", "cat/notes.txt", "cat/more.jpg/2.jpg", "loose.jpg"):
        (tmp_path / name).write_bytes(b"x")
    archive = from_folder(tmp_path)
    assert [entry.source for entry in archive.entries] == ["cat/1.jpg"]
    said = "Files that are no images in a folder of their label: 3, e.g. cat/more.jpg/2.jpg."
    assert archive.notes == [said]


def test_labels_are_composed_as_people_type_them(tmp_path: Path):
    apart = unicodedata.normalize("NFD", "café")
    (tmp_path / apart).mkdir()
    (tmp_path / apart / "1.jpg").write_bytes(b"x")
    assert from_folder(tmp_path).entries[0].labels == ("café",)


@pytest.mark.parametrize("first", ["sep=;\n", "\n", "\n  \nsep=;\n"])
def test_what_a_spreadsheet_puts_before_the_header_is_skipped(tmp_path: Path, first: str):
    path = tmp_path / "archive.csv"
    path.write_text(f"{first} image ; label \nx.jpg;cat\n")
    (entry,) = from_csv(path, "image", "label", "image").entries
    assert (entry.source, entry.labels) == ("x.jpg", ("cat",))


def test_an_image_in_a_cell_may_be_large(tmp_path: Path):
    path = tmp_path / "archive.csv"
    path.write_text(f"image,label\ndata:image/png;base64,{'A' * 200_000},cat\n")
    (entry,) = from_csv(path, "image", "label", "image").entries
    assert len(entry.source) < 80


def test_tasks_with_several_pages_are_no_obstacle_to_an_import():
    with stub_studio() as stub:
        stub.tasks = {1: {"image": ["a.jpg", "b.jpg"], "clip_source": {"x": 1}}, 2: {"image": "c"}}
        studio = LabelStudioClient(
            make_settings(Path("unused"), label_studio_url=stub.url, **TOKEN)
        )
        entries = [Entry({"image": "c"}, ("cat",), "c")]
        assert import_entries(studio, 1, entries, "image", "known_label") == Imported(0, 1)


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
        hashed = f"data:{hashlib.sha256(uri.encode()).hexdigest()}"
        entries = [
            Entry({"image": uri}, ("cat",), hashed),
            Entry({"image": "b"}, ("dog",), "b"),
        ]
        assert import_entries(studio, 1, entries, "image", "known_label") == Imported(0, 1)


def test_a_link_out_of_the_archive_is_not_followed(tmp_path: Path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    folder = tmp_path / "archive" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"x")
    (folder / "2.jpg").symlink_to(tmp_path / "secret.jpg")
    archive = from_folder(folder.parent)
    assert [entry.source for entry in archive.entries] == ["cat/1.jpg"]
    assert "1, e.g. cat/2.jpg." in archive.notes[0]
