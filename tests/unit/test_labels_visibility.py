"""When an annotator sees a control, as the labeling config says it."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labels.config import LabelConfig, parse_config
from backend.labels.controls import Control
from backend.labels.visibility import ticks_of

IMAGE = '<Image name="image" value="$image"/><RectangleLabels name="rect" toName="image"/>'
PLACE = (
    '<Choices name="place" toName="image"><Choice value="inside"/>'
    '<Choice value="by the sea" alias="sea"/><Choice value="in a street"/></Choices>'
)
KIND = (
    '<Taxonomy name="kind" toName="image"><Choice value="animal"><Choice value="horse" alias="H"/>'
    "</Choice></Taxonomy>"
)


def config(asked: str, around: str = "", more: str = "") -> LabelConfig:
    """A config in which the control ``more`` is shown as these attributes say."""
    control = (
        f'<Choices name="more" toName="image" choice="multiple" {asked}><Choice value="boat"/>'
        '<Choice value="tram"/></Choices>'
    )
    wrapped = f"<View {around}><View>{control}</View></View>" if around else control
    return parse_config(f"<View>{IMAGE}{PLACE}{KIND}{more}{wrapped}</View>")


def asked_of(found: LabelConfig) -> Control:
    return next(control for control in found.controls if control.name == "more")


def item(name: str, *stored: Any, kind: str = "choices") -> dict[str, Any]:
    return {"from_name": name, "to_name": "image", "type": kind, "value": {kind: list(stored)}}


@pytest.mark.parametrize("around", [False, True], ids=["on the control", "on a view around it"])
@pytest.mark.parametrize(
    ("attributes", "result", "shown"),
    [
        ('visibleWhen="choice-selected" whenTagName="place"', [item("place", "inside")], True),
        ('visibleWhen="choice-selected" whenTagName="place"', [], False),
        ('visibleWhen="choice-selected" whenTagName="place"', [item("place")], False),
        ('visibleWhen="choice-selected"', [item("place", "inside")], True),
        # A taxonomy is no Choices, and the control itself is none of the others.
        ('visibleWhen="choice-selected"', [item("kind", ["animal"], kind="taxonomy")], False),
        ('visibleWhen="choice-selected"', [item("more", "boat")], False),
        ('visibleWhen="choice-unselected"', [], True),
        ('visibleWhen="choice-unselected"', [item("place", "sea")], False),
        ('whenChoiceValue="inside"', [item("place", "inside")], True),
        ('whenChoiceValue="inside"', [item("place", "sea")], False),
        ('visibleWhen="no-region-selected"', [], True),
        ('visibleWhen="something-new"', [], True),
        ('visiblewhen="choice-selected" WHENTAGNAME="place"', [], False),
    ],
)
def test_a_condition_is_judged_by_the_result(
    attributes: str, result: list[Any], shown: bool, around: bool
):
    found = config("", attributes) if around else config(attributes)
    assert asked_of(found).is_shown(ticks_of(result)) is shown


@pytest.mark.parametrize(
    ("value", "result", "met"),
    [
        ("by the sea", [item("place", "sea")], True),
        ("sea", [item("place", "sea")], True),
        ("in a street,by the sea", [item("place", "sea")], True),
        ("in a street,by the sea", [item("place", "inside")], False),
        # Label Studio does not strip them either.
        ("in a street, by the sea", [item("place", "sea")], False),
        ("gone", [item("place", "sea")], False),
    ],
)
@pytest.mark.parametrize("when", ["choice-selected", "choice-unselected"])
def test_a_choice_is_named_by_value_or_alias_several_with_commas(
    value: str, result: list[Any], met: bool, when: str
):
    found = config(f'visibleWhen="{when}" whenTagName="place" whenChoiceValue="{value}"')
    shown = asked_of(found).is_shown(ticks_of(result))
    assert shown is (met if when == "choice-selected" else not met)


@pytest.mark.parametrize(("value", "met"), [("horse", True), ("H", True), ("animal", False)])
def test_of_a_path_the_last_element_counts(value: str, met: bool):
    asked = f'visibleWhen="choice-selected" whenTagName="kind" whenChoiceValue="{value}"'
    found = config("", around=asked)
    result = [item("kind", ["animal", "H"], kind="taxonomy")]
    assert asked_of(found).is_shown(ticks_of(result)) is met


@pytest.mark.parametrize("asked", ['whenTagName="kind" whenChoiceValue="H"', 'whenChoiceValue="x"'])
def test_a_control_whose_answers_label_studio_drops_is_left_out_with_the_way_out(asked: str):
    found = config(f'visibleWhen="choice-selected" {asked}')
    assert "more" not in found.label_keys()
    assert any("does not submit" in reason and "<View>" in reason for reason in found.skipped)
    assert "more" in config("", around=f'visibleWhen="choice-selected" {asked}').label_keys()


def test_what_a_hidden_control_selects_does_not_count():
    second = (
        '<View visibleWhen="choice-selected" whenTagName="place" whenChoiceValue="sea">'
        '<Choices name="water" toName="image"><Choice value="rough"/></Choices></View>'
    )
    found = config('visibleWhen="choice-selected" whenTagName="water"', more=second)
    control = asked_of(found)
    assert control.is_shown(ticks_of([item("place", "sea"), item("water", "rough")]))
    assert not control.is_shown(ticks_of([item("place", "inside"), item("water", "rough")]))


@pytest.mark.parametrize("around", [False, True], ids=["on the control", "on a view around it"])
@pytest.mark.parametrize(
    "attributes",
    [
        'visibleWhen="region-selected"',
        'visibleWhen="region-selected" whenTagName="rect"',
        'visibleWhen="region-selected" whenLabelValue="Car,Bus"',
        'visibleWhen="choice-selected" whenTagName="part"',
    ],
)
def test_what_is_shown_for_a_region_only_is_left_out(attributes: str, around: bool):
    part = '<Choices name="part" toName="image" perRegion="true"><Choice value="wheel"/></Choices>'
    found = config("", attributes, more=part) if around else config(attributes, more=part)
    assert [control.name for control in found.controls] == ["place", "kind"]
    assert "<Choices name='more'>: shown for a selected region only." in found.skipped


def test_a_question_for_when_no_region_is_selected_is_asked_of_every_task():
    part = '<Choices name="part" toName="image" perRegion="true"><Choice value="wheel"/></Choices>'
    for attributes in (
        'visibleWhen="no-region-selected"',
        'visibleWhen="choice-unselected" whenTagName="part"',
    ):
        assert asked_of(config(attributes, more=part)).conditions == ()


@pytest.mark.parametrize(
    "attributes",
    [
        'visibleWhen="choice-selected" whenTagName="nothing" whenChoiceValue="a"',
        'visibleWhen="choice-selected" whenTagName="image"',
        'visibleWhen="choice-selected" whenTagName="more"',
        'visibleWhen="choice-selected" whenTagName="circle"',
    ],
)
def test_what_can_never_be_shown_is_left_out(attributes: str):
    circle = (
        '<Choices name="circle" toName="image" visibleWhen="choice-selected" whenTagName="more">'
        '<Choice value="a"/></Choices>'
    )
    found = config(attributes, more=circle)
    assert "more" not in found.label_keys()
    assert any("'more'" in reason and "never shown" in reason for reason in found.skipped)


@pytest.mark.parametrize("around", [False, True], ids=["on the control", "on a view around it"])
def test_controls_that_wait_for_each_other_are_said_to_do_so(around: bool):
    def asked(name: str, other: str) -> str:
        when = f'visibleWhen="choice-selected" whenTagName="{other}" whenChoiceValue="c"'
        own, outer = ("", f"<View {when}>") if around else (when, "<View>")
        return (
            f'{outer}<Choices name="{name}" toName="image" {own}><Choice value="c"/></Choices>'
            "</View>"
        )

    controls = asked("a", "b") + asked("b", "a") + asked("after", "a") + asked("lone", "none")
    found = parse_config(f'<View><Image name="image" value="$image"/>{controls}</View>')
    assert found.controls == ()
    said = dict(zip(("a", "b", "after", "lone"), found.skipped, strict=True))
    assert all("wait for each other" in said[name] for name in ("a", "b", "after"))
    assert "a choice that nothing offers" in said["lone"]


def test_a_control_for_the_pages_of_a_list_is_left_out():
    found = config('perItem="true"')
    assert "more" not in found.label_keys()
    assert any("perItem" in reason for reason in found.skipped)


def test_a_condition_changes_the_digest_and_without_one_it_is_as_before():
    plain, follow = config(""), config('visibleWhen="choice-selected" whenTagName="place"')
    assert plain.digest != follow.digest
    assert plain.digest == config('visibleWhen="no-region-selected"').digest
