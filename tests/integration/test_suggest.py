"""``ls-clip suggest``: which files and labels it takes, and what it prints and writes."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.cli import contact_sheet
from backend.encoders.offline import OfflineEncoder
from tests.support.builders import choices_config, photo, task
from tests.support.commands import call
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import predict

pytestmark = pytest.mark.usefixtures("offline")


def test_suggest_prints_json_and_nothing_else(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    given = ("suggest", "--labels", "dog, cat,bicycle,", "--json", *photos)
    assert call(monkeypatch, *given) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["file"] for item in found] == photos
    for item in found:
        assert set(item) == {"file", "suggested", "scores", "threshold"}
        assert list(item["scores"]) == ["dog", "cat", "bicycle"]
        assert all(0 <= score <= 1 for score in item["scores"].values())
        assert set(item["suggested"]) == {
            label for label, score in item["scores"].items() if score >= item["threshold"]
        }


def test_the_threshold_decides_what_is_suggested(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for threshold, expected in (("0", 2), ("1", 0)):
        call(monkeypatch, "suggest", "--labels", "a,b", "--threshold", threshold, "--json", *photos)
        found = json.loads(capsys.readouterr().out)
        assert {len(item["suggested"]) for item in found} == {expected}


def test_one_bad_file_is_named_and_the_others_are_answered(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
):
    (tmp_path / "bad.jpg").write_text("no image")
    files = [photos[0], str(tmp_path / "bad.jpg"), str(tmp_path / "gone.jpg"), photos[1]]
    assert call(monkeypatch, "suggest", "--labels", "a,b", "--json", *files) == 1
    found = json.loads(capsys.readouterr().out)
    assert ["error" in item for item in found] == [False, True, True, False]
    assert set(found[1]["error"]) == {"code", "message", "fix"}
    assert call(monkeypatch, "suggest", "--labels", "a,b", *files) == 1
    said = capsys.readouterr().out
    assert f"Error: {files[1]}: This is not an image" in said
    assert f"Error: {files[2]} is not a file." in said
    assert said.count("Fix: ") == 2


def test_people_read_names_the_threshold_and_that_the_labels_listed_matter(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    folder = str(Path(photos[0]).parent)
    given = ("suggest", "--labels", "dog,cat", "--threshold", "0.25", folder)
    assert call(monkeypatch, *given) == 0
    captured = capsys.readouterr()
    said = " ".join(captured.out.split())
    assert "2.png" in said
    assert "from a probability of 25.0 % on" in said
    assert "one among the 2 labels that are listed" in said
    assert "loading the encoder" in captured.err and "suggesting" in captured.err


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (7, (), "60.0 % on, because with fewer than 8 labels probabilities are furthest off"),
        (8, (), "50.0 % on, from where ticking a label is expected to save a click."),
        (7, ("--threshold", "0.5"), "50.0 % on, as was asked for. "),
    ],
)
def test_the_threshold_is_told_with_its_reason(
    labels: int,
    options: tuple[str, ...],
    said: str,
    photos: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):
    names = ",".join(f"thing {number}" for number in range(labels))
    assert call(monkeypatch, "suggest", "--labels", names, *options, photos[0]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("labels", [3, 23, 24])
def test_how_a_project_without_reviews_differs_is_told_as_it_is(
    labels: int,
    photos: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    make_runtime: MakeRuntime,
    offline_encoder: OfflineEncoder,
):
    names = [f"thing {number}" for number in range(labels)]
    given = ("suggest", "--labels", ",".join(names), photos[0])
    call(monkeypatch, *given, "--json")
    here = json.loads(capsys.readouterr().out)[0]["scores"]
    in_project = []
    for attributes in ("", ' required="true"'):
        config = choices_config(*names, attributes=f'choice="multiple"{attributes}')
        (made,) = predict(make_runtime(offline_encoder), config, [task(0)])
        in_project.append(made.probabilities["tags"])
    plain, required = in_project
    call(monkeypatch, *given)
    told = " ".join(capsys.readouterr().out.split())
    assert here == required
    assert ("suggests fewer at first, unless" in told) == all(plain[n] < here[n] for n in names)
    assert ("suggests the same for its first images" in told) == (plain == here)


def test_more_labels_make_each_less_likely_as_the_output_says(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    cats = []
    for labels in ("cat,dog", ",".join(["cat", "dog", *(f"thing {n}" for n in range(40))])):
        call(monkeypatch, "suggest", "--labels", labels, "--json", photos[0])
        cats.append(json.loads(capsys.readouterr().out)[0]["scores"]["cat"])
    assert cats[1] < cats[0]


def test_labels_that_cannot_be_read_have_no_probability_in_any_output(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    given = ("suggest", "--labels", "犬,dog,車", "--threshold", "0", photos[0])
    assert call(monkeypatch, *given, "--json", "--csv", str(table), "--html", str(page)) == 0
    (found,) = json.loads(capfd.readouterr().out)
    assert found["scores"]["犬"] is None and found["scores"]["車"] is None
    assert found["suggested"] == ["dog"] and 0 < found["scores"]["dog"] < 1
    with table.open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["犬"], row["車"], row["suggested"]) == ("", "", "dog")
    assert float(row["dog"]) == pytest.approx(found["scores"]["dog"], abs=1e-4)
    assert call(monkeypatch, *given) == 0
    for said in (_Page(page.read_text("utf-8")).text, capfd.readouterr().out):
        assert "1 of 3 labels can be read by the encoder" in " ".join(said.split())
        assert "among the 3" not in said and "犬" not in said


def test_where_no_label_can_be_read_nothing_is_told_of_probabilities(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    assert call(monkeypatch, "suggest", "--labels", "犬,車", photos[0]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "The encoder can read none of the labels" in said
    assert "Suggested: from" not in said and "Each probability" not in said


def test_labels_that_cannot_be_read_are_told_with_the_option_that_helps(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    assert call(monkeypatch, "suggest", "--labels", "犬,dog", "--json", photos[0]) == 0
    captured = capfd.readouterr()
    assert "Note: offline reads English only, and cannot read 1 label: 犬." in captured.err
    assert "--prompts FILE" in captured.err and "xlm-roberta" in captured.err
    for elsewhere in ("WARNING", "model_prompt", "ls-clip prompts", "reviewed tasks"):
        assert elsewhere not in captured.err
    json.loads(captured.out)


def test_a_folder_and_a_pattern_stand_for_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    paths = [tmp_path / "deep" / "a.png", tmp_path / "deep" / "er" / "B.PNG"]
    for number, path in enumerate(paths):
        photo(number).save(path)
    (tmp_path / "deep" / "notes.txt").write_text("not an image")
    for source in (str(tmp_path), str(tmp_path / "**" / "*.[pP]*"), f"{tmp_path}/deep/"):
        assert call(monkeypatch, "suggest", "--labels", "dog", "--json", source) == 0
        found = json.loads(capsys.readouterr().out)
        base = tmp_path / "deep" if source.endswith("deep/") else tmp_path
        assert [item["file"] for item in found] == [str(path.relative_to(base)) for path in paths]


def test_files_are_named_from_the_folder_or_pattern_on_in_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    for folder in ("monday", "tuesday"):
        (tmp_path / "anna" / folder).mkdir(parents=True)
        photo(1).save(tmp_path / "anna" / folder / "IMG_0001.JPG")
    (tmp_path / "anna" / "tuesday" / "bad.jpg").write_text("no image")
    names = ["monday/IMG_0001.JPG", "tuesday/IMG_0001.JPG", "tuesday/bad.jpg"]
    for number, source in enumerate(("anna", "anna/**/*")):
        page, table = tmp_path / f"{number}.html", tmp_path / f"{number}.csv"
        given = ("suggest", "--labels", "dog", str(tmp_path / source))
        assert call(monkeypatch, *given, "--html", str(page), "--csv", str(table)) == 1
        told = capsys.readouterr().out
        with table.open(encoding="utf-8-sig", newline="") as file:
            assert [row["file"] for row in csv.DictReader(file)] == names
        call(monkeypatch, *given, "--json")
        assert [item["file"] for item in json.loads(capsys.readouterr().out)] == names
        shown = _Page(page.read_text("utf-8")).text
        for name in names:
            assert name in told and name in shown
        assert "anna" not in shown + told + table.read_text("utf-8-sig")


def test_single_files_are_named_as_they_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    photo(1).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "suggest", "--labels", "dog", "--json", "./a.png", "gone.png")
    found = json.loads(capsys.readouterr().out)
    assert [item["file"] for item in found] == ["./a.png", "gone.png"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["IMG_0003.MOV", "Thumbs.db"], "Left out: 2 files that are no images, e.g. IMG_0003.MOV."),
        (["[b]notes.txt"], "Left out: 1 file that is no image, e.g. [b]notes.txt."),
        ([], ""),
    ],
)
def test_files_that_are_left_out_of_a_folder_are_counted(
    others: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):
    photo(1).save(tmp_path / "a.png")
    for name in others:
        (tmp_path / name).touch()
    assert call(monkeypatch, "suggest", "--labels", "dog", "--json", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1
    assert said in captured.err and ("Left out" in captured.err) == bool(said)


def test_labels_and_prompts_come_from_files(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    labels, prompts = tmp_path / "labels.txt", tmp_path / "prompts.csv"
    labels.write_bytes("\ufeff犬\r\n\r\n#cat\r\n犬\r\n".encode())
    prompts.write_text("label;prompt\n犬;a photo of a dog|a puppy\n")
    given = ("suggest", "--json", photos[0], "--prompts", str(prompts))
    assert call(monkeypatch, *given, "--labels", str(labels)) == 0
    captured = capfd.readouterr()
    (of_both,) = json.loads(captured.out)
    assert list(of_both["scores"]) == ["犬", "#cat"]
    assert "xlm-roberta" not in captured.err  # It reads the prompts, not the label.
    assert call(monkeypatch, *given) == 0
    (of_prompts,) = json.loads(capfd.readouterr().out)
    assert list(of_prompts["scores"]) == ["犬"]
    assert call(monkeypatch, *given, "--labels", "dog") == 1
    assert "does not name: 犬" in capfd.readouterr().err


class _Page(HTMLParser):
    """Text and attributes of a page, as a browser would read them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text = ""
        self.addresses: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe"}
        assert not any(name.startswith("on") for name, _ in attrs)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_and_the_table_hold_every_image_and_load_nothing(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(contact_sheet, "PAGE_IMAGES", 3)
    monkeypatch.setattr("backend.cli.suggest.PAGE_IMAGES", 3)
    odd = tmp_path / "<script>alert(1)<&quot;.png"
    photo(5, 900, 300).save(odd)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    outputs = ("--html", str(page), "--csv", str(table))
    labels = "<b>dog</b>,cat"
    given = ("suggest", "--labels", labels, str(odd), str(bad), *photos, *outputs)
    assert call(monkeypatch, *given) == 1
    read = _Page(page.read_text("utf-8"))
    assert str(odd) in read.text and "<b>dog</b>" in read.text and str(bad) in read.text
    assert "from a probability of" in read.text and "one among the 2 labels" in read.text
    assert "not on this page: 1." in read.text
    assert len(read.addresses) == 3
    for address in read.addresses:
        form, data = address.split(",")
        assert form == "data:image/jpeg;base64"
        image = Image.open(BytesIO(b64decode(data)))
        assert max(image.size) <= 200
    assert re.search(r"\d %", read.text)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(odd), str(bad), *photos]
    assert set(rows[0]) == {"file", "suggested", "threshold", "error", "<b>dog</b>", "cat"}
    assert rows[1]["error"] and not rows[1]["cat"]
    assert 0 <= float(rows[0]["cat"]) <= 1
    before = page.read_text("utf-8")
    assert call(monkeypatch, *given) == 1
    assert page.read_text("utf-8") == before  # A file of one's own is never written over.


def test_the_page_speaks_the_language_of_the_settings_and_the_terminal_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setenv("LS_CLIP_LANGUAGE", "ja")
    photo(1).save(tmp_path / "a.png")
    (tmp_path / "empty.png").touch()
    page = tmp_path / "page.html"
    files = [str(tmp_path), str(tmp_path / "gone.png")]
    given = ("suggest", "--labels", "dog,犬", "--threshold", "1", *files, "--html", str(page))
    assert call(monkeypatch, *given) == 1
    captured = capsys.readouterr()
    content = page.read_text("utf-8")
    read = _Page(content)
    assert '<html lang="ja">' in content
    kept = {
        "dog",
        "a.png",
        "empty.png",
        str(tmp_path / "gone.png"),
        "offline",
        "PNG",
        "required",
        "true",
    }
    english = re.sub("|".join(map(re.escape, sorted(kept))), "", read.text)
    english = re.sub(r"(?s)<style>.*</style>|:root.*nowrap; }", "", english)
    assert re.findall("[A-Za-z]{3,}", english) == []
    assert "画像 1 枚の候補" in read.text and "候補なし" in read.text
    assert not re.search("[ぁ-ん]", captured.out + captured.err)


def test_the_page_to_pass_on_names_no_option_and_counts_what_it_shows(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(contact_sheet, "PAGE_IMAGES", 2)
    (tmp_path / "bad.png").touch()
    page = tmp_path / "page.html"
    given = ("suggest", "--labels", "dog,cat", *photos, str(tmp_path / "bad.png"))
    assert call(monkeypatch, *given, "--html", str(page)) == 1
    text = _Page(page.read_text("utf-8")).text
    assert text.count("Suggestions for 3 images") == 2
    assert "--" not in re.sub(r"(?s):root.*nowrap; }", "", text)
    said = capsys.readouterr().out
    assert "--threshold" in said
    for told in (said, text):
        assert "Replace it with a complete copy." in told and "Upload" not in told


def test_files_that_nothing_was_written_to_are_gone_after_an_error(
    photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    page, table = tmp_path / "page.html", tmp_path / "gone" / "table.csv"
    given = ("suggest", "--labels", "dog", photos[0], "--html", str(page), "--csv", str(table))
    assert call(monkeypatch, *given) == 1
    assert "--csv" in capsys.readouterr().err
    assert not page.exists()
