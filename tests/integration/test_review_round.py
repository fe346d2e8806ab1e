"""The round of tasks in a project's tab: when it is made, when the next begins, and who decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis
from tenacity import wait_none

from backend.errors import StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.runtime import Runtime
from backend.storage.project_state import ProjectState
from backend.storage.review_record import ReviewOrder, RoundRecord
from jobs import queue, review_round, schedule
from jobs.review_round import TAB_TITLE, RefreshBusyError, TaskState, refresh
from jobs.round_job import refresh_round
from jobs.schedule import Kind
from tests.support.builders import data_uri
from tests.support.fixtures import MakeRuntime
from tests.support.queues import reconcile_now
from tests.support.stub_label_studio import KEY, PROJECT, StubStudio

LISTING, TABS = "/api/tasks/", "/api/dm/views/"


@pytest.fixture
def runtime(
    make_runtime: MakeRuntime, studio: StubStudio, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> Runtime:
    runtime = make_runtime(
        label_studio_url=studio.url, label_studio_api_key="f" * 40, redis_url=valkey.url
    )
    monkeypatch.setattr("jobs.round_job.process_runtime", lambda: runtime)
    monkeypatch.setattr("backend.labelstudio.transport.wait_exponential", lambda **_: wait_none())
    return runtime


@pytest.fixture
def state(runtime: Runtime) -> ProjectState:
    return ProjectState(runtime.store, KEY)


def embed(runtime: Runtime, studio: StubStudio, *numbers: int) -> None:
    """Add tasks whose images are embedded."""
    studio.tasks |= {number: {"image": data_uri(number)} for number in numbers}
    runtime.embedder.fill([data_uri(number) for number in numbers])


def now(runtime: Runtime, studio: StubStudio, **how: Any) -> RoundRecord:
    client = LabelStudioClient(runtime.settings)
    return refresh(runtime, client, client.projects.get(PROJECT), **how)


def connected(runtime: Runtime, studio: StubStudio, tasks: int) -> RoundRecord:
    embed(runtime, studio, *range(1, tasks + 1))
    return now(runtime, studio, connecting=True)


def shown(studio: StubStudio) -> list[int]:
    """The tasks that the tab names."""
    (tab,) = studio.views
    filters = tab["data"]["filters"]
    assert filters["conjunction"] == "or"
    assert {item["operator"] for item in filters["items"]} == {"equal"}
    return sorted(item["value"] for item in filters["items"])


def test_connecting_makes_one_tab_with_the_round_and_again_makes_no_other(
    runtime: Runtime, studio: StubStudio
):
    first = connected(runtime, studio, 40)
    assert len(first.tasks) == 25
    assert (shown(studio), first.tab) == (sorted(first.tasks), studio.views[0]["id"])
    assert studio.views[0]["data"]["title"] == TAB_TITLE == "next 25"
    calls = len(studio.calls)
    assert now(runtime, studio, connecting=True) == first
    assert [method for method, _ in studio.calls[calls:] if method != "GET"] == []


def test_the_next_round_begins_when_twenty_are_reviewed_skipped_or_gone(
    runtime: Runtime, studio: StubStudio
):
    first = connected(runtime, studio, 60)
    studio.annotated |= {*first.tasks[:17]}
    studio.skipped |= {first.tasks[17], first.tasks[18]}
    assert now(runtime, studio) == first
    del studio.tasks[first.tasks[19]]
    second = now(runtime, studio)
    assert len(second.tasks) == 25
    assert not {*second.tasks} & {*first.tasks[:20]}
    assert shown(studio) == sorted(second.tasks)
    assert [former.tasks for former in second.former] == [first.tasks]
    assert second.former[0].until == second.since


def test_added_tasks_begin_a_round_only_if_the_present_one_has_room(
    runtime: Runtime, studio: StubStudio
):
    first = connected(runtime, studio, 30)
    embed(runtime, studio, *range(101, 131))
    assert now(runtime, studio, added=True) == first
    studio.annotated.add(first.tasks[0])
    assert now(runtime, studio) == first
    second = now(runtime, studio, added=True)
    assert len(second.tasks) == 25
    assert any(task > 100 for task in second.tasks)


def test_the_last_tasks_make_a_short_round_and_then_an_empty_tab(
    runtime: Runtime, studio: StubStudio
):
    first = connected(runtime, studio, 30)
    studio.annotated |= {*first.tasks}
    last = now(runtime, studio)
    assert sorted(last.tasks) == sorted({*range(1, 31)} - {*first.tasks})
    studio.annotated |= {*studio.tasks}
    # Nothing is left to begin, so the list of tasks is not asked for again and again.
    calls = studio.calls.count(("GET", LISTING))
    assert now(runtime, studio) == last
    assert studio.calls.count(("GET", LISTING)) == calls + 1
    assert now(runtime, studio, added=True).tasks == ()
    # Without any filter it would show all tasks.
    assert shown(studio) == [0]


def test_a_task_whose_image_failed_and_one_that_was_skipped_are_never_in_a_round(
    runtime: Runtime, studio: StubStudio
):
    embed(runtime, studio, *range(1, 21))
    studio.tasks |= {21: {"image": "data:image/png;base64,AAAA"}, 22: {}}
    studio.skipped.add(3)
    record = now(runtime, studio, connecting=True)
    assert sorted(record.tasks) == sorted({*range(1, 21)} - {3})


def test_of_a_project_with_several_controls_the_image_of_the_first_counts(
    runtime: Runtime, studio: StubStudio
):
    studio.config = (
        '<View><Image name="one" value="$one"/><Image name="two" value="$two"/>'
        '<Choices name="first" toName="one" choice="multiple"><Choice value="cat"/></Choices>'
        '<Choices name="second" toName="two" choice="multiple"><Choice value="dog"/></Choices>'
        "</View>"
    )
    runtime.embedder.fill([data_uri(1)])
    studio.tasks = {
        1: {"one": data_uri(1), "two": data_uri(2)},
        2: {"one": data_uri(2), "two": data_uri(1)},
    }
    assert now(runtime, studio, connecting=True).tasks == (1,)


def test_title_and_columns_that_a_person_chose_stay(runtime: Runtime, studio: StubStudio):
    first = connected(runtime, studio, 60)
    studio.views[0]["data"] |= {"title": "mine", "hiddenColumns": {"explore": ["tasks:id"]}}
    studio.views[0]["data"] |= {"ordering": ["-tasks:id"], "selectedItems": {"all": True}}
    studio.annotated |= {*first.tasks}
    second = now(runtime, studio)
    assert shown(studio) == sorted(second.tasks) != sorted(first.tasks)
    data = studio.views[0]["data"]
    assert (data["title"], data["ordering"]) == ("mine", ["-tasks:id"])
    assert data["hiddenColumns"] == {"explore": ["tasks:id"]}
    assert "selectedItems" not in data


def test_filters_that_an_open_page_wrote_back_are_set_right(runtime: Runtime, studio: StubStudio):
    first = connected(runtime, studio, 40)
    for stale in ({"conjunction": "and", "items": []}, {}, None):
        studio.views[0]["data"]["filters"] = stale
        now(runtime, studio)
        assert shown(studio) == sorted(first.tasks)


def test_a_tab_that_a_person_deleted_comes_back_only_by_connecting(
    runtime: Runtime, studio: StubStudio
):
    first = connected(runtime, studio, 60)
    studio.views.clear()
    studio.annotated |= {*first.tasks}
    assert now(runtime, studio, added=True) == first
    assert studio.views == []
    again = now(runtime, studio, connecting=True)
    assert shown(studio) == sorted(again.tasks)
    assert again.tab == studio.views[0]["id"] != first.tab


def test_a_tab_with_the_title_is_taken_where_the_record_is_lost(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    connected(runtime, studio, 40)
    state.change_round(lambda record: replace(record, tab=0))
    assert now(runtime, studio, connecting=True).tab == studio.views[0]["id"]
    assert len(studio.views) == 1


def test_workers_make_no_tab_in_a_project_that_was_never_connected_with_rounds(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    embed(runtime, studio, *range(1, 41))
    refresh_round(PROJECT, True)
    assert studio.views == []
    assert state.round() is None


def test_a_project_without_any_embedding_gets_its_tab_once_there_is_one(
    runtime: Runtime, studio: StubStudio
):
    assert now(runtime, studio, connecting=True).tasks == ()
    assert studio.views == []
    embed(runtime, studio, *range(1, 41))
    record = now(runtime, studio, added=True)
    assert shown(studio) == sorted(record.tasks)


def test_a_large_project_is_chosen_from_a_part_of_it(
    runtime: Runtime, studio: StubStudio, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(review_round, "MOST_OPEN", 30)
    monkeypatch.setattr(review_round, "MOST_REVIEWED", 10)
    monkeypatch.setattr(review_round, "_LOOKUP", 8)
    embed(runtime, studio, *range(1, 101))
    studio.annotated |= {*range(1, 41)}
    looked_up: list[int] = []
    lookup = runtime.embedder.stored_images

    def counted(names: list[str]) -> dict[str, NDArray[np.float16]]:
        looked_up.append(len(names))
        return lookup(names)

    monkeypatch.setattr(runtime.embedder, "stored_images", counted)
    client = LabelStudioClient(runtime.settings)
    tasks = review_round.list_tasks(runtime, client, client.projects.get(PROJECT))
    assert sum(task.state is TaskState.REVIEWED for task in tasks) == 40
    chosen = review_round.choose(runtime, tasks)
    assert chosen == review_round.choose(runtime, tasks)
    assert len(chosen) == 25 and not {*chosen} & studio.annotated
    assert (sum(looked_up), max(looked_up)) == (2 * 40, 8)


def test_a_tab_that_cannot_be_written_is_noted_and_written_at_the_next_try(
    runtime: Runtime, studio: StubStudio, state: ProjectState, connection: Redis
):
    first = connected(runtime, studio, 60)
    studio.annotated |= {*first.tasks}
    studio.before = lambda method, path: 503 if method == "PATCH" and TABS in path else None
    refresh_round(PROJECT, False)
    record = state.round()
    assert record is not None and "503" in record.failure
    assert shown(studio) == sorted(first.tasks)
    assert schedule.moment(connection, Kind.ROUND, PROJECT) is not None
    studio.before = lambda method, path: None
    refresh_round(PROJECT, False)
    record = state.round()
    assert record is not None and record.failure == ""
    assert shown(studio) == sorted(record.tasks) != sorted(first.tasks)


def test_a_tab_that_could_not_be_made_while_connecting_is_made_by_a_worker(
    runtime: Runtime, studio: StubStudio, connection: Redis
):
    studio.before = lambda method, path: 500 if method == "POST" and TABS in path else None
    with pytest.raises(StudioError):
        connected(runtime, studio, 40)
    studio.before = lambda method, path: None
    refresh_round(PROJECT, False)
    assert len(shown(studio)) == 25


def test_two_that_refresh_at_once_do_not_meet(
    runtime: Runtime, studio: StubStudio, connection: Redis
):
    connected(runtime, studio, 40)
    with runtime.store.locks.hold(f"round of {KEY}"):
        with pytest.raises(RefreshBusyError):
            now(runtime, studio)
        refresh_round(PROJECT, True)
    assert schedule.moment(connection, Kind.ADDED, PROJECT) is not None


def test_a_project_that_is_gone_is_not_tried_again(
    runtime: Runtime, studio: StubStudio, connection: Redis
):
    refresh_round(PROJECT + 1, False)
    assert schedule.moment(connection, Kind.ROUND, PROJECT + 1) is None


def test_an_order_that_a_person_chose_in_label_studio_is_noted(
    runtime: Runtime, studio: StubStudio, state: ProjectState
):
    connected(runtime, studio, 3)
    assert state.orders() == []
    state.note_order(ReviewOrder.RANDOM, 1.0)
    studio.sampling = "Sequential sampling"
    now(runtime, studio)
    assert [period.order for period in state.orders()] == [
        ReviewOrder.RANDOM,
        ReviewOrder.SEQUENTIAL,
    ]


def test_what_is_due_becomes_one_job_on_the_queue_of_trainings(runtime: Runtime, connection: Redis):
    schedule.add(connection, Kind.ROUND, PROJECT, 1.0)
    schedule.add(connection, Kind.ADDED, PROJECT, 2.0)
    reconcile_now(connection)
    assert queue.queue(connection, queue.PREDICT).get_job_ids() == []
    jobs = queue.queue(connection, queue.TRAIN).get_jobs()
    assert [(job.id.split("-")[:2], job.args) for job in jobs] == [
        ([str(PROJECT), "round"], [PROJECT, False])
    ]
    # The other waits until that one is done.
    assert schedule.moment(connection, Kind.ROUND, PROJECT) is None
    assert schedule.moment(connection, Kind.ADDED, PROJECT) is not None
