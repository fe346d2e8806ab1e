"""The page of a project: what it shows, and what its buttons do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backend.settings import Settings
from jobs.training_state import TrainingStore
from tests.support.live import Review

SIZES = {"wide": (1280, 800), "narrow": (390, 844)}


def picture(page: Any, name: str) -> None:
    """Keep a picture to be looked at, where a folder for it is named."""
    folder = os.environ.get("PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.fixture
def address(loop: Settings, connected: int) -> str:
    return f"http://127.0.0.1:{loop.port}/projects/{connected}/"


def figures(page: Any) -> dict[str, str]:
    return dict(
        zip(
            page.locator(".figures dt").all_inner_texts(),
            page.locator(".figures dd").all_inner_texts(),
            strict=True,
        )
    )


def test_an_admin_trains_and_rolls_back_from_the_page(
    page: Any, address: str, connected: int, review: Review, trainings: TrainingStore
):
    page.goto(address)
    assert figures(page) == {"all": "30", "reviewed": "0", "open": "30"}
    assert "zero-shot" in page.inner_text("main")
    assert not page.locator("text=Roll back").count()
    picture(page, "before")
    review(connected, 16)
    page.click("button:has-text('Train')")
    # What goes on is shown without a reload, and so is its end.
    page.get_by_text("reviewed tasks").wait_for(timeout=120_000)
    assert trainings.get(connected).outcome == "accepted"
    assert figures(page)["reviewed"] == "16"
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        picture(page, f"after-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("button:has-text('Roll back')")
    page.get_by_text("suggestions are zero-shot").wait_for(timeout=90_000)
