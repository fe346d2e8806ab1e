"""What an annotator can have seen: only what was there when the annotation was begun."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.storage.prediction_log import LoggedPrediction
from backend.training.approvals import Approval, Past, approval
from backend.training.provenance import CLOCK_SKEW, Shown
from tests.support.builders import choices_config

CONTROL = parse_config(choices_config("cat", "dog", "tree")).controls[0]
MADE = 1_800_000_000.0
"""When the prediction was made."""


def clock(moment: float) -> str:
    """As Label Studio writes a time."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def annotation(created: float, *labels: str, **fields: Any) -> dict[str, Any]:
    item = {"from_name": "tags", "to_name": "image", "type": "choices"}
    return {
        "id": 1,
        "result": [{**item, "value": {"choices": list(labels)}}],
        "was_cancelled": False,
        "completed_by": 1,
        "lead_time": 3.0,
        "parent_prediction": None,
        "created_at": clock(created),
        "updated_at": clock(created),
        **fields,
    }


def shown(*, logged: float | None = MADE, made: float | None = MADE, blind: bool = False) -> Shown:
    """A task with one prediction: when it was logged, and since when Label Studio has it."""
    choices = None if blind else {"tags": ["cat"]}
    there = {} if made is None else {"v1": made}
    entry = LoggedPrediction(1, "v1", 0.5, choices, logged)
    return Shown({"v1": entry}, {7: "v1"} if there else {}, blind, there)


def read(*annotations: dict[str, Any], seen: Shown, past: Past | None = None) -> Approval:
    found = approval({"id": 1, "annotations": list(annotations)}, CONTROL, past or Past(), seen)
    assert found is not None
    return found


@pytest.mark.parametrize("labels", [("cat",), ("cat", "dog"), ()])
def test_what_was_made_after_the_annotation_was_not_seen(labels: tuple[str, ...]):
    # One second is enough: both times are of Label Studio's clock.
    assert read(annotation(MADE - 1, *labels), seen=shown()).provenance == "unaided"
    later = read(annotation(MADE + 1, *labels), seen=shown())
    assert later.provenance == ("accepted" if labels == ("cat",) else "edited")


def test_what_the_annotation_was_made_from_was_seen_whatever_the_clocks_say():
    one = annotation(MADE - 100, "cat", parent_prediction=7)
    assert read(one, seen=shown()).provenance == "accepted"


def test_an_annotation_that_is_changed_after_the_prediction_stays_unaided():
    one = annotation(MADE - 100, "cat", updated_at=clock(MADE + 100))
    assert read(one, seen=shown()).provenance == "unaided"


def test_a_draft_that_was_begun_before_the_prediction_is_unaided():
    one = annotation(MADE + 100, "cat", draft_created_at=clock(MADE - 100))
    assert read(one, seen=shown()).provenance == "unaided"


def test_who_annotates_again_after_the_prediction_has_seen_it():
    first = annotation(MADE - 100, "dog", id=1)
    again = annotation(MADE + 100, "cat", id=2, parent_prediction=7)
    assert read(first, again, seen=shown()).provenance == "accepted"
    other = {**again, "completed_by": 2}
    assert read(first, other, seen=shown()).provenance == "unaided"


def test_a_copy_shows_what_its_original_showed():
    first = annotation(MADE - 100, "cat", id=1, completed_by=1)
    copy = annotation(MADE + 100, "cat", id=2, completed_by=1, parent_annotation=1)
    again = annotation(MADE + 200, "cat", id=3, completed_by=1, parent_annotation=2)
    assert read(first, copy, again, seen=shown()).provenance == "unaided"
    accepted = {**first, "parent_prediction": 7}
    assert read(accepted, copy, seen=shown()).provenance == "accepted"
    circle = [{**copy, "parent_annotation": 3}, again]
    assert read(*circle, seen=shown()).provenance == "accepted"


@pytest.mark.parametrize("labels", [("cat",), ("dog",)])
def test_an_annotation_of_another_installation_is_imported(labels: tuple[str, ...]):
    # Label Studio keeps the time of work and notes the id that it had in the file.
    one = annotation(MADE + 100, *labels, import_id=612, ground_truth=True)
    for seen in (shown(), shown(blind=True)):
        found = read(one, seen=seen)
        assert found.provenance == "imported"
        assert -1 not in found.states


@pytest.mark.parametrize(
    ("logged", "provenance"),
    [
        (MADE, "accepted"),
        (None, "accepted"),
        (MADE + 100 + CLOCK_SKEW - 1, "accepted"),
        (MADE + 100 + CLOCK_SKEW + 1, "unaided"),
    ],
)
def test_of_a_prediction_that_was_deleted_our_own_clock_tells_with_allowance(
    logged: float | None, provenance: str
):
    one = annotation(MADE + 100, "cat")
    assert read(one, seen=shown(logged=logged, made=None)).provenance == provenance


def test_a_prediction_that_was_made_again_was_there_before():
    one = annotation(MADE + 1000, "cat")
    seen = shown(logged=MADE, made=MADE + 5000)
    assert read(one, seen=seen).provenance == "accepted"
    assert read(annotation(MADE + 1, "cat"), seen=seen).provenance == "unaided"


def test_an_old_log_without_times_is_judged_by_label_studio():
    seen = shown(logged=None)
    assert read(annotation(MADE - 1, "cat"), seen=seen).provenance == "unaided"
    assert read(annotation(MADE + 1, "cat"), seen=seen).provenance == "accepted"


def test_a_blind_task_is_blind_by_what_was_there():
    blind = shown(blind=True)
    for moment in (MADE - 1, MADE + 1):
        assert read(annotation(moment, "cat"), seen=blind).provenance == "blind"
    # The share was raised after the suggestions had been seen.
    raised = Shown(shown().logged, {7: "v1"}, True, {"v1": MADE})
    assert read(annotation(MADE + 1, "cat"), seen=raised).provenance == "accepted"


def test_marking_the_ground_truth_decides_nothing_about_a_label_that_was_added_since():
    past = Past({"tree": MADE})
    moments = {"updated_at": clock(MADE + 100)}
    marked = annotation(MADE - 100, "cat", ground_truth=True, **moments)
    assert read(marked, seen=Shown({}, {}), past=past).states == (1, -1, 0)
    changed = annotation(MADE - 100, "cat", **moments)
    assert read(changed, seen=Shown({}, {}), past=past).states == (1, -1, -1)
