"""The table of zero-shot probabilities."""

from __future__ import annotations

import json
import math

import pytest

from backend.encoders.table import CLIP, OFFLINE, Table


@pytest.mark.parametrize("table", [OFFLINE, CLIP])
def test_a_table_survives_being_stored(table: Table):
    assert Table.from_dict(json.loads(json.dumps(table.as_dict()))) == table


def test_fewer_labels_make_each_one_likelier_but_never_by_more_than_the_limit():
    offsets = [OFFLINE.row(True, labels).offset for labels in (1000, 80, 20, 5, 1)]
    assert offsets == sorted(offsets)
    assert OFFLINE.row(True, 80).offset == pytest.approx(OFFLINE.with_statistics.offset)
    assert offsets[-1] == offsets[-2]
    assert all(math.isfinite(offset) for offset in offsets)
