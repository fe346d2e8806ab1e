"""No file makes the import of an archive fail in any other way than with an error for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import SettingsError
from backend.projects.archives.rows import Reason
from backend.projects.label_states import OWN_COLUMNS
from tests.support.archives import ANIMALS, read, write

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
)
NAMES = st.sampled_from(
    [
        *("image", "label", "tags", "data", "annotations", "result", "value", "choices", "cat"),
        *("taxonomy", "from_name", "images", "categories", "id", "image_id", "category_id"),
        *("file_name", "name", "segments_info", "was_cancelled", "attributes", "state", "present"),
    ]
)
WORDS = st.sampled_from(
    ["cat", "dog", "tags", "http://h/1.jpg", "1", "", '["cat"', "['cat'", "{1:"]
)
VALUES = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
OWN = st.dictionaries(st.sampled_from(sorted({*OWN_COLUMNS, "image", "label"})), LEAVES | WORDS)
TASKS = st.lists(st.fixed_dictionaries({"data": VALUES, "annotations": VALUES}), max_size=3)
COCO = st.fixed_dictionaries(
    {name: st.lists(VALUES, max_size=3) for name in ("images", "annotations", "categories")}
)
CELLS = st.lists(st.text(max_size=8) | WORDS | NAMES, min_size=1, max_size=4)
SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check(path: Path, **options: Any) -> None:
    """Read an archive, which works or is refused."""
    try:
        archive = read(path, ANIMALS, **options)
    except SettingsError as error:
        assert error.fix and len(str(error)) < 900
        return
    assert Reason.NOT_SERVED not in archive.left_out
    for row in archive.rows:
        assert row.key and row.labels and all(row.labels) and (row.image or row.file)


@SLOW
@given(content=st.binary(max_size=200), encoding=st.sampled_from([None, "utf-16-le", "cp932"]))
def test_no_bytes_break_the_reader(tmp_path: Path, content: bytes, encoding: str | None):
    check(write(tmp_path, "a.csv", content), encoding=encoding)


@SLOW
@given(rows=st.lists(CELLS, max_size=5), separators=st.sampled_from(["", " ", ",;|", "]^\\-["]))
def test_no_table_breaks_the_reader(tmp_path: Path, rows: list[list[str]], separators: str):
    text = "\n".join(",".join(cells) for cells in [["image", "label"], *rows])
    check(write(tmp_path, "a.csv", text.encode(errors="replace")), separators=separators)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@SLOW
@given(
    content=VALUES | st.lists(VALUES | OWN, max_size=3) | TASKS | COCO,
    columns=st.lists(NAMES, max_size=2),
)
def test_no_json_breaks_the_reader(tmp_path: Path, name: str, content: Any, columns: list[str]):
    check(write(tmp_path, name, json.dumps(content)), label_columns=tuple(columns))
    check(write(tmp_path, name, "[1" + json.dumps(content)))
