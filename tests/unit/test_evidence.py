"""What a person reads beside a suggestion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.inference.evidence import NEAR_MISSES, ScoredControl, confidence, evidence_lines
from backend.labels.controls import Control, ControlKind
from backend.labels.label import Label


def scored(*probabilities: float, threshold: float = 0.5, multiple: bool = True) -> ScoredControl:
    labels = tuple(
        Label((f"label{index}",), f"label{index}") for index in range(len(probabilities))
    )
    control = Control("tags", "image", ControlKind.CHOICES, multiple, False, "image", labels)
    return ScoredControl(
        control, np.array(probabilities, np.float32), [threshold] * len(probabilities)
    )


def names(labels: list[Label]) -> list[str]:
    return [label.key for label in labels]


def test_labels_are_suggested_from_the_threshold_on_in_the_configs_order():
    assert names(scored(0.6, 0.4, 0.9, 0.5).suggested) == ["label0", "label2", "label3"]


def test_ticked_labels_are_listed_by_probability():
    listed = scored(0.6, 0.4, 0.9, 0.5).ticked
    assert [label.key for label, _ in listed] == ["label2", "label0", "label3"]


def test_one_of_equally_probable_single_choices_is_always_the_same():
    assert names(scored(0.2, 0.7, 0.7, multiple=False).suggested) == ["label1"]


def test_a_single_choice_below_the_threshold_is_not_suggested():
    assert scored(0.2, 0.4, multiple=False).suggested == []


def test_near_misses_are_the_best_of_the_rest():
    near = scored(0.9, *[0.01 * step for step in range(10)]).near
    assert len(near) == NEAR_MISSES
    assert [label.key for label, _ in near][:2] == ["label10", "label9"]


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [((1.0, 0.0), 1.0), ((0.5, 0.5), 0.5), ((0.5,) * 6, 0.25), ((), 1.0), ((1.0, 0.75), 0.8)],
)
def test_confidence_is_one_over_one_plus_the_expected_changes(
    probabilities: tuple[float, ...], expected: float
):
    assert confidence([scored(*probabilities)]) == pytest.approx(expected)


def test_what_the_encoder_cannot_read_is_named_and_its_probability_counts_for_nothing():
    read = scored(0.9, 0.4)
    control = scored(0.9, 0.4, 0.45).control
    some = ScoredControl(
        control, np.array([0.9, 0.4, 0.45]), [0.5, 0.5, 2.0], unreadable=frozenset({2})
    )
    assert confidence([some]) == pytest.approx(confidence([read]))
    assert names([label for label, _ in some.near]) == ["label1"]
    assert "cannot be read by the encoder: label2" in evidence_lines([some], "x")


def test_an_uncertain_task_has_less_confidence_than_a_certain_one():
    assert confidence([scored(0.55, 0.45)]) < confidence([scored(0.95, 0.05)])


def test_a_far_threshold_counts_as_expected_changes():
    assert confidence([scored(0.9, threshold=0.95)]) < confidence([scored(0.9)])


def test_the_lines_show_ticked_labels_near_misses_and_the_source():
    assert evidence_lines([scored(0.9, 0.2)], "v1: not calibrated yet") == [
        "suggested: label0 90 %",
        "not ticked: label1 20 %",
        "v1: not calibrated yet",
    ]


def test_the_lines_say_so_when_nothing_is_suggested():
    assert evidence_lines([scored(0.1)], "v1")[0] == "suggested: nothing"


@pytest.mark.parametrize(
    ("probabilities", "multiple", "first"),
    [
        ((1.0, 0.2), True, "suggested: nothing beyond what is known"),
        ((1.0, 0.8), True, "suggested: label1 80 %"),
        ((1.0, 1.0), False, "suggested: nothing beyond what is known"),
    ],
)
def test_a_label_that_is_known_is_not_said_to_be_suggested(
    probabilities: tuple[float, ...], multiple: bool, first: str
):
    known = replace(scored(*probabilities, multiple=multiple), known=frozenset({0}))
    lines = evidence_lines([known], "v1")
    assert lines[:2] == [first, "known beforehand: label0"]


def test_the_lines_of_several_controls_name_them():
    lines = evidence_lines([scored(0.9), scored(0.9)], "v1")
    assert all(line.startswith("tags – ") for line in lines[:-1])
