"""The table of zero-shot probabilities."""

from __future__ import annotations

import json
import math

import pytest

from backend.encoders.table import CLIP, OFFLINE, Row, Scores, Table


@pytest.mark.parametrize("table", [OFFLINE, CLIP])
def test_a_table_survives_being_stored(table: Table):
    assert Table.from_dict(json.loads(json.dumps(table.as_dict()))) == table


def test_a_table_of_an_earlier_release_is_read():
    row = {"slope": 1.5, "offset": -2.5, "threshold": 0.3}
    table = Table.from_dict(
        {
            "with_statistics": row,
            "without_statistics": {**row, "slope": 2.0},
            "spread": 0.04,
            "labels": 12,
            "labels_per_image": 2.5,
        }
    )
    assert table.row(Scores.STANDARDISED, 12) == Row(1.5, -2.5)
    assert table.row(Scores.BARE, 12) == Row(2.0, -2.5)
    assert table.row(Scores.VOTED, 12).slope > 1.5
    assert table.prior_of(Scores.STANDARDISED, 12).mean == (1.5, -2.5)


@pytest.mark.parametrize("labels", [1, 3, 5, 20, 80, 1000])
@pytest.mark.parametrize("scores", Scores)
def test_few_labels_alone_do_not_make_each_one_likelier(scores: Scores, labels: int):
    """Three labels cost many clicks where every photo is taken to have one of them."""
    assert OFFLINE.row(scores, labels) == OFFLINE.row(scores, 80)
    assert OFFLINE.prior_of(scores, labels) == OFFLINE.prior_of(scores, 80)


def test_labels_that_each_image_must_have_are_likelier_the_fewer_they_are():
    offsets = [OFFLINE.row(Scores.STANDARDISED, n, required=True).offset for n in (80, 20, 5, 2, 1)]
    assert offsets == sorted(offsets)
    assert offsets[0] == pytest.approx(OFFLINE.with_statistics.offset)
    assert offsets[-1] == offsets[-2], "never more than the limit"
    assert all(math.isfinite(offset) for offset in offsets)
    prior = OFFLINE.prior_of(Scores.STANDARDISED, 5, required=True)
    moved = prior.mean[1] - OFFLINE.prior.mean[1]
    assert moved == pytest.approx(offsets[2] - OFFLINE.with_statistics.offset)


def test_a_label_is_ticked_where_that_is_expected_to_save_a_click():
    assert [CLIP.tick_from(labels) for labels in (80, 5, 4, 1)] == [0.5, 0.5, 0.6, 0.6]
    assert [OFFLINE.tick_from(labels) for labels in (80, 8, 7, 1)] == [0.5, 0.5, 0.6, 0.6]
