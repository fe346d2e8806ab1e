"""Questions that are asked only after a certain answer, in predictions and exports."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labels.config import parse_config
from backend.training.approvals import Approval
from backend.training.pulling import Pulled
from backend.vlpl.decisions import NEGATIVE, POSITIVE, Provenance
from tests.support.builders import EVIDENCE, data_uri, task
from tests.support.exporting import keep_scores, rows_of
from tests.support.fixtures import MakeRuntime
from tests.support.predicting import items, predict, version
from tests.support.stub_label_studio import KEY, StubStudio


def config(ticked: str, when: str = "choice-selected", evidence: str = "") -> str:
    """``ticked`` is suggested for every task, and so are both answers to the follow-up."""
    places = "".join(
        f'<Choice value="{name}" model_score_threshold="{0 if name == ticked else 1}"/>'
        for name in ("inside", "outside")
    )
    return (
        '<View><Image name="image" value="$image"/>'
        f'<View visibleWhen="{when}" whenTagName="place" whenChoiceValue="outside">'
        '<Choices name="more" toName="image" choice="multiple" model_score_threshold="0">'
        '<Choice value="street"/><Choice value="beach"/></Choices></View>'
        f'<Choices name="place" toName="image">{places}</Choices>{evidence}</View>'
    )


def ticked(prediction: Any) -> dict[str, list[str]]:
    return {
        item["from_name"]: item["value"]["choices"]
        for item in prediction.result
        if item["type"] == "choices"
    }


@pytest.mark.parametrize("when", ["choice-selected", "choice-unselected"])
@pytest.mark.parametrize("answer", ["inside", "outside"])
def test_a_follow_up_is_ticked_only_where_the_prediction_itself_asks_it(
    answer: str, when: str, make_runtime: MakeRuntime
):
    (found,) = predict(make_runtime(), config(answer, when), [task(1)])
    asked = (answer == "outside") == (when == "choice-selected")
    expected = {"place": [answer], **({"more": ["street", "beach"]} if asked else {})}
    assert ticked(found) == expected
    # Its probabilities are known all the same.
    assert set(found.probabilities["more"]) == {"street", "beach"}


def test_what_is_not_asked_costs_no_confidence_and_the_evidence_says_so(make_runtime: MakeRuntime):
    runtime = make_runtime()
    (hidden,) = predict(runtime, config("inside", evidence=EVIDENCE), [task(1)])
    (shown,) = predict(runtime, config("outside", evidence=EVIDENCE), [task(1)])
    unasked, asked = (one.result[-1]["value"]["text"] for one in (hidden, shown))
    assert "more – suggested: nothing, it is not shown" in unasked
    assert any(line.startswith("more – suggested: ") and "%" in line for line in asked)
    alone = 1.0 - hidden.probabilities["place"]["inside"] + hidden.probabilities["place"]["outside"]
    assert hidden.score == pytest.approx(1 / (1 + alone), abs=1e-5)


def test_a_condition_makes_another_version_and_one_version_gives_the_same_bytes(
    make_runtime: MakeRuntime,
):
    runtime, tasks = make_runtime(), [task(number) for number in range(1, 6)]
    xml = config("outside")
    assert version(runtime, xml) != version(runtime, config("outside", "no-region-selected"))
    together = items(predict(runtime, xml, tasks))
    alone = [items(predict(runtime, xml, [one]))[1:-1] for one in tasks]
    assert together == f"[{', '.join(alone)}]"


def test_an_export_leaves_unknown_what_was_not_asked(make_runtime: MakeRuntime, studio: StubStudio):
    studio.tasks = {number: {"image": data_uri(number)} for number in (1, 2, 3)}
    runtime = make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40)
    # Every task is suggested to be outside; of the first a person has said that it is not.
    shown = keep_scores(runtime, config("outside"), studio.tasks)
    decided = [
        Approval(1, (POSITIVE, NEGATIVE), Provenance.EDITED, 1.0),
        Approval(2, (NEGATIVE, POSITIVE), Provenance.EDITED, 1.0),
    ]
    pulled = Pulled(KEY, parse_config(config("outside")), {"place": decided}, studio.tasks)
    for pseudo in (False, True):
        states = {
            task.task: {one.state for one in task.labels if one.control.name == "more"}
            for task in rows_of(runtime, pulled, pseudo=pseudo, version=shown)
        }
        found = {"pseudo"} if pseudo else {"unknown"}
        assert states == {1: {"unknown"}, 2: found, 3: found}
