"""Labeling configs: what is read out of them, and that none of them breaks anything."""

from __future__ import annotations

import pytest

from backend.errors import LabelConfigError
from backend.labels.config import LabelConfig, parse_config
from tests.support.attribute_configs import IMAGE
from tests.support.builders import choices_config


def on_image(body: str, image: str = '<Image name="image" value="$image"/>') -> LabelConfig:
    return parse_config(f"<View>{image}{body}</View>")


def only_control(body: str):
    config = on_image(body)
    assert len(config.controls) == 1, config.skipped
    return config.controls[0]


def paths(control) -> list[tuple[str, ...]]:
    return [label.path for label in control.labels]


NESTED = (
    '<Choice value="animal"><Choice value="cat"/><Choice value="dog" alias="canis"/></Choice>'
    '<Choice value="other"/>'
)


def test_several_controls_keep_document_order_and_their_own_images():
    config = parse_config(
        '<View><Image name="a" value="$left"/><Image name="b" value="$right.url"/>'
        '<View><Choices name="second" toName="b" choice="multiple"><Choice value="x"/></Choices>'
        '</View><Choices name="first" toName="a"><Choice value="y"/></Choices></View>'
    )
    assert [(c.name, c.to_name, c.image_field) for c in config.controls] == [
        ("second", "b", "right.url"),
        ("first", "a", "left"),
    ]


@pytest.mark.parametrize(
    ("attribute", "multiple"),
    [
        ('choice="multiple"', True),
        ('choice="single"', False),
        ('choice="single-radio"', False),
        ("", False),
    ],
)
def test_more_than_one_label_only_where_label_studio_allows_it(attribute: str, multiple: bool):
    control = only_control(
        f'<Choices name="t" toName="image" {attribute}><Choice value="x"/></Choices>'
    )
    assert control.multiple is multiple


def test_choices_whose_paths_label_studio_loses_are_left_out_with_the_way_to_keep_them():
    config = on_image(
        f'<Choices name="t" toName="image" choice="multiple" allowNested="true">{NESTED}</Choices>'
    )
    assert config.controls == ()
    assert "use a <Taxonomy>" in config.skipped[0]


@pytest.mark.parametrize("attribute", ["", 'allowNested="false"'])
def test_choices_below_others_are_not_predicted_because_label_studio_does_not_show_them(
    attribute: str,
):
    config = on_image(
        f'<Choices name="t" toName="image" choice="multiple" {attribute}>{NESTED}</Choices>'
    )
    (control,) = config.controls
    assert control.result_value(control.labels) == {"choices": ["animal", "other"]}
    assert control.hidden == ("cat", "canis")
    assert "nobody can select cat, canis" in config.skipped[0]


def test_the_alias_is_stored_and_the_value_is_read():
    control = only_control(
        '<Choices name="t" toName="image">'
        '<Choice value="a red car" alias="C1" hint="any"/></Choices>'
    )
    label = control.labels[0]
    assert (label.path, label.text) == (("C1",), "a red car")
    assert control.result_value([label]) == {"choices": ["C1"]}


def test_a_hint_is_for_people_only():
    plain = parse_config(choices_config("cat"))
    hinted = parse_config(choices_config("cat").replace('"cat"', '"cat" hint="a feline"'))
    assert hinted.digest == plain.digest


def test_taxonomy_is_stored_as_paths_of_its_own_type():
    control = only_control(f'<Taxonomy name="t" toName="image">{NESTED}</Taxonomy>')
    assert control.kind == "taxonomy"
    assert control.multiple
    assert control.result_value([control.labels[1]]) == {"taxonomy": [["animal", "cat"]]}


DYNAMIC = '<Choices name="t" toName="image" choice="multiple" value="$options"/>'


def test_dynamic_labels_come_from_each_task():
    control = only_control(DYNAMIC)
    assert control.labels == ()
    first = control.for_task({"options": [{"value": "cat"}, {"value": "dog"}]})
    second = control.for_task({"options": [{"value": "a boat", "alias": "B"}]})
    assert paths(first) == [("cat",), ("dog",)]
    assert [(label.path, label.text) for label in second.labels] == [(("B",), "a boat")]


def test_dynamic_children_are_paths_in_a_taxonomy():
    control = only_control('<Taxonomy name="t" toName="image" value="$o.list"/>')
    data = {"o": {"list": [{"value": "animal", "children": [{"value": "cat"}, {"value": "dog"}]}]}}
    assert paths(control.for_task(data)) == [("animal",), ("animal", "cat"), ("animal", "dog")]


def test_a_tree_with_choices_in_the_config_has_no_labels_of_the_task_as_in_label_studio():
    config = parse_config(
        f'<View>{IMAGE}<Taxonomy name="t" toName="image" value="$options"><Choice value="animal">'
        '<Choice value="cat"/></Choice><Choice value="lone"/></Taxonomy></View>'
    )
    (control,) = config.controls
    options = [{"value": "new", "children": [{"value": "n1"}]}, {"value": "flat"}]
    written = [("animal",), ("animal", "cat"), ("lone",)]
    assert paths(control.for_task({"options": options})) == written
    (note,) = config.skipped
    assert 'value="$options" is without effect' in note


def test_a_tree_whose_choices_are_all_skipped_has_no_labels_of_the_task_either():
    config = parse_config(
        f'<View>{IMAGE}<Taxonomy name="t" toName="image" value="$options">'
        '<Choice value="lone" model_skip="true"/></Taxonomy></View>'
    )
    assert config.controls == ()


@pytest.mark.parametrize("hides", ["model_skip", "readonly"])
def test_what_a_task_calls_like_a_choice_that_is_hidden_is_not_predicted(hides: str):
    control = only_control(
        '<Choices name="t" toName="image" choice="multiple" value="$options">'
        f'<Choice value="cat" {hides}="true"/><Choice value="$name"/>'
        f'<Choice value="$other" {hides}="true"/><Choice value="dog"/></Choices>'
    )
    options = [{"value": "cat"}, {"value": "a cat", "alias": "cat"}, {"value": "cow"}]
    data = {"options": [*options, {"value": "hen"}], "name": "cat", "other": "hen"}
    assert paths(control.for_task(data)) == [("dog",), ("cow",)]
    assert paths(control.for_task({**data, "name": "pig"})) == [("pig",), ("dog",), ("cow",)]


@pytest.mark.parametrize(
    "options",
    [
        None,
        "cat",
        3,
        {},
        {"value": "cat"},
        [],
        [None, True, [], {}, {"value": None}, {"value": 7}, {"value": " "}, "", "cat"],
    ],
)
def test_garbage_instead_of_dynamic_labels_gives_no_labels(options: object):
    assert only_control(DYNAMIC).for_task({"options": options}).labels == ()


def test_equal_values_are_one_label_the_first_as_in_label_studio():
    control = only_control(
        '<Choices name="t" toName="image"><Choice value="cat" model_prompt="first"/>'
        '<Choice value="dog"/><Choice value="cat"/></Choices>'
    )
    assert paths(control) == [("cat",), ("dog",)]
    assert control.labels[0].prompts == ("first",)


def test_thresholds_of_control_and_choice_are_read():
    control = only_control(
        '<Choices name="t" toName="image" model_score_threshold="0.4">'
        '<Choice value="a" model_score_threshold="0"/><Choice value="b"/></Choices>'
    )
    assert control.threshold == 0.4
    assert [label.threshold for label in control.labels] == [0.0, None]


@pytest.mark.parametrize("value", ["high", "1.5", "-0.1", "nan", "inf", "40%"])
def test_a_threshold_that_is_no_probability_is_named(value: str):
    with pytest.raises(LabelConfigError, match="model_score_threshold") as caught:
        only_control(
            f'<Choices name="t" toName="image" model_score_threshold="{value}">'
            '<Choice value="a"/></Choices>'
        )
    assert caught.value.fix


def test_prompts_replace_the_label_and_are_split_at_bars():
    control = only_control(
        '<Choices name="t" toName="image">'
        '<Choice value="A1" model_prompt="a crack in concrete | | a broken wall"/></Choices>'
    )
    assert control.labels[0].prompts == ("a crack in concrete", "a broken wall")


def test_a_skipped_choice_keeps_its_children():
    control = only_control(
        '<Taxonomy name="t" toName="image"><Choice value="animal" model_skip="true">'
        '<Choice value="cat"/></Choice></Taxonomy>'
    )
    assert paths(control) == [("animal", "cat")]


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        (
            '<Choices name="t" toName="image" model_skip="true"><Choice value="a"/></Choices>',
            "skip",
        ),
        (
            '<Choices name="t" toName="image" perRegion="true"><Choice value="a"/></Choices>',
            "region",
        ),
        ('<Choices name="t" toName="text"><Choice value="a"/></Choices>', "Image"),
        ('<Choices toName="image"><Choice value="a"/></Choices>', "name"),
        ('<Choices name="t" toName="image"/>', "no choices"),
        ('<Taxonomy name="t" toName="image" apiUrl="http://x/"/>', "URL"),
    ],
)
def test_a_control_that_is_left_out_says_why(tag: str, word: str):
    config = on_image(tag)
    assert config.controls == ()
    assert word in config.skipped[0]
    with pytest.raises(LabelConfigError, match=word):
        config.require_controls()


def test_an_image_that_is_not_from_the_task_is_not_labelled():
    config = on_image(
        '<Choices name="t" toName="image"><Choice value="a"/></Choices>',
        '<Image name="image" value="https://example.com/fixed.jpg"/>',
    )
    assert config.controls == ()


def test_a_config_without_controls_is_explained():
    with pytest.raises(LabelConfigError, match="no control that can be predicted") as caught:
        parse_config("<View/>").require_controls()
    assert "plugin_config/" in caught.value.fix


def test_only_the_text_area_of_our_name_is_evidence():
    area = '<TextArea name="{}" toName="image"/>'
    assert on_image(area.format("notes")).evidence is None
    assert on_image(area.format("clip_evidence")).evidence == ("clip_evidence", "image")


BOMB = (
    '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    '<View><Choices name="t" toName="i"><Choice value="&b;"/></Choices></View>'
)
EXTERNAL = '<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>'


@pytest.mark.parametrize(
    "xml", ["", "<View>", "no xml", "<View></Vie>", "<a/><b/>", BOMB, EXTERNAL]
)
def test_xml_that_is_broken_or_an_attack_is_refused(xml: str):
    with pytest.raises(LabelConfigError) as caught:
        parse_config(xml)
    assert "root:" not in str(caught.value)


DIGEST = "a8e7f5f60e40a184"


def test_the_hash_is_the_same_in_every_process():
    """A constant: it would differ if it depended on hash seeds, sets or the machine."""
    assert parse_config(choices_config("cat", "dog")).digest == DIGEST


def test_the_hash_ignores_what_decides_no_prediction():
    plain = choices_config("cat", "dog")
    dressed = plain.replace("<View>", '<View style="color:red">\n  <Header value="Hello"/>')
    assert parse_config(dressed).digest == parse_config(plain).digest


@pytest.mark.parametrize(
    "changed",
    [
        choices_config("dog", "cat"),
        choices_config("cat", "dogs"),
        choices_config("cat", "dog", "cow"),
        choices_config("cat", "dog", attributes=""),
        choices_config("cat", "dog").replace("tags", "labels"),
        choices_config("cat", "dog").replace("$image", "$photo"),
        choices_config("cat", "dog").replace('"dog"', '"dog" alias="d"'),
        choices_config("cat", "dog").replace('"dog"', '"dog" model_prompt="a hound"'),
        choices_config("cat", "dog").replace('"dog"', '"dog" model_score_threshold="0.3"'),
        choices_config("cat", "dog", attributes='choice="multiple" model_score_threshold="0.3"'),
        choices_config("cat", "dog", attributes='choice="multiple" allowNested="true"'),
    ],
)
def test_the_hash_changes_with_whatever_decides_a_prediction(changed: str):
    assert parse_config(changed).digest != parse_config(choices_config("cat", "dog")).digest


def test_a_required_control_guarantees_a_label_only_where_it_is_always_shown():
    required = parse_config(choices_config("cat", "dog", attributes='required="true"'))
    plain = parse_config(choices_config("cat", "dog", attributes=""))
    assert required.controls[0].required and not plain.controls[0].required
    assert required.digest != plain.digest
    follow_up = choices_config("cat", "dog").replace(
        "</View>",
        '<Choices name="kind" toName="image" required="true" visibleWhen="choice-selected" '
        'whenTagName="tags"><Choice value="big"/><Choice value="small"/></Choices></View>',
    )
    assert not parse_config(follow_up).controls[1].required
