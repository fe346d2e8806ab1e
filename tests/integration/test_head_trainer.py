"""What a training makes of approvals that nothing can be learned or judged from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.labelstudio.client import LabelStudioClient
from backend.training.head_trainer import HeadTrainer
from backend.vlpl.head import Provenance
from backend.vlpl.objectives import POSITIVE, UNKNOWN
from backend.vlpl.training import CORRECTED
from tests.support.approvals import TWO, approvals, mixed, pulled
from tests.support.builders import choices_config
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, stub_studio


@pytest.fixture
def trainer(make_runtime: MakeRuntime) -> Iterator[Callable[..., Any]]:
    with stub_studio() as stub:

        def make(**values: Any) -> tuple[HeadTrainer, Any]:
            given = {"label_studio_url": stub.url, "label_studio_api_key": "f" * 40, **values}
            runtime = make_runtime(**given)
            return HeadTrainer(
                runtime.settings,
                LabelStudioClient(runtime.settings),
                runtime.versions,
                runtime.embedder,
            ), runtime

        yield make


def test_reviews_of_blind_and_audit_tasks_alone_correct_the_probabilities(
    trainer: Callable[..., Any],
):
    """What heads are judged on trains none; but it tells how often labels occur."""
    made = trainer()[0].train(
        pulled(choices_config("cat", "dog"), {"tags": approvals(mixed, Provenance.BLIND)})
    )
    assert made.made is not None
    head = made.made.controls["tags"].head
    assert head.card.objective == CORRECTED and not bool(head.weight.any())


@pytest.mark.parametrize("count", [4, 11, 12])
def test_a_handful_of_reviews_corrects_and_a_dozen_trains(trainer: Callable[..., Any], count: int):
    found = {"tags": approvals(mixed, Provenance.UNAIDED)[:count]}
    made = trainer(audit_share=0.0, blind_share=0.0)[0].train(
        pulled(choices_config("cat", "dog"), found)
    )
    if count < 12:
        # None of them was chosen at random.
        assert made.made is None and str(count) in made.reason
    else:
        assert made.made is not None
        assert made.made.controls["tags"].head.card.objective == "bce"


def test_a_head_that_nothing_can_judge_is_kept_aside(trainer: Callable[..., Any]):
    def only_positives(task: int) -> tuple[int, int]:
        return (POSITIVE, UNKNOWN) if task % 2 else (UNKNOWN, POSITIVE)

    found = {"tags": approvals(only_positives, Provenance.IMPORTED)}
    made = trainer()[0].train(pulled(choices_config("cat", "dog"), found))
    assert made.made is not None and not made.made.accepted
    assert "to judge it by" in made.reason


def test_cross_validation_is_enough_where_there_are_no_slices(trainer: Callable[..., Any]):
    one, _ = trainer(audit_share=0.0, blind_share=0.0)
    found = {"tags": approvals(mixed, Provenance.UNAIDED)}
    made = one.train(pulled(choices_config("cat", "dog"), found))
    assert made.made is not None and made.made.accepted


def test_a_control_without_approvals_any_more_keeps_its_head(trainer: Callable[..., Any]):
    one, runtime = trainer(audit_share=0.3)
    both = {name: approvals(mixed, Provenance.UNAIDED) for name in ("tags", "more")}
    first = one.train(pulled(TWO, both)).made
    assert first is not None and set(first.controls) == {"tags", "more"}
    runtime.versions.heads.set_serving(KEY, first.name)
    second = one.train(pulled(TWO, {"tags": both["tags"], "more": []})).made
    assert second is not None
    assert second.controls["more"].digest == first.controls["more"].digest
