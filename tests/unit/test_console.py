"""What commands say while they work."""

from __future__ import annotations

import pytest
from rich.console import Console

from backend.cli import console as module
from backend.cli.console import about, progress_bar


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 s"),
        (89, "about 89 s"),
        (2400, "about 40 min"),
        (6000, "about 1.7 h"),
        (86_400, "about 24 h"),
    ],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, words: str):
    assert about(seconds) == words


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Console:
    quiet = Console(record=True, force_terminal=False, width=200)
    monkeypatch.setattr(module, "console", quiet)
    return quiet


def test_without_a_terminal_the_first_images_tell_how_long_the_others_take(
    said: Console, monkeypatch: pytest.MonkeyPatch
):
    now = 100.0
    monkeypatch.setattr("backend.cli.console.time.monotonic", lambda: now)
    with progress_bar() as progress:
        # 500 are embedded already: they tell nothing about the speed.
        progress("embedding images", 500, 1500)
        for step in range(1, 20):
            now = 100.0 + 3 * step
            progress("embedding images", 500 + 4 * step, 1500)
    lines = said.export_text().splitlines()
    assert lines == [
        "embedding images ...",
        "embedding images: 516 of 1500, 1.3 a second: about 12 min left",
        "embedding images: 556 of 1500, 1.3 a second: about 12 min left",
    ]


def test_a_short_step_says_nothing_more(said: Console):
    with progress_bar() as progress:
        progress("loading", 0, 1)
        progress("loading", 1, 1)
    assert said.export_text().splitlines() == ["loading ..."]
