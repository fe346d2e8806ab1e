"""CSV and TSV archives: labels in cells, in columns, and as Label Studio exports them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import SettingsError
from tests.support.archives import labels_in, read, reasons_in, write
from tests.support.builders import choices_config

TREE = (
    '<View><Image name="image" value="$image"/><Taxonomy name="kind" toName="image">'
    '<Choice value="animal"><Choice value="cat"/><Choice value="dog" alias="canis"/></Choice>'
    "</Taxonomy></View>"
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16"], ids=["plain", "marked", "utf-16"]
)
def test_a_csv_of_any_spreadsheet_is_read(tmp_path: Path, separator: str, encoding: str):
    lines = ["image,label", '"http://h/a, b; c.jpg",犬', "s3://b/d.jpg,cat", "s3://b/d.jpg,dog"]
    text = lines[0] + "\r\n" + lines[1].replace('",', f'"{separator}') + "\r\n"
    text = text.replace("image,label", f"image{separator}label")
    text += "\r\n".join(line.replace(",", separator) for line in [*lines[2:], ",cat"])
    archive = read(write(tmp_path, "archive.csv", text.encode(encoding)))
    assert labels_in(archive) == {
        "http://h/a, b; c.jpg": ("犬",),
        "s3://b/d.jpg": ("cat", "dog"),
    }
    assert reasons_in(archive) == {"no_image": (1, "row 5")}


@pytest.mark.parametrize("first", ["sep=;\n", "\n", "\n  \nsep=;\n"])
def test_what_a_spreadsheet_puts_before_the_header_is_skipped(tmp_path: Path, first: str):
    path = write(tmp_path, "archive.csv", f"{first} image ; label \nhttp://h/x.jpg;cat\n;\n")
    archive = read(path)
    assert labels_in(archive) == {"http://h/x.jpg": ("cat",)}


def test_an_encoding_is_taken_as_it_is_named(tmp_path: Path):
    path = write(tmp_path, "a.csv", "image,label\nhttp://h/1.jpg,猫\n".encode("cp932"))
    archive = read(path, choices_config("猫"), encoding="cp932")
    assert labels_in(archive) == {"http://h/1.jpg": ("猫",)}


def test_an_image_in_a_cell_may_be_large(tmp_path: Path):
    path = write(tmp_path, "a.csv", f'image,label\n"data:image/png;base64,{"A" * 200_000}",cat\n')
    (row,) = read(path).rows
    assert len(row.key) < 80 < len(row.image)


CELLS = (
    'image,label\nhttp://h/1.jpg,"cat,person"\nhttp://h/2.jpg,cat;food\nhttp://h/3.jpg,cat|dog\n'
)


@pytest.mark.parametrize(
    ("separators", "second"),
    [(",;|", ("cat", "food")), (",|", ("cat;food",)), ("; ,|", ("cat", "food"))],
)
def test_a_cell_is_cut_at_each_of_the_separators(
    tmp_path: Path, separators: str, second: tuple[str, ...]
):
    archive = read(write(tmp_path, "cells.csv", CELLS), separators=separators)
    assert [row.labels for row in archive.rows] == [("cat", "person"), second, ("cat", "dog")]


def test_spaces_separate_only_where_nothing_else_is_named(tmp_path: Path):
    path = write(tmp_path, "a.csv", "image,label\nhttp://h/1.jpg,cat  hot dog\n")
    assert read(path, separators=" ").rows[0].labels == ("cat", "hot", "dog")
    assert read(path, separators=", ").rows[0].labels == ("cat  hot dog",)


def test_a_label_that_holds_the_separator_stays_whole(tmp_path: Path):
    path = write(tmp_path, "a.csv", 'image,label\nhttp://h/1.jpg,"cat, black"\n')
    assert read(path, choices_config("cat, black"), separators=",").rows[0].labels == (
        "cat, black",
    )


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("image,cat,person,food", ["1,1,0", "0,0,1"]),
        ("image,cat,person,food,width", ["1.0,1.0,0.0,640", ",,1,480"]),
        ("image,Cat,person,food", ["true,True,no", "false,0,yes"]),
        ("image,cat,person,food,", ["1,1,-1,x", "-1,-1,1,y"]),
    ],
)
def test_each_label_may_have_a_column(tmp_path: Path, header: str, cells: list[str]):
    lines = [header, *(f"http://h/{number}.jpg,{line}" for number, line in enumerate(cells, 1))]
    archive = read(write(tmp_path, "onehot.csv", "\n".join(lines)))
    assert [[label.lower() for label in row.labels] for row in archive.rows] == [
        ["cat", "person"],
        ["food"],
    ]


def test_a_column_of_a_label_that_the_project_lacks_is_not_lost(tmp_path: Path):
    path = write(tmp_path, "a.csv", "image,cat,wolf\nhttp://h/1.jpg,0,1\nhttp://h/2.jpg,1,0\n")
    assert read(path).rows[0].labels == ("wolf",)
    # Those that are named are the ones that count.
    archive = read(path, label_columns=("cat",))
    assert labels_in(archive) == {"http://h/2.jpg": ("cat",)}


def test_a_list_in_a_cell_is_read_in_the_spelling_of_any_program(tmp_path: Path):
    cells = [
        '{"choices":["cat","dog"]}',
        '["cat", "dog"]',
        "['cat', 'dog']",
        '[{"choices": ["cat", "dog"]}]',
    ]
    lines = [
        f'http://h/{number}.jpg,"{cell}"'
        for number, cell in enumerate(one.replace('"', '""') for one in cells)
    ]
    archive = read(write(tmp_path, "a.csv", "\n".join(["image,label", *lines])))
    assert [row.labels for row in archive.rows] == [("cat", "dog")] * 4


@pytest.mark.parametrize("columns", [(), ("tags",)])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_label_studios_table_is_read(tmp_path: Path, columns: tuple[str, ...], separator: str):
    rows = [
        ["id", "image", "tags"],
        ["1", "/data/local-files/?d=images/1.jpg", "cat"],
        ["2", "/data/local-files/?d=images/2.jpg", json.dumps({"choices": ["cat", "person"]})],
        ["3", "/data/local-files/?d=images/3.jpg", ""],
        ["4", "/data/local-files/?d=images/4.jpg", "food"],
    ]
    text = "\n".join(
        separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows
    )
    archive = read(write(tmp_path, "export.csv", text), label_columns=columns)
    assert labels_in(archive) == {
        "/data/local-files/?d=images/1.jpg": ("cat",),
        "/data/local-files/?d=images/2.jpg": ("cat", "person"),
        "/data/local-files/?d=images/4.jpg": ("food",),
    }
    assert reasons_in(archive) == {"no_label": (1, "row 4")}


def test_a_taxonomys_paths_and_aliases_are_labels(tmp_path: Path):
    cell = json.dumps([{"taxonomy": [["animal", "cat"], ["animal", "canis"]]}]).replace('"', '""')
    lines = ["annotation_id,image,kind", f'1,http://h/1.jpg,"{cell}"', "2,http://h/2.jpg,dog"]
    archive = read(write(tmp_path, "a.csv", "\n".join(lines)), TREE)
    assert labels_in(archive) == {
        "http://h/1.jpg": ("animal / cat", "animal / canis"),
        "http://h/2.jpg": ("dog",),
    }


def test_annotations_of_one_task_that_agree_are_no_duplicates(tmp_path: Path):
    lines = ["image,tags", "http://h/1.jpg,cat", "http://h/1.jpg,cat", "http://h/1.jpg,"]
    plain = read(write(tmp_path, "a.csv", "\n".join(lines)))
    assert reasons_in(plain) == {"duplicate": (1, "row 3"), "no_label": (1, "row 4")}
    exported = [f"{one},{n or 'annotation_id'}" for n, one in enumerate(lines)]
    archive = read(write(tmp_path, "b.csv", "\n".join(exported)))
    assert labels_in(archive) == {"http://h/1.jpg": ("cat",)}
    assert reasons_in(archive) == {}


def test_of_our_own_export_only_what_a_person_said_is_there_counts(tmp_path: Path):
    lines = [
        "task,image,control,label,state,present,provenance",
        "1,http://h/1.jpg,tags,cat,approved,True,edited",
        "1,http://h/1.jpg,tags,dog,approved,False,edited",
        "1,http://h/1.jpg,tags,food,pseudo,True,edited",
        "2,http://h/2.jpg,tags,cat,unknown,,edited",
        "2,http://h/2.jpg,tags,dog,unknown,,edited",
    ]
    archive = read(write(tmp_path, "a.csv", "\n".join(lines)))
    assert labels_in(archive) == {"http://h/1.jpg": ("cat",)}
    assert reasons_in(archive) == {"no_label": (1, "row 5")}


def test_our_own_export_with_a_row_for_each_image_is_refused_with_the_way_out(tmp_path: Path):
    header = "task,image,name,file_name,width,height,split,reviewed,cat,dog"
    path = write(tmp_path, "a.csv", f"{header}\n1,http://h/1.jpg,1.jpg,,1,1,,True,1,0\n")
    with pytest.raises(SettingsError, match="without --rows image"):
        read(path)
    assert labels_in(read(path, label_columns=("cat", "dog"))) == {"http://h/1.jpg": ("cat",)}


@pytest.mark.parametrize("extra", ["", ",annotation_id"])
def test_a_control_wins_over_a_field_that_is_called_label(tmp_path: Path, extra: str):
    end = ",1" if extra else ""
    path = write(tmp_path, "a.csv", f"image,label,tags{extra}\nhttp://h/1.jpg,lot 7,cat{end}\n")
    assert labels_in(read(path)) == {"http://h/1.jpg": ("cat",)}


def test_in_an_export_of_label_studio_a_field_called_label_is_none(tmp_path: Path):
    path = write(tmp_path, "a.csv", "annotation_id,image,label,kind\n1,http://h/1.jpg,lot 7,cat\n")
    with pytest.raises(SettingsError, match="has no column tags"):
        read(path)
    assert labels_in(read(path, label_columns=("kind",))) == {"http://h/1.jpg": ("cat",)}


@pytest.mark.parametrize("column", ["id", "Index", "task", "Unnamed: 0", ""])
def test_a_column_that_numbers_the_rows_is_no_label_unless_it_is_named(tmp_path: Path, column: str):
    path = write(tmp_path, "a.csv", f"{column},image,cat\n1,http://h/1.jpg,1\n")
    config = choices_config("cat", "task")
    assert read(path, config).rows[0].labels == ("cat",)
    if column == "task":
        assert read(path, config, label_columns=(column,)).rows[0].labels == (column,)


@pytest.mark.parametrize("encoding", [None, "utf-8", "cp932", "utf-16-le"])
@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_the_mark_of_an_encoding_wins_over_the_option(
    tmp_path: Path, mark: str, encoding: str | None
):
    table = write(tmp_path, "a.csv", "image,label\nhttp://h/1.jpg,犬\n".encode(mark))
    listing = write(tmp_path, "a.json", '[{"image": "http://h/1.jpg", "label": "犬"}]'.encode(mark))
    for path in (table, listing):
        assert labels_in(read(path, encoding=encoding)) == {"http://h/1.jpg": ("犬",)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,label\n\n\nC:\\1.jpg,cat\n", "row 4: "),
        ("\n\nimage,label\nC:\\1.jpg,cat\n", "row 4: "),
        ("sep=,\nimage,label\nC:\\1.jpg,cat\n", "row 2: "),
        ('image,label\n"http://h/1.jpg","c\nat"\nC:\\1.jpg,cat\n', "row 3: "),
        ("image,label\n\nhttp://h/1.jpg,cat,dog\n", "row 3 has more cells"),
        ('\nsep=,\nimage,label\n\nx.jpg,"c"at\n', "at line 5: "),
    ],
)
def test_rows_and_lines_are_counted_as_they_are_shown(tmp_path: Path, content: str, said: str):
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, "a.csv", content))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no column image, label"),
        (b"photo,label\nx,y\n", "It has: photo, label"),
        (b"image,label,label\nx,y,z\n", "several columns label"),
        ("image,label\n写真,犬\n".encode("cp932"), "--encoding cp932"),
        ("image,label\nhttp://h/1.jpg,café\n".encode("latin-1"), "CSV UTF-8"),
        (b'image,label\nx.jpg,"cat\ny.jpg,dog\n', "with every quote closed"),
        (b"image,label\nx.jpg,c\0at\n", "line 2 holds NUL characters"),
        ("image,label\nx.jpg,cat\n".encode("utf-16-le"), "--encoding utf-16-le"),
        (b"image,label\nhttp://h/1.jpg,cat,dog\n", "row 2 has more cells"),
        (
            b"image,cat,dog\nhttp://h/1.jpg,1,0\nhttp://h/2.jpg,1,maybe\n",
            "'maybe' in the column 'dog'",
        ),
        (b"PK\x03\x04\xff\xfe rest of an Excel file", "a ZIP file: unpack it"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_with_the_way_out(
    tmp_path: Path, content: bytes, said: str
):
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, "archive.csv", content))
    assert said in str(caught.value)


def test_an_encoding_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match="--encoding 'nothing' is not known"):
        read(write(tmp_path, "archive.csv", b"image,label\n"), encoding="nothing")


def test_a_cell_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.text_files.MAX_LINE", 1000)
    path = write(tmp_path, "a.csv", 'image,label\n"' + "a" * 5000)
    with pytest.raises(SettingsError, match="line 2 has more than 1,000 characters") as caught:
        read(path)
    assert "aaaa" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        "C:\\photos\\1.jpg",
        "C:/photos/1.jpg",
        "/home/me/1.jpg",
        "file:///home/me/1.jpg",
        "\\\\server\\share\\1.jpg",
        "//server/share/1.jpg",
        "photos/1.jpg",
        "/data/photos/1.jpg",
        "ftp://h/1.jpg",
        "data:1234",
        "https:///",
    ],
)
def test_a_path_on_somebodys_disk_is_refused_with_its_row(tmp_path: Path, image: str):
    path = write(tmp_path, "a.csv", f"image,label\nhttp://h/1.jpg,cat\n{image},dog\n{image},cat\n")
    with pytest.raises(SettingsError) as caught:
        read(path)
    assert f"2 images of {path} cannot be shown by Label Studio, e.g. row 3: {image}" in str(
        caught.value
    )
    assert "one subfolder per label" in caught.value.fix and "local-files" in caught.value.fix


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/a.jpg",
        "/data/local-files/?d=a.jpg",
        "/studio/data/upload/1/a.jpg",
        "/tasks/1/resolve/?fileuri=x",
        "HTTPS://h/1.jpg",
        "gs://b/1.jpg",
        "azure-blob://c/1.jpg",
    ],
)
def test_what_label_studio_serves_is_an_address(tmp_path: Path, image: str):
    path = write(tmp_path, "a.csv", f"image,label\n{image},cat\n")
    assert labels_in(read(path, studio_path="/studio")) == {image: ("cat",)}


def test_names_are_looked_for_where_the_images_are_said_to_be(tmp_path: Path):
    path = write(
        tmp_path, "a.csv", "image,label\na b.jpg,cat\nx\\c.jpg,dog\n../d.jpg,cat\ne.jpg,cat\n"
    )
    for name in ("photos/a b.jpg", "photos/x/c.jpg", "d.jpg"):
        write(tmp_path, name)
    archive = read(path, images=str(tmp_path / "photos"))
    assert labels_in(archive) == {"a b.jpg": ("cat",), "x/c.jpg": ("dog",)}
    assert [row.file for row in archive.rows] == [
        tmp_path / "photos" / one for one in ("a b.jpg", "x/c.jpg")
    ]
    assert reasons_in(archive) == {
        "outside": (1, "row 4: ../d.jpg"),
        "missing_file": (1, "row 5: e.jpg"),
    }
    served = read(path, images="https://h/photos/")
    assert served.rows[0].image == "https://h/photos/a%20b.jpg"
    with pytest.raises(SettingsError, match="--images: there is no folder"):
        read(path, images=str(tmp_path / "nothing"))
