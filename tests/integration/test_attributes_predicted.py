"""Predictions of controls whose attributes limit, preselect, hide or multiply."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.training.approvals import Approval, of_each_image
from backend.vlpl.decisions import Provenance
from tests.support.attribute_configs import CASES, IMAGE
from tests.support.builders import EVIDENCE, data_uri, task
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import items, predict


def selected(prediction: Any) -> dict[str, list[Any]]:
    return {
        item["from_name"]: item["value"][item["type"]]
        for item in prediction.result
        if item["type"] in {"choices", "taxonomy"}
    }


@pytest.mark.parametrize("kind", CASES)
def test_a_prediction_holds_what_the_annotator_sees(kind: str, make_runtime: MakeRuntime):
    case = CASES[kind]
    first, second = data_uri(1), data_uri(2)
    text = json.dumps(dict(case.data)).replace("/data/local-files/?d=images/", "")
    data = json.loads(text.replace("{first}", first).replace("{second}", second))
    runtime = make_runtime(threshold=0.0)
    (found,) = predict(runtime, case.xml, [{"id": 1, "data": {"image": first, **data}}])
    for name, labels in selected(found).items():
        assert labels == case.selected[name], name


def test_of_several_images_each_label_has_its_highest_probability(make_runtime: MakeRuntime):
    runtime = make_runtime()
    one, other = data_uri(1), data_uri(2)
    body = '<Choices name="t" toName="image" choice="multiple"><Choice value="cat"/>'
    body += '<Choice value="dog"/><Choice value="red"/></Choices>'
    single = f"<View>{IMAGE}{body}</View>"
    several = single.replace('value="$image"', 'valueList="$image"')
    alone = [predict(runtime, single, [task(1, image=image)])[0] for image in (one, other)]
    both = predict(runtime, several, [{"id": 1, "data": {"image": [one, other]}}])[0]
    for label, p in both.probabilities["t"].items():
        assert p == max(found.probabilities["t"][label] for found in alone)
    again = predict(runtime, several, [{"id": 1, "data": {"image": [other, one]}}])[0]
    assert again.probabilities == both.probabilities
    assert both.images == tuple(sorted([one, other]))


def test_one_of_several_images_that_is_broken_is_said_and_the_others_are_used(
    make_runtime: MakeRuntime,
):
    config = (
        '<View><Image name="image" valueList="$image"/><Choices name="t" toName="image" '
        'choice="multiple"><Choice value="cat"/></Choices></View>'
    )
    broken = "data:image/png;base64,AAAA"
    (found,) = predict(
        make_runtime(), config, [{"id": 1, "data": {"image": [broken, data_uri(1)]}}]
    )
    assert found.result is not None and found.failure is not None


PRESELECTED = (
    f'<View>{IMAGE}<Choices name="t" toName="image" choice="multiple" '
    'model_score_threshold="1"><Choice value="usual" selected="true"/><Choice value="cat" '
    'model_score_threshold="%s"/></Choices><Choices name="other" toName="image" '
    'model_skip="true"><Choice value="good" selected="true"/><Choice value="bad"/></Choices>'
    f"{EVIDENCE}</View>"
)


def test_what_the_config_preselects_stays_where_nothing_is_ticked(make_runtime: MakeRuntime):
    runtime = make_runtime()
    (nothing,) = predict(runtime, PRESELECTED % 1, [task(1)])
    assert selected(nothing) == {"t": ["usual"], "other": ["good"]}
    assert "preselected by the labeling config: usual" in items([nothing])
    (something,) = predict(runtime, PRESELECTED % 0, [task(1)])
    assert selected(something) == {"t": ["cat"], "other": ["good"]}


def test_a_blind_task_opens_as_without_us(make_runtime: MakeRuntime):
    runtime = make_runtime(blind_share=0.5)
    predictions = predict(runtime, PRESELECTED % 0, [task(number) for number in range(1, 20)])
    found = next(prediction for prediction in predictions if prediction.blind)
    assert selected(found) == {"t": ["usual"], "other": ["good"]}


def test_the_most_probable_labels_are_ticked_where_their_number_is_limited(
    make_runtime: MakeRuntime,
):
    body = "".join(f'<Choice value="label {place}"/>' for place in range(6))
    config = (
        f'<View>{IMAGE}<Taxonomy name="t" toName="image" maxUsages="2">{body}</Taxonomy></View>'
    )
    (found,) = predict(make_runtime(threshold=0.0), config, [task(1)])
    ranked = sorted(found.probabilities["t"].items(), key=lambda entry: -entry[1])
    assert {path[0] for path in selected(found)["t"]} == {label for label, _ in ranked[:2]}


def test_a_label_of_a_task_counts_for_the_image_where_it_is_likeliest():
    import numpy as np

    def approval(number: int, *states: int) -> Approval:
        return Approval(number, states, Provenance.UNAIDED, 1.0)

    approvals = [approval(1, 1, -1, 1), approval(1, 1, -1, 1), approval(2, 1, 0, -1)]
    scores = np.array([[0.1, 0.9, 0.8], [0.5, 0.1, 0.2], [0.0, 0.0, 0.0]], np.float32)
    found = [item.states for item in of_each_image(approvals, scores)]
    assert found == [(0, -1, 1), (1, -1, 0), (1, 0, -1)]


def test_what_people_do_not_see_is_neither_present_nor_absent():
    config = parse_config(CASES["choices that nobody can select"].xml)
    within = next(control for control in config.controls if control.name == "within")
    then = next(label for label in within.labels if label.text == "then")
    assert not then.is_shown({"within": frozenset()})
    assert then.is_shown({"within": frozenset({"first"})})
