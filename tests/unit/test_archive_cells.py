"""Lists in a table's cells as pandas writes them: NumPy arrays, which have no commas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.archives import read, write


def labels_of_cell(folder: Path, cell: str) -> tuple[str, ...]:
    quoted = cell.replace('"', '""')
    path = write(folder, "a.csv", f'image,label\nhttp://h/1.jpg,"{quoted}"\n')
    (row,) = read(path).rows
    return row.labels


@pytest.mark.parametrize(
    "cell",
    [
        "['cat' 'traffic light' \"it's\"]",
        "['cat'\n 'traffic light'\n \"it's\"]",
        "['cat''traffic light'\"it's\"]",
        "['cat', 'traffic light' \"it's\"]",
        "{'choices': ['cat' 'traffic light' \"it's\"]}",
        "array(['cat', 'traffic light', \"it's\"], dtype=object)",
        "array(['cat', 'traffic light',\n       \"it's\"], dtype='<U13')",
        "np.array(['cat', 'traffic light', 'it\\'s'])",
        "[np.str_('cat'), np.str_('traffic light'), np.str_(\"it's\")]",
    ],
)
def test_an_array_that_was_printed_into_a_cell_names_each_label(tmp_path: Path, cell: str):
    assert labels_of_cell(tmp_path, cell) == ("cat", "traffic light", "it's")


@pytest.mark.parametrize(
    ("labels", "printed"),
    [
        (["a b", 'c"d', "e'f", "g\\h", "i, j"], ""),
        (["cat"], ""),
        (["x" * 40, "y" * 40, "z" * 40], "\n"),
    ],
)
@pytest.mark.parametrize("spelt", [str, repr])
def test_what_numpy_prints_is_read_as_it_was(
    tmp_path: Path, labels: list[str], printed: str, spelt: Any
):
    cell = spelt(np.array(labels, dtype=object))
    assert printed in cell
    assert labels_of_cell(tmp_path, cell) == tuple(labels)


def test_an_array_of_which_the_middle_was_not_printed_is_no_list(tmp_path: Path):
    cell = str(np.array(["cat"] * 2000))
    assert labels_of_cell(tmp_path, cell) == (cell,)
