"""In which order a project serves tasks: what connecting sets, keeps, leaves alone and notes."""

from __future__ import annotations

from typing import Any

import pytest

from backend.cli.wording import review_order
from backend.doctor import review as doctor_review
from backend.doctor.context import Context
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.projects import review
from backend.projects.review import Offer, blind_sentence, offer_round, settle_order
from backend.runtime import Runtime
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder
from jobs.review_round import note_failure
from tests.support.builders import data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

UNIFORM, UNCERTAINTY, SEQUENTIAL = (
    "Uniform sampling",
    "Uncertainty sampling",
    "Sequential sampling",
)
RANDOM, UNCERTAIN = ReviewOrder.RANDOM, ReviewOrder.UNCERTAIN


@pytest.fixture
def runtime(make_runtime: MakeRuntime, studio: StubStudio) -> Runtime:
    return make_runtime(label_studio_url=studio.url, label_studio_api_key="f" * 40, blind_share=0.3)


@pytest.fixture
def state(runtime: Runtime) -> ProjectState:
    return ProjectState(runtime.store, KEY)


def settle(runtime: Runtime, state: ProjectState, asked: ReviewOrder | None = None) -> Any:
    client = LabelStudioClient(runtime.settings)
    return settle_order(client, state, client.projects.get(PROJECT), asked)


def noted(state: ProjectState) -> list[ReviewOrder]:
    return [period.order for period in state.orders()]


def test_a_new_project_gets_random_order_which_is_noted(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    assert settle(runtime, state) == (RANDOM, "")
    assert (studio.sampling, noted(state)) == (UNIFORM, [RANDOM])
    # As after a call that was interrupted once the labels were noted.
    state.labels_since({"tags": ["cat"]}, 1.0)
    assert settle(runtime, state) == (RANDOM, "")
    assert noted(state) == [RANDOM]


@pytest.mark.parametrize("sampling", [UNCERTAINTY, SEQUENTIAL])
def test_a_project_connected_by_an_earlier_release_keeps_its_order_and_is_told_of_the_other(
    runtime: Runtime, studio: StubStudio, state: ProjectState, sampling: str
):
    studio.sampling = sampling
    state.labels_since({"tags": ["cat"]}, 1.0)
    order, word = settle(runtime, state)
    assert studio.sampling == sampling
    assert noted(state) == [order]
    assert sampling in word and f"ls-clip connect {PROJECT} --order random" in word
    # Once is enough.
    assert settle(runtime, state) == (order, "")


def test_an_order_that_a_person_set_before_the_first_connect_is_left_alone(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    studio.sampling = UNCERTAINTY
    order, word = settle(runtime, state)
    assert (order, studio.sampling) == (UNCERTAIN, UNCERTAINTY)
    assert "left alone" in word


def test_an_order_that_a_person_changed_since_is_left_alone_with_a_word_and_noted(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    settle(runtime, state)
    studio.sampling = SEQUENTIAL
    order, word = settle(runtime, state)
    assert (order, studio.sampling) == (ReviewOrder.SEQUENTIAL, SEQUENTIAL)
    assert "left alone" in word
    assert noted(state) == [RANDOM, ReviewOrder.SEQUENTIAL]


@pytest.mark.parametrize(("asked", "sampling"), [(RANDOM, UNIFORM), (UNCERTAIN, UNCERTAINTY)])
@pytest.mark.parametrize("before", [UNIFORM, UNCERTAINTY, SEQUENTIAL, None])
def test_an_order_that_is_asked_for_is_set_whatever_was_before(
    runtime: Runtime,
    studio: StubStudio,
    state: ProjectState,
    asked: ReviewOrder,
    sampling: str,
    before: Any,
):
    studio.sampling = before
    state.labels_since({"tags": ["cat"]}, 1.0)
    settle(runtime, state)
    assert settle(runtime, state, asked) == (asked, "")
    assert studio.sampling == sampling
    assert noted(state)[-1] == asked
    # The next connect keeps it.
    assert settle(runtime, state) == (asked, "")


def test_an_order_that_label_studio_refuses_is_not_noted(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    studio.before = lambda method, path: 400 if method == "PATCH" else None
    with pytest.raises(Exception, match="400"):
        settle(runtime, state, RANDOM)
    assert noted(state) == []


def test_an_unknown_order_names_those_that_there_are():
    assert review_order("uncertain") is UNCERTAIN
    for text in ("sequential", "best", ""):
        with pytest.raises(SettingsError, match="random, uncertain"):
            review_order(text)


def test_the_number_of_blind_tasks_is_said_and_the_tab_is_named(
    runtime: Runtime, studio: StubStudio
):
    studio.tasks = {number: {"image": data_uri(number)} for number in range(1, 31)}
    runtime.embedder.fill([data_uri(number) for number in range(1, 31)])
    client = LabelStudioClient(runtime.settings)
    offer = offer_round(runtime, client, client.projects.get(PROJECT))
    assert 0 < offer.blind < 30
    assert (offer.tab, offer.warning) == ("next 25", "")
    assert blind_sentence(4, 30).startswith("4 of 30 tasks are shown without suggestions")


def test_a_tab_that_cannot_be_made_is_a_warning_and_wanted_all_the_same(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    studio.before = lambda method, path: 403 if "/dm/" in path else None
    client = LabelStudioClient(runtime.settings)
    offer = offer_round(runtime, client, client.projects.get(PROJECT))
    assert offer.tab == ""
    assert "403" in offer.warning and f"ls-clip connect {PROJECT} tries again" in offer.warning
    record = state.round()
    assert record is not None and record.failure


def test_a_worker_that_is_choosing_is_no_failure(
    runtime: Runtime, studio: StubStudio, state: ProjectState, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(review, "WAIT_SECONDS", 0.1)
    client = LabelStudioClient(runtime.settings)
    with runtime.store.locks.hold(f"round of {KEY}"):
        offer = offer_round(runtime, client, client.projects.get(PROJECT))
    assert offer == Offer(0, "next 25", "A worker is choosing the next tasks at the moment.")
    assert state.round() is None


@pytest.fixture
def context(runtime: Runtime) -> Context:
    return Context(runtime.settings, PROJECT)


def test_the_doctor_names_the_order_and_says_what_random_order_is_worth(
    runtime: Runtime, studio: StubStudio
):
    for sampling, severity, word in (
        (UNIFORM, "ok", "random order"),
        (UNCERTAINTY, "note", "the least certain first"),
        (SEQUENTIAL, "note", "order of the Data Manager"),
    ):
        studio.sampling = sampling
        (finding,) = doctor_review.order(Context(runtime.settings, PROJECT))
        assert (finding.severity, word in finding.what) == (severity, True)
        assert severity == "ok" or f"connect {PROJECT} --order random" in finding.fix


def test_the_doctor_says_if_the_tab_was_never_made_cannot_be_written_or_is_gone(
    runtime: Runtime, studio: StubStudio, state: ProjectState, context: Context
):
    studio.tasks = {1: {"image": data_uri(1)}}
    runtime.embedder.fill([data_uri(1)])
    (never,) = doctor_review.tab(context)
    assert "has no tab" in never.what
    client = LabelStudioClient(runtime.settings)
    offer_round(runtime, client, client.projects.get(PROJECT))
    assert list(doctor_review.tab(context)) == []
    note_failure(runtime.store, KEY, "Label Studio is away.")
    (failed,) = doctor_review.tab(context)
    assert "Label Studio is away." in failed.what
    note_failure(runtime.store, KEY, "")
    studio.views.clear()
    (gone,) = doctor_review.tab(context)
    assert "is gone" in gone.what
    assert {one.severity for one in (never, failed, gone)} == {"note"}
