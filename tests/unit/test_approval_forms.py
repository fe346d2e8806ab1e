"""Annotations whose form is not today's: hidden controls, changed tags, renamed labels."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.labels.controls import Control
from backend.training.approvals import Approval, Past, approval
from backend.training.provenance import Shown

NOTHING_SHOWN = Shown({}, {})
IMAGE = '<Image name="image" value="$image"/>'
TREE = (
    '<Choice value="animal"><Choice value="cat"/><Choice value="dog"/></Choice>'
    '<Choice value="car"/>'
)
FLAT = (
    f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
    + "".join(f'<Choice value="{name}"/>' for name in ("animal", "cat", "dog", "car"))
    + "</Choices></View>"
)
NESTED = (
    f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">{TREE}</Choices></View>'
)
TAXONOMY = f'<View>{IMAGE}<Taxonomy name="tags" toName="image">{TREE}</Taxonomy></View>'
ALIASED = (
    f'<View>{IMAGE}<Choices name="tags" toName="image" choice="multiple">'
    '<Choice value="cat" alias="C-1"/><Choice value="dog"/></Choices></View>'
)
FOLLOW_UP = (
    f'<View>{IMAGE}<Choices name="place" toName="image"><Choice value="inside"/>'
    '<Choice value="outside"/></Choices><View visibleWhen="choice-selected" whenTagName="place" '
    'whenChoiceValue="outside"><Choices name="more" toName="image" choice="multiple">'
    '<Choice value="street"/><Choice value="beach"/></Choices></View></View>'
)


def control(xml: str, name: str = "tags") -> Control:
    return next(one for one in parse_config(xml).controls if one.name == name)


def item(*stored: Any, name: str = "tags", kind: str = "choices", to: str = "image") -> Any:
    return {"from_name": name, "to_name": to, "type": kind, "value": {kind: list(stored)}}


def annotation(*items: Any, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "result": list(items),
        "was_cancelled": False,
        "completed_by": 1,
        "lead_time": 3.0,
        "created_at": f"2026-11-23T07:0{number}:00Z",
        **fields,
    }


def read(of: Control, *annotations: dict[str, Any], past: Past | None = None) -> Approval | None:
    task = {"id": 1, "annotations": list(annotations)}
    return approval(task, of, past or Past(), NOTHING_SHOWN)


def states(of: Control, *items: Any, past: Past | None = None) -> tuple[int, ...] | None:
    found = read(of, annotation(*items), past=past)
    return None if found is None else found.states


def test_a_question_that_was_not_asked_says_nothing():
    of = control(FOLLOW_UP, "more")
    assert states(of, item("inside", name="place")) is None
    # What a prediction had ticked in it was not seen either.
    assert states(of, item("inside", name="place"), item("street", name="more")) is None
    assert states(of) is None
    assert states(of, item("outside", name="place")) == (-1, -1)
    assert states(of, item("outside", name="place"), item("street", name="more")) == (1, -1)


def test_who_takes_back_the_reason_for_a_question_takes_back_the_answer():
    of = control(FOLLOW_UP, "more")
    first = annotation(item("outside", name="place"), item("street", name="more"))
    second = annotation(item("inside", name="place"), number=2)
    assert read(of, first, second) is None
    other = {**second, "completed_by": 2}
    found = read(of, first, other)
    assert found is not None and found.states == (1, -1)


def test_an_imported_answer_to_a_question_that_was_not_asked_says_nothing():
    of = control(FOLLOW_UP, "more")
    one = annotation(
        item("inside", name="place"), item("street", name="more"), lead_time=None, import_id=3
    )
    assert read(of, one) is None


def test_a_nested_path_selects_its_elements_in_a_flat_control():
    assert states(control(FLAT), item(["animal", "cat"])) == (1, 1, -1, -1)
    assert states(control(FLAT), item(["animal", "cat"], ["car"])) == (1, 1, -1, 1)


def test_a_path_of_before_never_makes_a_choice_absent_that_is_no_longer_shown():
    # Without allowNested Label Studio shows the upper level only.
    of = control(NESTED)
    assert [label.key for label in of.labels] == ["animal", "car"]
    past = Past(began=2e9, config=parse_config(NESTED))
    assert states(of, item(["animal", "cat"]), past=past) == (1, -1)


@pytest.mark.parametrize(
    ("xml", "made"),
    [
        (FLAT, item(["animal", "cat"], kind="taxonomy")),
        (TAXONOMY, item("cat")),
        (FLAT, item("cat", to="second image")),
        (FLAT, {"from_name": "tags", "to_name": "image", "type": "rating", "value": {"rating": 3}}),
    ],
    ids=["taxonomy before", "choices before", "on another image", "no choices before"],
)
def test_an_annotation_of_another_kind_of_control_says_nothing(xml: str, made: Any):
    assert states(control(xml), made) is None


def test_a_control_on_several_tags_is_read_whichever_of_them_is_named():
    xml = FLAT.replace('toName="image"', 'toName="image,text"')
    assert states(control(xml), item("car", to="text")) == (-1, -1, -1, 1)


def test_a_bare_name_in_a_taxonomy_means_the_only_label_that_ends_in_it():
    assert states(control(TAXONOMY), item("cat", kind="taxonomy")) == (-1, 1, -1, -1)


def test_what_was_stored_before_a_choice_had_its_alias_still_means_it():
    assert states(control(ALIASED), item("cat")) == (1, -1)
    assert states(control(ALIASED), item("C-1")) == (1, -1)


def test_what_no_config_that_we_know_of_offers_may_be_any_label_under_another_name():
    of, today = control(ALIASED), parse_config(ALIASED)
    past = Past(began=2e9, config=today)
    assert states(of, item("C-0", "dog"), past=past) == (0, 1)
    assert states(of, item("C-0"), past=past) is None
    # A label that was seen, and is gone, was another one; so is anything that came later.
    assert states(of, item("C-0", "dog"), past=Past({}, 2e9, frozenset({"C-0"}), today)) == (
        -1,
        1,
    )
    assert states(of, item("C-0", "dog"), past=Past({}, 1e9, config=today)) == (-1, 1)


def test_answers_to_a_control_that_had_another_name_make_nothing_absent():
    other = '<Choices name="other" toName="image"><Choice value="cat"/></Choices></View>'
    past = Past(began=2e9, config=parse_config(FLAT.replace("</View>", other)))
    assert states(control(FLAT), item("cat", name="before"), past=past) is None
    assert states(control(FLAT), item("cat", name="other"), past=past) == (-1, -1, -1, -1)


def test_a_former_name_is_understood_as_the_present_one():
    config = parse_config(FLAT).with_former({"tags": {"kitty": "pussy", "pussy": "cat"}})
    assert states(config.controls[0], item("kitty", "car")) == (-1, 1, -1, 1)


def test_a_question_that_was_asked_after_a_former_name_was_asked():
    xml = FOLLOW_UP.replace('value="outside"', 'value="outdoors"').replace(
        'whenChoiceValue="outside"', 'whenChoiceValue="outdoors"'
    )
    config = parse_config(xml).with_former({"place": {"outside": "outdoors"}})
    of, past = config.controls[1], Past(config=config)
    assert states(of, item("outside", name="place"), past=past) == (-1, -1)
    assert states(of, item("inside", name="place"), past=past) is None


def test_renaming_a_branch_renames_what_is_on_it():
    config = parse_config(TAXONOMY).with_former({"tags": {"beast": "animal"}})
    made = item(["beast", "dog"], kind="taxonomy")
    assert states(config.controls[0], made) == (-1, -1, 1, -1)


def test_a_name_that_is_in_use_means_itself():
    config = parse_config(FLAT).with_former({"tags": {"cat": "dog"}})
    assert states(config.controls[0], item("cat")) == (-1, 1, -1, -1)
