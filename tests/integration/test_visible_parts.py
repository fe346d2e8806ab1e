"""What a prediction holds where parts of the page are hidden, preselected, or named by the task."""

from __future__ import annotations

from typing import Any

import pytest

from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labels.controls import known_labels
from backend.training.approvals import Approval, as_far_as_seen
from backend.vlpl.decisions import Provenance
from tests.support.attribute_configs import IMAGE
from tests.support.builders import EVIDENCE, data_uri, task
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import PROJECT, predict


def selected(prediction: Any) -> dict[str, list[Any]]:
    return {
        item["from_name"]: item["value"][item["type"]]
        for item in prediction.result
        if item["type"] in {"choices", "taxonomy"}
    }


def shown_when(control: str, choice: str, inner: str, when: str = "choice-selected") -> str:
    return (
        f'<View visibleWhen="{when}" whenTagName="{control}" whenChoiceValue="{choice}">'
        f"{inner}</View>"
    )


def choices(name: str, *inner: str, attributes: str = "") -> str:
    return (
        f'<Choices name="{name}" toName="image" choice="multiple" {attributes}>'
        f"{''.join(inner)}</Choices>"
    )


def choice(value: str, threshold: float = 0.0, attributes: str = "") -> str:
    return f'<Choice value="{value}" model_score_threshold="{threshold}" {attributes}/>'


def view(*parts: str) -> str:
    return f"<View>{IMAGE}{''.join(parts)}{EVIDENCE}</View>"


def test_what_a_left_out_control_preselects_decides_which_questions_are_asked(
    make_runtime: MakeRuntime,
):
    config = view(
        choices("kind", choice("photo", 0, 'selected="true"'), attributes='model_skip="true"'),
        shown_when("kind", "photo", choices("asked", choice("cat"))),
        shown_when("kind", "photo", choices("not", choice("dog")), "choice-unselected"),
    )
    (found,) = predict(make_runtime(), config, [task(1)])
    assert selected(found) == {"asked": ["cat"], "kind": ["photo"]}


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_blind_task_does_not_depend_on_what_would_be_suggested(
    threshold: float, make_runtime: MakeRuntime
):
    config = view(
        choices("kind", choice("animal", threshold)),
        shown_when("kind", "animal", choices("more", choice("tame", 1, 'selected="true"'))),
    )
    runtime = make_runtime(blind_share=0.5)
    found = predict(runtime, config, [task(number) for number in range(1, 20)])
    blind = [one for one in found if one.blind]
    assert blind and all(selected(one) == {"more": ["tame"]} for one in blind)


def test_a_choice_whose_reason_is_hidden_is_hidden_too(make_runtime: MakeRuntime):
    config = view(
        choices(
            "a",
            choice("first", 1),
            shown_when("a", "first", choice("second")),
            shown_when("a", "second", choice("third")),
        )
    )
    (found,) = predict(make_runtime(), config, [task(1)])
    assert selected(found) == {}


def test_a_known_label_is_ticked_before_others_where_only_one_can_be(make_runtime: MakeRuntime):
    config = view('<Choices name="a" toName="image">', choice("x"), choice("y"), "</Choices>")
    runtime = make_runtime()
    version = runtime.versions.get(parse_config(config), PROJECT)
    object.__setattr__(version, "known_field", "was")
    (found,) = Predictor(version, runtime.embedder).predict([task(1, image=data_uri(1), was="y")])
    assert selected(found) == {"a": ["y"]}


@pytest.mark.parametrize("data", [{}, {"was": None}, {"was": [None]}])
def test_a_task_without_a_known_label_does_not_know_the_label_none(data: dict[str, Any]):
    (control,) = parse_config(view(choices("a", choice("cat"), choice("None")))).controls
    assert known_labels(control, data, "was") == frozenset()
    assert known_labels(control, {"was": ["None", None]}, "was") == {1}


def test_an_alias_is_stored_as_it_is_written_and_a_tree_shows_its_values_so():
    (control,) = parse_config(
        view(choices("a", choice("cheap", 0, 'alias="under $100"'), choice("$kind")))
    ).controls
    labels = control.for_task({"kind": "dear"}).labels
    assert [(label.stored, label.text) for label in labels] == [
        ("under $100", "cheap"),
        ("dear", "dear"),
    ]
    (tree,) = parse_config(
        view('<Taxonomy name="t" toName="image">', choice("$kind"), "</Taxonomy>")
    ).controls
    assert not tree.has_own_labels and tree.labels[0].text == "$kind"


def test_a_task_that_lacks_what_a_choice_is_named_after_is_told_so(make_runtime: MakeRuntime):
    (found,) = predict(make_runtime(), view(choices("a", choice("$kind"))), [task(1)])
    assert found.failure.reason == "no_labels" and "'a'" in found.failure.message


def test_of_equal_branches_of_a_tree_the_first_counts():
    (control,) = parse_config(view('<Taxonomy name="t" toName="image" value="$o"/>')).controls
    options = [
        {"value": "dog", "alias": "d"},
        {"value": "dog"},
        {"value": "x", "alias": "1"},
        {"value": "x", "alias": "2", "children": [{"value": "y"}]},
    ]
    assert [label.key for label in control.for_task({"o": options}).labels] == ["d", "1"]


def test_a_drop_down_list_offers_what_boxes_would_hide_or_lock():
    inner = [
        choice("cat"),
        choice("dog", 0, 'visible="false"'),
        choice("cow", 0, 'readonly="true"'),
        shown_when("a", "cat", choice("hen")),
    ]
    (boxes,) = parse_config(view(choices("a", *inner))).controls
    (listed,) = parse_config(view(choices("a", *inner, attributes='layout="select"'))).controls
    assert [label.key for label in boxes.labels] == ["cat", "hen"]
    assert [label.key for label in listed.labels] == ["cat", "dog", "cow", "hen"]
    assert not any(label.conditions for label in listed.labels)


def test_a_choice_with_a_text_inside_is_left_out_since_editor_and_import_name_it_otherwise():
    config = parse_config(view(choices("a", '<Choice value="cat">A cat</Choice>')))
    assert config.controls == () and "text inside" in config.skipped[0]


def test_a_style_for_paper_hides_nothing_on_the_screen():
    style = "<Style>@media print { .tags { display: none } .x { color: red } } .y { }</Style>"
    hidden = f'{style}<View className="tags">{choices("a", choice("cat"))}</View>'
    assert parse_config(view(hidden)).controls
    after = hidden.replace(".y { }", ".tags { display: none }")
    assert not parse_config(view(after)).controls


def test_a_skipped_choice_is_one_that_the_config_offers():
    (control,) = parse_config(
        view(choices("a", choice("cat"), choice("none of these", 0, 'model_skip="true"')))
    ).controls
    assert control.hidden == ("none of these",)


def test_a_condition_around_one_choice_leaves_what_is_known_of_the_others():
    plain = parse_config(view(choices("a", choice("cat"), choice("puppy"))))
    asked = parse_config(view(choices("a", choice("cat"), shown_when("a", "cat", choice("puppy")))))
    assert plain.conditions() == asked.conditions() == {}


def test_where_an_image_cannot_be_had_the_tasks_labels_may_be_on_it():
    approval = Approval(1, (1, -1, 0), Provenance.UNAIDED, 1.0)
    assert as_far_as_seen(approval, ["a", "b"], ["a", "b", "c"]) == approval
    assert as_far_as_seen(approval, ["a", "b"], ["a"]).states == (0, -1, 0)


@pytest.mark.parametrize("label", ["\x00", "{}", "{0}", " ", "x" * 5000, "%s"])
def test_strange_labels_are_answered(make_runtime: MakeRuntime, label: str):
    config = (
        '<View><Image name="image" value="$image"/>'
        '<Choices name="t" toName="image" choice="multiple" value="$o"/></View>'
    )
    (found,) = predict(
        make_runtime(),
        config,
        [{"id": 1, "data": {"image": data_uri(1), "o": [{"value": label}, {"value": "dog"}]}}],
    )
    assert found.result is not None


def test_a_task_brings_a_thousand_labels_at_most(make_runtime: MakeRuntime):
    config = (
        '<View><Image name="image" value="$image"/>'
        '<Choices name="t" toName="image" choice="multiple" value="$o"/></View>'
    )
    options = [{"value": f"label {number}"} for number in range(1500)]
    one = {"id": 1, "data": {"image": data_uri(1), "o": options}}
    (found,) = predict(make_runtime(), config, [one])
    assert len(found.probabilities["t"]) == 1000
