"""What commands say while they work."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from backend.cli import console as module
from backend.cli.progress import LineSteps, about, progress_bar
from backend.logs import configure_logging
from tests.support.builders import make_settings
from tests.support.terminal import screen


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time; it is 100 s at first."""

    def set_to(now: float) -> None:
        monkeypatch.setattr("backend.cli.progress.time.monotonic", lambda: now)

    set_to(100.0)
    return set_to


def test_without_a_terminal_the_first_images_tell_how_long_the_others_take(
    said: Console, clock: Callable[[float], None]
):
    steps = LineSteps()
    # 500 are embedded already: they tell nothing about the speed.
    steps.update("embedding images", 500, 1500)
    for step in range(1, 20):
        clock(100.0 + 3 * step)
        steps.update("embedding images", 500 + 4 * step, 1500)
        steps.say_how_long()
    lines = said.export_text().splitlines()
    assert lines == [
        "embedding images ...",
        "embedding images: 516 of 1500, 1.3 a second: about 12 min left",
        "embedding images: 556 of 1500, 1.3 a second: about 12 min left",
    ]


def test_without_a_terminal_a_step_that_tells_nothing_says_how_long_it_has_taken(
    said: Console, clock: Callable[[float], None]
):
    steps = LineSteps()
    steps.say_how_long()
    steps.update("training", 0, 1)
    for now in range(100, 235):
        clock(float(now))
        steps.say_how_long()
    steps.update("measuring", 0, 1)
    steps.say_how_long()
    assert said.export_text().splitlines() == [
        "training ...",
        "training: about 30 s so far",
        "training: about 60 s so far",
        "training: about 2 min so far",
        "training: about 2 min so far",
        "measuring ...",
    ]


def test_a_short_step_says_nothing_more(said: Console):
    with progress_bar() as progress:
        progress("loading", 0, 1)
        progress("loading", 1, 1)
    assert said.export_text().splitlines() == ["loading ..."]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[io.StringIO]:
    """What is written to a terminal, by the display and by the log."""
    written = io.StringIO()
    wide = Console(file=written, force_terminal=True, width=120, legacy_windows=False)
    monkeypatch.setattr(module, "console", wide)
    root, ours = logging.getLogger(), logging.getLogger("backend")
    handlers, level, own = root.handlers[:], root.level, ours.level
    configure_logging(make_settings(tmp_path), wide)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(own)


def bars(written: io.StringIO) -> dict[str, str]:
    """Step -> how much of it is done, as the last screen shows it."""
    found = (re.match(r"(.*?) +[━╸╺]+ +(\d+/\d+) ", line) for line in screen(written.getvalue()))
    return {match[1]: match[2] for match in found if match}


def test_on_a_terminal_log_lines_stand_above_the_bars(terminal: io.StringIO):
    log = logging.getLogger("backend.inference.encoding_run")
    with progress_bar() as progress:
        progress("loading the encoder", 0, 1)
        for number in range(5):
            progress("embedding images", number, 5)
            log.warning("image %d.jpg: This is not an image", number)
    lines = screen(terminal.getvalue())
    logged = [line for line in lines if "not an image" in line]
    assert [
        re.search(r"WARNING +image (\d)\.jpg: This is not an image$", x)[1] for x in logged
    ] == [*"01234"]
    assert not any("━" in line for line in logged)
    steps = [line.split("  ")[0].split(" ━")[0] for line in lines if "━" in line]
    assert steps == ["loading the encoder", "embedding images"]


def test_on_a_terminal_a_step_that_has_ended_is_full(terminal: io.StringIO):
    with progress_bar() as progress:
        progress("loading the encoder", 0, 1)
        progress("embedding images", 0, 7)
        progress("importing predictions", 2, 5)
        progress("embedding images", 3, 7)
        progress("importing predictions", 4, 5)
    assert bars(terminal) == {
        "loading the encoder": "1/1",
        "embedding images": "7/7",
        "importing predictions": "5/5",
    }


def test_on_a_terminal_a_step_that_failed_is_not_full(terminal: io.StringIO):
    with pytest.raises(ValueError), progress_bar() as progress:
        progress("loading the encoder", 0, 1)
        progress("embedding images", 3, 7)
        raise ValueError
    assert bars(terminal) == {"loading the encoder": "1/1", "embedding images": "3/7"}


def test_on_a_terminal_the_clock_of_a_full_bar_goes_on_until_the_next_step(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    monkeypatch.setattr(module.console, "get_time", lambda: now)
    with progress_bar() as progress:
        progress("embedding images", 5, 5)
        now = 67.0
        progress("choosing the next tasks", 0, 1)
        now = 100.0
    clocks = re.findall(r"(\w+) +━+ +\d/\d (\d:\d\d:\d\d)", "\n".join(screen(terminal.getvalue())))
    assert clocks == [("images", "0:01:07"), ("tasks", "0:00:33")]
