"""Figures of each label, where they come from, and what is missing for better ones."""

from __future__ import annotations

import json

import pytest
import torch

from backend.vlpl.decisions import NEGATIVE, POSITIVE, UNKNOWN
from backend.vlpl.label_figures import Held, LabelFigures, Source, label_figures

P, N, U = POSITIVE, NEGATIVE, UNKNOWN


def held(probability: list[list[float]], known: list[list[int]]) -> Held:
    return Held(torch.tensor(probability), torch.tensor(known))


NOTHING = Held(torch.zeros(0, 1), torch.zeros(0, 1, dtype=torch.int64))
NOTHING_OF_TWO = Held(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.int64))
FOUR = held([[0.9], [0.8], [0.4], [0.7]], [[P], [P], [P], [N]])


def test_rates_are_of_what_is_ticked_and_of_judged_tasks_where_these_suffice():
    (found,) = label_figures(["cat"], [12], FOUR, NOTHING, [0.5])
    assert found.average_precision == pytest.approx(11 / 12)
    assert (found.precision, found.recall) == (2 / 3, 2 / 3)
    assert (found.reviewed, found.judged, found.source) == (12, 3, Source.JUDGED)
    assert found.missing == 0
    (found,) = label_figures(["cat"], [12], FOUR, NOTHING, [0.85])
    assert (found.precision, found.recall) == (1.0, 1 / 3)


def test_a_label_that_is_never_ticked_has_no_precision_and_recalls_nothing():
    (found,) = label_figures(["cat"], [12], FOUR, NOTHING, [2.0])
    assert (found.precision, found.recall) == (None, 0.0)


def test_with_too_few_judged_positives_cross_validation_speaks_and_the_rest_is_named():
    few = held([[0.9], [0.2]], [[P], [N]])
    (found,) = label_figures(["cat"], [9], few, FOUR, [0.5])
    assert (found.source, found.judged, found.missing) == (Source.CROSS_VALIDATION, 1, 2)
    assert found.precision == 2 / 3


def test_with_too_few_of_either_nothing_is_told_but_what_is_missing():
    few = held([[0.9], [0.2]], [[P], [N]])
    (found,) = label_figures(["cat"], [2], NOTHING, few, [0.5])
    assert found == LabelFigures("cat", 2, 0, Source.NONE, missing=2)


def test_what_is_unknown_counts_neither_for_nor_against_a_label():
    known = held([[0.9], [0.8], [0.4], [0.7], [0.95]], [[P], [P], [P], [N], [U]])
    assert label_figures(["cat"], [3], known, NOTHING, [0.5]) == label_figures(
        ["cat"], [3], FOUR, NOTHING, [0.5]
    )


def test_of_a_single_choice_only_the_most_probable_label_is_ticked():
    both = held([[0.9, 0.8]] * 3 + [[0.6, 0.7]] * 3, [[P, N]] * 3 + [[N, P]] * 3)
    cat, dog = label_figures(["cat", "dog"], [3, 3], both, NOTHING_OF_TWO, [0.5, 0.5], single=True)
    assert (cat.precision, cat.recall, dog.precision, dog.recall) == (1.0, 1.0, 1.0, 1.0)
    cat, dog = label_figures(["cat", "dog"], [3, 3], both, NOTHING_OF_TWO, [0.5, 0.5])
    assert (cat.precision, dog.precision) == (0.5, 0.5)


def test_figures_survive_json():
    for found in label_figures(["cat"], [12], FOUR, NOTHING, [2.0]):
        assert LabelFigures.from_dict(json.loads(json.dumps(found.as_dict()))) == found
