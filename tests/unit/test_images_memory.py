"""When freed memory goes back to the system: after large images, and not while small ones come."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from backend.images import memory
from backend.images.memory import MemoryBudget

SIZE = 400_000_000


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(True))
    return calls


def test_thousands_of_photos_of_ordinary_size_leave_the_encoder_its_memory(given_back: list[bool]):
    budget = MemoryBudget(SIZE)
    for _ in range(5000):
        with budget.held(1_000_000):
            pass
    assert given_back == []


def test_after_large_images_memory_is_given_back_once_none_is_in_use(given_back: list[bool]):
    budget = MemoryBudget(SIZE)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(budget.held(20_000_000))
        assert given_back == []
    assert given_back == [True]


def test_where_some_image_is_always_in_use_half_the_budget_is_the_limit(given_back: list[bool]):
    budget = MemoryBudget(SIZE)
    with budget.held(1_000_000):
        for _ in range(10):
            with budget.held(20_000_000):
                pass
        assert given_back == []
        with budget.held(20_000_000):
            pass
    assert given_back == [True]
