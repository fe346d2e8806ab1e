"""Labels and prompts in files: as editors and spreadsheets of all systems write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import SettingsError
from backend.labels.label_files import given_labels, read_prompts


@pytest.mark.parametrize(
    "content",
    [
        b"dog\ncafe\xcc\x81\n#7\n",
        b"\xef\xbb\xbfdog\r\n\r\n  caf\xc3\xa9  \r\n#7",
        b"dog\rcaf\xc3\xa9\r#7\rdog\r",
    ],
)
def test_marks_line_ends_spaces_and_repetitions_do_not_matter(content: bytes, tmp_path: Path):
    file = tmp_path / "labels"
    file.write_bytes(content)
    assert given_labels(str(file)) == ["dog", "café", "#7"]


def test_labels_with_commas_between_them_are_no_file():
    assert given_labels(" dog,cup/mug ,, a.txt,dog") == ["dog", "cup/mug", "a.txt"]
    assert given_labels("x" * 5000) == ["x" * 5000]
    assert given_labels("~100 g,cat") == ["~100 g", "cat"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n \n", "holds no label"),
        (b"\xff\xfed\x00", "no text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_labels_is_one_clear_error(content: bytes | None, said: str, tmp_path: Path):
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=said) as raised:
        given_labels(str(file))
    assert raised.value.fix


@pytest.mark.parametrize("content", ["label,prompt\n犬,x\n".encode("cp932"), b"label,pro\0mpt\n"])
def test_prompts_that_are_no_text_name_no_option_of_another_command(content: bytes, tmp_path: Path):
    file = tmp_path / "prompts.csv"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        read_prompts(file)
    assert "--encoding" not in str(raised.value) and "CSV UTF-8" in raised.value.fix


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_prompts_are_split_as_in_a_labeling_config(separator: str, tmp_path: Path):
    file = tmp_path / "prompts.csv"
    rows = [
        ("label", "prompt", "note"),
        ("dog", "a dog | | a puppy", "x"),
        ("cat", "", ""),
        ("dog", "my dog", ""),
    ]
    file.write_text("\ufeff" + "".join(separator.join(row) + "\r\n" for row in rows), "utf-8")
    assert read_prompts(file) == {"dog": ("a dog", "a puppy", "my dog"), "cat": ()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,prompt\na,b\n", "no column label"),
        ("label,prompt\n", "holds no label"),
        ('label,prompt\na,"b\n', "cannot be read"),
        ("label,label,prompt\na,b,c\n", "several columns of one name"),
    ],
)
def test_a_wrong_file_of_prompts_is_one_clear_error(content: str, said: str, tmp_path: Path):
    file = tmp_path / "prompts.csv"
    file.write_text(content)
    with pytest.raises(SettingsError, match=said) as raised:
        read_prompts(file)
    assert raised.value.fix
