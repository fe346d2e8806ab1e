"""What import-archive prints, asks, and makes of an archive; with which exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import write
from tests.support.builders import choices_config
from tests.support.fixtures import Cli
from tests.support.stub_label_studio import StubStudio

LEFT_OUT = 3
ROWS = "image,label\nhttp://h/1.jpg,cat\nhttp://h/2.jpg,{0}\nhttp://h/3.jpg,{0}\n"


def known(studio: StubStudio) -> dict[str, Any]:
    """Image -> known labels of the tasks that there are."""
    return {data["image"]: data["known_label"] for data in studio.tasks.values()}


def test_an_archive_that_is_taken_whole_ends_well_and_again(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    write(tmp_path, "a.csv", ROWS.format("dog"))
    for end in ("3 tasks were made.", "No task was made; 3 were there already."):
        code, said = cli("import-archive", "1", "a.csv")
        assert code == 0 and end in said
    assert known(studio) == {"http://h/1.jpg": "cat"} | {
        f"http://h/{number}.jpg": "dog" for number in (2, 3)
    }


def test_only_commands_that_can_do_something_come_next(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    write(tmp_path, "a.csv", ROWS.format("dog"))
    said = cli("import-archive", "1", "a.csv")[1]
    assert "Next: ls-clip connect 1, or ls-clip predict 1." in said
    assert "Next: " not in cli("import-archive", "1", "a.csv")[1]
    studio.tasks = {}
    said = cli("import-archive", "1", "a.csv", LS_CLIP_REDIS_URL="")[1]
    assert said.endswith("Next: ls-clip connect 1.\n")


def test_what_is_left_out_is_told_by_reason_and_by_the_exit_code(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    rows = [
        "http://h/1.jpg,cat",
        "http://h/1.jpg,cat",
        ",cat",
        "http://h/2.jpg,",
        "http://h/3.jpg,",
    ]
    write(tmp_path, "a.csv", "\n".join(["image,label", *rows]))
    code, said = cli("import-archive", "1", "a.csv")
    assert code == LEFT_OUT
    assert "Left out: Rows that say nothing new: 1, e.g. row 3." in said
    assert "Left out: Rows without an image: 1, e.g. row 4." in said
    assert "Left out: Rows or tasks without a label: 2, e.g. row 5." in said
    assert "1 task was made" in said and known(studio) == {"http://h/1.jpg": "cat"}


def test_a_path_on_a_disk_leaves_nothing_made(cli: Cli, studio: StubStudio, tmp_path: Path):
    write(tmp_path, "a.csv", "image,label\nhttp://h/1.jpg,cat\nC:\\photos\\2.jpg,dog\n")
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 1 and "row 3: C:\\photos\\2.jpg" in said and "Fix: " in said
    assert studio.tasks == {}


def test_what_is_stripped_of_paths_and_where_a_file_is_instead_are_told(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    write(tmp_path, "photos/trip/1.jpg")
    write(tmp_path, "photos/2.jpg")
    paths = ("C:\\me\\trip\\1.jpg", "C:\\me\\1.jpg", "1.jpg", "C:\\you\\2.jpg")
    write(tmp_path, "a.tsv", "image\tlabel\n" + "".join(f"{path}\tdog\n" for path in paths[:2]))
    code, said = cli("import-archive", "1", "a.tsv", "--images", "photos")
    assert code == LEFT_OUT and "1 task was made" in said
    assert "Paths are looked for below photos without C:\\me\\" in said
    assert "Files that are not there: 1, e.g. row 3: C:\\me\\1.jpg (there is trip/1.jpg)." in said
    assert [data["clip_source"].split("#")[0] for data in studio.tasks.values()] == ["trip/1.jpg"]
    write(tmp_path, "a.tsv", "image\tlabel\n" + "".join(f"{path}\tdog\n" for path in paths[2:]))
    code, said = cli("import-archive", "1", "a.tsv", "--images", "photos")
    assert code == LEFT_OUT and "row 2: 1.jpg (there is trip/1.jpg)." in said
    assert "C:\\you\\" in said and "1 task was made" in said


def test_an_import_that_breaks_off_leaves_tasks_whose_labels_count(
    cli: Cli, studio: StubStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backend.projects.archives.importing.SENT", 2)
    write(tmp_path, "a.csv", ROWS.format("dog"))
    sent = iter((None, 400))
    studio.before = lambda method, path: next(sent) if path.endswith("/import") else None
    assert cli("import-archive", "1", "a.csv", "--field", "was")[0] == 1
    assert len(studio.tasks) == 2
    studio.before = lambda method, path: None
    # The project knows where their labels are.
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 0 and "1 task was made; 2 were there already." in said
    assert [data["was"] for data in studio.tasks.values()] == ["cat", "dog", "dog"]


def test_names_of_another_encoding_are_told_and_leave_the_rest(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    for name in (b"old/cat/1.jpg", b"old/cat/\xff.jpg", b"old/\xe9t\xe9/2.jpg"):
        write(tmp_path, os.fsdecode(name))
    code, said = cli("import-archive", "1", "old")
    assert code == LEFT_OUT and "that are not Unicode" in said and ": 2, e.g. cat/�.jpg." in said
    assert len(studio.tasks) == 1


@pytest.mark.parametrize("spelling", ["Dog", " DOG ", "ｄｏｇ", "d o g"])
def test_another_spelling_names_the_flag_that_takes_it(
    cli: Cli, studio: StubStudio, tmp_path: Path, spelling: str
):
    write(tmp_path, "a.csv", ROWS.format(spelling))
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 1 and "did you mean dog?" in said and "--match-spelling" in said
    # To leave out what is not known does not mean to leave out these.
    assert cli("import-archive", "1", "a.csv", "--skip-unknown-labels")[0] == 1
    assert studio.tasks == {}
    code, said = cli("import-archive", "1", "a.csv", "--match-spelling")
    assert code == 0 and "3 tasks were made" in said
    assert known(studio)["http://h/2.jpg"] == "dog"


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_each_spelling_is_asked_about_once(
    cli: Cli, studio: StubStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool
):
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("backend.cli.archives.is_interactive", lambda: True)
    write(tmp_path, "a.csv", ROWS.format("Dog"))
    code, said = cli("import-archive", "1", "a.csv")
    assert asked == ["Did you mean 'dog'?"]
    assert code == (0 if answer else 1)
    assert ("3 tasks were made" if answer else "1 label not in the labeling config: Dog.") in said


def test_a_spelling_that_may_mean_two_labels_means_none(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    studio.config = choices_config("cat", "dog", "Dog")
    write(tmp_path, "a.csv", ROWS.format("DOG"))
    code, said = cli("import-archive", "1", "a.csv", "--match-spelling")
    assert code == 1 and "1 label not in the labeling config: DOG." in said


def test_labels_that_are_not_known_are_listed_or_left_out_and_counted(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    names = [f"unknown animal number {number}" for number in range(40)]
    rows = [f"http://h/{number}.jpg,{name}" for number, name in enumerate(names)]
    write(tmp_path, "a.csv", "\n".join(["image,label", *rows, "http://h/0.jpg,cat"]))
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 1
    assert "40 labels not in the labeling config: unknown animal number 0, " in said
    assert " more.\n" in said and "--skip-unknown-labels" in said and len(said) < 500
    assert "--separator" not in said
    code, said = cli("import-archive", "1", "a.csv", "--skip-unknown-labels")
    assert code == LEFT_OUT
    assert "not in the labeling config: 40, e.g. unknown animal number 0, row 2." in said
    assert "Left out: Images with no other label: 39, e.g. row 3." in said
    assert known(studio) == {"http://h/0.jpg": "cat"}


@pytest.mark.parametrize("names", [["2023/1.jpg", "2024/2.jpg"], ["1.jpg", "2.jpg"]])
def test_photos_without_labels_are_told_where_to_import_them(
    cli: Cli, studio: StubStudio, tmp_path: Path, names: list[str]
):
    for name in names:
        write(tmp_path, f"photos/{name}")
    code, said = cli("import-archive", "1", "photos")
    assert code == 1 and "for images whose labels are known" in said
    assert "in Label Studio (Data Import), then run: ls-clip connect 1" in said
    assert studio.tasks == {}
    write(tmp_path, "a.csv", ROWS.format("wolf"))
    assert "Data Import" not in cli("import-archive", "1", "a.csv")[1]


def test_several_labels_in_a_cell_name_the_option_that_separates_them(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    write(tmp_path, "a.csv", ROWS.format('"cat,dog"'))
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 1 and "--separator ','" in said
    code, said = cli("import-archive", "1", "a.csv", "--separator", ",")
    assert code == 0 and known(studio)["http://h/3.jpg"] == ["cat", "dog"]


def test_no_message_shows_much_of_a_file_or_an_address_of_a_person(cli: Cli, tmp_path: Path):
    long, mail = "x" * 5000, "someone.else@example.com"
    files = {
        "a.json": f'[{{"completed_by": "{mail}", "{long}": 1, "image": "http://h/1.jpg"}}]',
        "b.json": f'[{{"completed_by": "{mail}", "{long}',
        "c.csv": f"{mail},{long}\n1,2\n",
        "d.csv": f"image,label\nhttp://h/1.jpg,{mail} {long}\n",
        "e.csv": f"image,label\n/home/{mail}/{long}.jpg,cat\n",
        "f.csv": f"image,label\nhttp://h/1.jpg,cat\nhttp://h/1.jpg,cat,{mail}{long}\n",
    }
    for name, content in files.items():
        write(tmp_path, name, content)
        code, said = cli("import-archive", "1", name)
        assert code == 1 and mail not in said and "example" not in said, name
        assert "x" * 100 not in said and len(said) < 800, name


def test_a_file_that_cannot_be_found_below_the_images_names_the_option(cli: Cli, tmp_path: Path):
    content = (
        '{"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "cat"}], '
    )
    write(tmp_path, "coco.json", content + '"annotations": [{"image_id": 1, "category_id": 1}]}')
    code, said = cli("import-archive", "1", "coco.json")
    assert code == 1
    assert "Left out: Files that are not there: 1, e.g. image 1: 1.jpg." in said
    assert "--images FOLDER" in said


def test_a_config_whose_image_is_more_than_one_field_is_refused_before_anything_is_made(
    cli: Cli, studio: StubStudio, tmp_path: Path
):
    studio.config = choices_config().replace("$image", "/data/local-files/?d=$file")
    write(tmp_path, "a.csv", ROWS.format("dog"))
    code, said = cli("import-archive", "1", "a.csv")
    assert code == 1 and "?d=$file" in said and "Fix: " in said
    assert studio.tasks == {}
