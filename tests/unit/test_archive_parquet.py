"""Archives in Parquet: lists, our own export, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.errors import SettingsError
from tests.support.archives import as_parquet, labels_in, read, reasons_in, write

FIRST, SECOND = "https://photos.example.com/1.jpg", "https://photos.example.com/2.jpg"


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [FIRST, FIRST, SECOND], "label": ["cat", "dog", "food"]},
        {"image": [FIRST, SECOND], "labels": [["cat", "dog"], ["food"]]},
        {"image": [FIRST, SECOND], "cat": [True, False], "dog": [1, 0], "food": [0.0, 1.0]},
    ],
    ids=["a label in each row", "lists", "a column for each label"],
)
def test_a_list_in_parquet_is_read_like_a_csv(tmp_path: Path, columns: dict[str, list[Any]]):
    # Told by its content: some tools write no suffix.
    archive = read(write(tmp_path, "labels", as_parquet(columns)))
    assert labels_in(archive) == {FIRST: ("cat", "dog"), SECOND: ("food",)}


def test_a_row_without_an_image_or_a_label_is_counted(tmp_path: Path):
    columns: dict[str, list[Any]] = {"image": [FIRST, None, SECOND], "label": ["cat", "dog", None]}
    archive = read(write(tmp_path, "labels.parquet", as_parquet(columns)))
    assert labels_in(archive) == {FIRST: ("cat",)}
    assert reasons_in(archive) == {"no_image": (1, "row 2"), "no_label": (1, "row 3")}


def test_suggestions_in_our_own_parquet_export_become_no_known_labels(tmp_path: Path):
    states = ["approved", "pseudo", "known", "approved"]
    columns: dict[str, list[Any]] = {
        "task": [1, 1, 1, 2],
        "image": [FIRST, FIRST, FIRST, SECOND],
        "control": ["tags"] * 4,
        "label": ["cat", "dog", "person", "food"],
        "state": states,
        "present": [True, True, True, False],
        "provenance": ["reviewed"] * 4,
    }
    archive = read(write(tmp_path, "labels.parquet", as_parquet(columns)))
    assert labels_in(archive) == {FIRST: ("cat", "person")}


def test_embedded_images_are_refused_with_the_way_out(tmp_path: Path):
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": b"\xff\xd8", "path": "1.jpg"}],
        "label": ["cat"],
    }
    with pytest.raises(SettingsError, match=r"has the image files in its column image\."):
        read(write(tmp_path, "train.parquet", as_parquet(columns)))


@pytest.mark.parametrize("keep", [4, 20, -1])
def test_a_damaged_file_is_told(tmp_path: Path, keep: int):
    whole = as_parquet({"image": [FIRST], "label": ["cat"]})
    with pytest.raises(SettingsError) as caught:
        read(write(tmp_path, "labels.parquet", whole[:keep]))
    assert "labels.parquet is" in str(caught.value)
