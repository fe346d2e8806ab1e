"""What a training makes of approvals that nothing can be learned or judged from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from backend.inference.holdout import is_audit
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.storage.head_registry import HeadRegistry
from backend.training.click_count import count_clicks, judged_tasks
from backend.training.head_trainer import HeadTrainer
from backend.vlpl.decisions import POSITIVE, UNKNOWN, Provenance
from backend.vlpl.label_figures import Source
from backend.vlpl.training import CORRECTED
from tests.support.approvals import COUNT, TWO, approvals, mixed, pulled
from tests.support.builders import choices_config, data_uri
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
        assert made.made is None and f"Reviewed tasks: {count}" in made.reason
        assert f"{12 - count if count > 4 else 1} more" in made.reason
    else:
        assert made.made is not None
        assert made.made.controls["tags"].head.card.objective == "bce"


def test_a_head_that_nothing_can_judge_is_kept_aside(trainer: Callable[..., Any]):
    def only_positives(task: int) -> tuple[int, int]:
        return (POSITIVE, UNKNOWN) if task % 2 else (UNKNOWN, POSITIVE)

    found = {"tags": approvals(only_positives, Provenance.IMPORTED)}
    made = trainer()[0].train(pulled(choices_config("cat", "dog"), found))
    assert made.made is not None and not made.made.accepted
    assert "no held-out task was reviewed" in made.reason
    assert made.reason.endswith("until then it does not replace what is in use")


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


def test_a_rejected_head_is_in_the_store_to_be_put_into_use(trainer: Callable[..., Any]):
    def only_positives(task: int) -> tuple[int, int]:
        return (POSITIVE, UNKNOWN) if task % 2 else (UNKNOWN, POSITIVE)

    found = {"tags": approvals(only_positives, Provenance.IMPORTED)}
    one, runtime = trainer()
    made = one.train(pulled(choices_config("cat", "dog"), found)).made
    assert made is not None and not made.accepted
    assert set(runtime.versions.heads.get(KEY, made.name).controls) == {"tags"}


def test_clicks_and_figures_of_labels_are_kept_with_the_head(trainer: Callable[..., Any]):
    one, runtime = trainer(audit_share=0.5, blind_share=0.0)
    config = choices_config("cat", "dog")
    found = {"tags": approvals(mixed, Provenance.UNAIDED)}
    made = one.train(pulled(config, found)).made
    assert made is not None
    kept = HeadRegistry(runtime.store).get(KEY, made.name)
    assert kept.clicks is not None and kept.serving_clicks is not None
    judged = [task for task in range(1, COUNT + 1) if is_audit(KEY, task, 0.5)]
    assert kept.clicks.tasks == kept.serving_clicks.tasks == len(judged)
    labels = sum(state == POSITIVE for task in judged for state in mixed(task))
    assert kept.clicks.from_nothing == pytest.approx(labels / len(judged))
    # Counted on what the version suggests, label by label.
    version = runtime.versions.get(parse_config(config), KEY, made.name)
    tasks = [{"id": task, "data": {"image": data_uri(task)}} for task in judged]
    wrong = sum(
        (label in {ticked.key for ticked in scored.suggested}) != (state == POSITIVE)
        for task, prediction in zip(
            judged, Predictor(version, runtime.embedder).predict(tasks), strict=True
        )
        for scored in prediction.scored
        for label, state in zip(("cat", "dog"), mixed(task), strict=True)
    )
    assert kept.clicks.per_task == pytest.approx(wrong / len(judged))
    cat, dog = kept.labels["tags"]
    assert (cat.label, cat.reviewed, dog.reviewed) == ("cat", 15, 20)
    assert cat.judged == sum(mixed(task)[0] == POSITIVE for task in judged)
    assert cat.source == dog.source == Source.JUDGED
    assert cat.average_precision is not None and cat.recall is not None


def test_where_no_task_is_judged_the_figures_are_of_cross_validation(trainer: Callable[..., Any]):
    one, _ = trainer(audit_share=0.0, blind_share=0.0)
    found = {"tags": approvals(mixed, Provenance.UNAIDED)}
    made = one.train(pulled(choices_config("cat", "dog"), found)).made
    assert made is not None and made.clicks is None
    assert {figures.source for figures in made.labels["tags"]} == {Source.CROSS_VALIDATION}
    assert {figures.judged for figures in made.labels["tags"]} == {0}


def test_blind_tasks_count_although_nothing_is_suggested_on_them(trainer: Callable[..., Any]):
    _, runtime = trainer(blind_share=0.5)
    what = pulled(choices_config("cat", "dog"), {"tags": approvals(mixed, Provenance.BLIND)})
    judged = judged_tasks(what, 0.0)
    assert len(judged) == COUNT
    version = runtime.versions.get(what.config, KEY)
    runtime.embedder.embed([data_uri(task) for task in range(1, COUNT + 1)])
    open_to_all = replace(version, blind_share=0.0)
    found = count_clicks(version, runtime.embedder, judged)
    assert found is not None
    assert found == count_clicks(open_to_all, runtime.embedder, judged)


def test_only_stored_images_are_counted_and_nothing_is_fetched(trainer: Callable[..., Any]):
    _, runtime = trainer()
    what = pulled(choices_config("cat", "dog"), {"tags": approvals(mixed, Provenance.UNAIDED)})
    version, judged = runtime.versions.get(what.config, KEY), judged_tasks(what, 1.0)
    assert count_clicks(version, runtime.embedder, judged) is None
    runtime.embedder.embed([data_uri(task) for task in range(1, 13)])
    found = count_clicks(version, runtime.embedder, judged)
    assert found is not None and found.tasks == 12


def test_clicks_of_a_task_are_those_of_all_its_controls(trainer: Callable[..., Any]):
    one, _ = trainer(audit_share=0.5)
    both = {name: approvals(mixed, Provenance.UNAIDED) for name in ("tags", "more")}
    clicks = [
        made.clicks
        for made in (
            one.train(pulled(TWO, both)).made,
            one.train(pulled(TWO, {**both, "more": []})).made,
        )
        if made is not None and made.clicks is not None
    ]
    assert clicks[0].tasks == clicks[1].tasks
    assert clicks[0].from_nothing == pytest.approx(2 * clicks[1].from_nothing)


def test_a_control_whose_head_is_rejected_keeps_its_head_and_figures(trainer: Callable[..., Any]):
    def only_positives(task: int) -> tuple[int, int]:
        return (POSITIVE, UNKNOWN) if task % 2 else (UNKNOWN, POSITIVE)

    one, runtime = trainer(audit_share=0.5)
    tags = approvals(mixed, Provenance.UNAIDED)
    first = one.train(pulled(TWO, {"tags": tags, "more": tags})).made
    assert first is not None
    runtime.versions.heads.set_serving(KEY, first.name)
    partial = approvals(only_positives, Provenance.IMPORTED)
    second = one.train(pulled(TWO, {"tags": tags, "more": partial})).made
    assert second is not None and second.accepted
    assert "more: too few to tell" in second.reason
    assert second.controls["more"].digest == first.controls["more"].digest
    assert second.labels["more"] == first.labels["more"] != ()


def test_a_project_without_tasks_left_is_not_asked_for_more_reviews(trainer: Callable[..., Any]):
    given = pulled(choices_config("cat", "dog"), {"tags": approvals(mixed, Provenance.ACCEPTED)})
    for tasks, told in ((len(given.reviewed), "all tasks are reviewed"), (1000, "more reviews")):
        made = trainer(audit_share=0.0, blind_share=0.1)[0].train(replace(given, tasks=tasks))
        assert "too few to tell" in made.reason and told in made.reason


def test_reviews_in_random_order_correct_before_a_head_can_be_trained(
    trainer: Callable[..., Any],
):
    found = {"tags": approvals(mixed, Provenance.UNAIDED)[:11]}
    given = pulled(choices_config("cat", "dog"), found)
    made = trainer(audit_share=0.0, blind_share=0.0)[0].train(
        replace(given, random=frozenset(item.task for item in found["tags"]))
    )
    assert made.made is not None
    assert made.made.controls["tags"].head.card.objective == CORRECTED


@pytest.mark.parametrize(
    ("provenance", "is_calibrated"),
    [(Provenance.UNAIDED, True), (Provenance.EDITED, True), (Provenance.ACCEPTED, False)],
)
def test_suggestions_that_were_accepted_unchanged_calibrate_nothing(
    trainer: Callable[..., Any], provenance: Provenance, is_calibrated: bool
):
    one, _ = trainer(audit_share=0.5, blind_share=0.0)
    made = one.train(pulled(choices_config("cat", "dog"), {"tags": approvals(mixed, provenance)}))
    assert any("percentages were corrected" in note for note in made.notes) == is_calibrated
    # They judge a head all the same.
    assert made.made is not None and made.made.metrics["judged"] > 0
