"""What counts as approved, and how it was reviewed."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.labels.controls import Control, known_labels
from backend.storage.prediction_log import LoggedPrediction
from backend.training.approvals import Approval, Past, approval, known_approval
from backend.training.provenance import Shown
from tests.support.builders import choices_config

CONTROL = parse_config(choices_config("cat", "dog", "tree")).controls[0]
SHOWN = Shown({"v1": LoggedPrediction(1, "v1", 0.5, {"tags": ["cat"]})}, {7: "v1"})
NOTHING_SHOWN = Shown({}, {})


def annotation(*labels: str, **fields: Any) -> dict[str, Any]:
    item = {"from_name": "tags", "to_name": "image", "type": "choices"}
    return {
        "id": 1,
        "result": [{**item, "value": {"choices": list(labels)}}] if labels else [],
        "was_cancelled": False,
        "completed_by": 1,
        "lead_time": 3.0,
        "parent_prediction": 7,
        "updated_at": "2026-11-23T07:00:00Z",
        **fields,
    }


def read(*annotations: dict[str, Any], shown: Shown = SHOWN, **since: float) -> Approval | None:
    return approval({"id": 1, "annotations": list(annotations)}, CONTROL, Past(since), shown)


@pytest.mark.parametrize(
    ("one", "shown", "provenance"),
    [
        pytest.param(annotation("cat"), SHOWN, "accepted", id="accepted unchanged"),
        pytest.param(annotation("cat", "dog"), SHOWN, "edited", id="edited"),
        pytest.param(annotation(), SHOWN, "edited", id="everything unticked"),
        pytest.param(
            annotation("cat", lead_time=None), SHOWN, "bulk", id="created from predictions"
        ),
        pytest.param(
            annotation("cat", lead_time=None, parent_prediction=None, ground_truth=True),
            SHOWN,
            "imported",
            id="imported with the task",
        ),
        pytest.param(
            annotation("cat", parent_prediction=None), NOTHING_SHOWN, "unaided", id="unaided"
        ),
        pytest.param(
            annotation("cat", parent_prediction=None), SHOWN, "accepted", id="prediction deleted"
        ),
        pytest.param(
            annotation("cat"),
            Shown({"v1": LoggedPrediction(1, "v1", 0.5, None)}, {7: "v1"}, blind=True),
            "blind",
            id="blind",
        ),
        pytest.param(annotation("cat", "dog"), NOTHING_SHOWN, "accepted", id="shown by another"),
        pytest.param(
            annotation("cat"),
            Shown(
                {
                    "v1": LoggedPrediction(1, "v1", 0.5, None),
                    "v2": LoggedPrediction(1, "v2", 0.5, {"tags": ["cat"]}),
                },
                {7: "v1"},
            ),
            "unaided",
            id="held back then, shown now",
        ),
    ],
)
def test_provenance(one: dict[str, Any], shown: Shown, provenance: str):
    found = read(one, shown=shown)
    assert found is not None
    assert found.provenance == provenance


def test_a_blind_task_that_was_annotated_in_bulk_says_nothing():
    hidden = Shown({"v1": LoggedPrediction(1, "v1", 0.5, None)}, {7: "v1"}, blind=True)
    assert read(annotation(lead_time=None), shown=hidden) is None
    assert read(annotation("cat", lead_time=None), shown=hidden) is None


def test_what_nobody_looked_at_has_no_say_beside_a_review():
    person = annotation("dog")
    later = {"updated_at": "2026-11-24T07:00:00Z", "lead_time": None}
    bulk = [annotation("cat", id=number, completed_by=number, **later) for number in (2, 3)]
    same = annotation("cat", id=4, **later)
    empty = annotation(id=5, parent_prediction=None, **later)
    for others in ([], bulk, [same], [empty], [*bulk, same, empty]):
        assert read(person, *others) == read(person)


def test_an_annotation_of_another_kind_of_control_says_nothing():
    one = annotation("cat")
    one["result"][0] |= {"type": "taxonomy", "value": {"taxonomy": [["cat"]]}}
    assert read(one) is None


def test_origin_is_not_trusted():
    changed_back = annotation("cat")
    changed_back["result"][0]["origin"] = "prediction-changed"
    found = read(changed_back)
    assert found is not None
    assert found.provenance == "accepted"


def test_cancelled_annotations_do_not_count():
    assert read(annotation("cat", was_cancelled=True)) is None


def test_items_of_other_controls_and_unknown_labels_do_not_count():
    one = annotation("cat", "gone")
    one["result"].append(
        {"from_name": "clip_evidence", "type": "textarea", "value": {"text": ["dog 99 %"]}}
    )
    found = read(one)
    assert found is not None
    assert found.states == (1, -1, -1)


def test_an_empty_annotation_says_that_nothing_is_there():
    found = read(annotation())
    assert found is not None
    assert found.states == (-1, -1, -1)


def test_an_imported_annotation_is_never_taken_as_exhaustive():
    found = read(annotation("dog", lead_time=None, parent_prediction=None, ground_truth=True))
    assert found is not None
    assert found.states == (0, 1, 0)
    assert read(annotation(lead_time=None, parent_prediction=None)) is None


def test_a_label_that_was_added_later_is_unknown_for_what_was_reviewed_before():
    found = read(annotation("cat"), tree=2e9)
    assert found is not None
    assert found.states == (1, -1, 0)


def test_the_majority_of_people_decides_and_a_draw_is_unknown():
    three = [
        annotation("cat", id=1, completed_by=1),
        annotation("cat", "dog", id=2, completed_by=2),
        annotation("dog", id=3, completed_by={"id": 3}),
    ]
    found = read(*three)
    assert found is not None
    assert found.states == (1, 1, -1)
    two = read(annotation("cat", id=1), annotation("dog", id=2, completed_by=2))
    assert two is not None
    assert two.states == (0, 0, -1)


def test_of_one_person_the_last_annotation_counts():
    found = read(
        annotation("dog", id=2, updated_at="2026-11-23T08:00:00Z"), annotation("cat", id=1)
    )
    assert found is not None
    assert found.states == (-1, 1, -1)


def test_a_known_label_says_nothing_of_the_others():
    found = known_approval(1, CONTROL, {1})
    assert found is not None
    assert (found.states, found.provenance) == ((0, 1, 0), "known")
    assert known_approval(1, CONTROL, ()) is None


@pytest.mark.parametrize(
    ("value", "places"),
    [("dog", {1}), (["dog", "tree"], {1, 2}), ("wolf", set()), (None, set()), (5, set())],
)
def test_known_labels_are_read_from_the_task(value: Any, places: set[int]):
    assert known_labels(CONTROL, {"label": value}, "label") == places


def test_a_taxonomy_is_read_by_its_paths():
    xml = (
        '<View><Image name="image" value="$image"/><Taxonomy name="tags" toName="image">'
        '<Choice value="animal"><Choice value="dog"/></Choice></Taxonomy></View>'
    )
    control: Control = parse_config(xml).controls[0]
    one = annotation("x")
    one["result"][0] |= {"type": "taxonomy", "value": {"taxonomy": [["animal", "dog"]]}}
    found = approval({"id": 1, "annotations": [one]}, control, Past(), NOTHING_SHOWN)
    assert found is not None
    assert found.states == (-1, 1)
    assert known_labels(control, {"label": "animal / dog"}, "label") == {1}
