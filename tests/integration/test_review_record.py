"""The order and the rounds of a project in the store: kept, read by later processes, purged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import StoreError
from backend.storage.check import check_store
from backend.storage.prediction_log import PredictionLog
from backend.storage.project_state import ProjectState
from backend.storage.review_record import FormerRound, OrderPeriod, ReviewOrder, RoundRecord
from backend.storage.store import Store

KEY = "1.1795416973"


def test_an_order_is_noted_once_and_with_the_time_from_which_it_holds(tmp_path: Path):
    state = ProjectState(Store(str(tmp_path)), KEY)
    assert state.orders() == []
    state.note_order(ReviewOrder.RANDOM, 100.0)
    state.note_order(ReviewOrder.RANDOM, 200.0)
    state.note_order(ReviewOrder.UNCERTAIN, 300.0)
    assert ProjectState(Store(str(tmp_path)), KEY).orders() == [
        OrderPeriod(ReviewOrder.RANDOM, 100.0),
        OrderPeriod(ReviewOrder.UNCERTAIN, 300.0),
    ]


def test_a_round_is_read_as_it_was_written(tmp_path: Path):
    state = ProjectState(Store(str(tmp_path)), KEY)
    assert state.round() is None
    state.change_round(lambda record: replace(record, tab=5).followed_by([1, 2], 10.0))
    after = state.change_round(lambda record: record.followed_by([3], 20.0))
    assert after == RoundRecord((3,), 20.0, (FormerRound((1, 2), 10.0, 20.0),), 5)
    assert ProjectState(Store(str(tmp_path)), KEY).round() == after


def test_changes_of_one_round_at_once_lose_none(tmp_path: Path):
    store = Store(str(tmp_path))

    def begin(task: int) -> None:
        ProjectState(store, KEY).change_round(lambda now: now.followed_by([task], float(task)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(1, 13)))
    record = ProjectState(store, KEY).round()
    assert record is not None
    seen = [*record.tasks, *(task for former in record.former for task in former.tasks)]
    assert sorted(seen) == list(range(1, 13))


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("review-order", {"schema": 1}, ProjectState.orders),
        ("review-order", {"periods": [{"order": "best", "since": 1.0}]}, ProjectState.orders),
        ("review-round", {"tasks": "all"}, ProjectState.round),
    ],
)
def test_a_damaged_record_names_its_fix_and_the_check_of_the_store_finds_it(
    tmp_path: Path, name: str, content: dict[str, object], read: Callable[[ProjectState], object]
):
    store = Store(str(tmp_path))
    store.artifacts.write(f"projects/{KEY}/{name}", content)
    with pytest.raises(StoreError) as raised:
        read(ProjectState(store, KEY))
    assert name in raised.value.message
    assert "ls-clip connect" in raised.value.fix
    assert [problem.place for problem in check_store(store, repair=False)] == [
        f"projects/{KEY}/{name}.json"
    ]


def test_what_chose_the_tasks_is_purged_with_the_project_and_settings_stay(tmp_path: Path):
    store = Store(str(tmp_path))
    state = ProjectState(store, KEY)
    state.note_order(ReviewOrder.RANDOM, 100.0)
    state.change_round(lambda record: record.followed_by([1, 2], 10.0))
    state.set_known_field("category")
    PredictionLog(store).purge("1.")
    assert state.orders() == []
    assert state.round() is None
    assert state.known_field() == "category"
