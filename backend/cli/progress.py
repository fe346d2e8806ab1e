"""How commands show what they do: bars on a terminal, elsewhere lines.

The steps of a command follow one another: a step has ended when the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from backend.cli import console as shared
from backend.logs import Progress
from backend.messages.catalogue import Language, localized
from backend.messages.message import Message

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

ESTIMATE_SECONDS = 10.0
"""Without a terminal, a step that has taken so long says how much longer it will take ..."""
AGAIN_SECONDS = 30.0
"""... and says so again after so many more; where that is unknown, how long it has taken."""


def about(seconds: float) -> Message:
    """A duration in words, to one or two digits: ``about 40 min``."""
    if seconds < 90:
        return Message("about {seconds} s", seconds=max(1, round(seconds)))
    if seconds < 5400:
        return Message("about {minutes} min", minutes=round(seconds / 60))
    if seconds < 36_000:
        return Message("about {hours:.1f} h", hours=seconds / 3600)
    return Message("about {hours:.0f} h", hours=seconds / 3600)


@contextmanager
def progress_bar(language: Language = Language.ENGLISH) -> Iterator[Progress]:
    """A bar for each step on a terminal; elsewhere lines, now and then with how it goes."""
    if shared.console.is_terminal:
        with _bars(language) as bars:
            shown = _BarSteps(bars, language)
            yield shown.update
            shown.end()
        return
    lines, ended = LineSteps(language), Event()
    clock = Thread(target=lines.keep_saying, args=(ended,), daemon=True)
    clock.start()
    try:
        yield lines.update
    finally:
        ended.set()
        clock.join()


class LineSteps:
    """Steps as lines: its name when it begins, and from time to time how it goes. Thread-safe.

    Args:
        language: of the lines.
    """

    def __init__(self, language: Language = Language.ENGLISH) -> None:
        self._language = language
        self._lock = Lock()
        self._name = ""
        self._begun = self._due = 0.0
        self._done_before = 0

    def update(self, what: str, done: int, total: int) -> None:
        """See `backend.logs.Progress`."""
        with self._lock:
            if what != self._name:
                self._name, self._done_before = what, done
                self._begun = time.monotonic()
                self._due = ESTIMATE_SECONDS
                self._say(Message("{step} ...", step=what))
            taken = time.monotonic() - self._begun
            if taken >= self._due and self._done_before < done < total:
                speed = (done - self._done_before) / taken
                left = about((total - done) / speed)
                self._say(
                    Message(
                        "{step}: {done} of {total}, {speed:.1f} a second: {left} left",
                        step=what,
                        done=done,
                        total=total,
                        speed=speed,
                        left=left,
                    )
                )
                self._due = taken + AGAIN_SECONDS

    def keep_saying(self, ended: Event) -> None:
        """Call `say_how_long` every second until this event."""
        while not ended.wait(1.0):
            self.say_how_long()

    def say_how_long(self) -> None:
        """Say how long the step has taken, if nothing was said of it for long."""
        with self._lock:
            taken = time.monotonic() - self._begun
            if self._name and taken >= max(self._due, AGAIN_SECONDS):
                self._say(Message("{step}: {taken} so far", step=self._name, taken=about(taken)))
                self._due = taken + AGAIN_SECONDS

    def _say(self, line: Message) -> None:
        shared.console.print(localized(line, self._language), highlight=False, markup=False)


class _BarSteps:
    """Steps as bars, of which the last one goes on."""

    def __init__(self, bars: Bars, language: Language) -> None:
        self._bars = bars
        self._language = language
        self._rows: dict[str, TaskID] = {}
        self._current: TaskID | None = None

    def update(self, what: str, done: int, total: int) -> None:
        """See `backend.logs.Progress`."""
        row = self._rows.get(what)
        if row is None:
            self.end()
            row = self._rows[what] = self._bars.add_task(
                localized(what, self._language), total=total
            )
        elif row != self._current:
            self.end()
            self._bars.reset(row)
        self._current = row
        self._bars.update(row, completed=done, total=total)

    def end(self) -> None:
        """The current step has ended: its bar is full, and its clock stands."""
        if self._current is not None:
            total = self._bars.tasks[self._current].total
            self._bars.update(self._current, completed=total)
            self._bars.stop_task(self._current)


def _bars(language: Language) -> Bars:
    # Costs as much as all the rest of --help.
    from rich import progress
    from rich.text import Text

    class Clock(progress.TimeElapsedColumn):
        """Time since a step has begun, until the next one begins: full bars are not the end."""

        def render(self, task: progress.Task) -> Text:
            return Text(_hours(task.elapsed or 0.0), style="progress.elapsed")

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Clock(),
        progress.TextColumn(localized(Message("left:"), language)),
        progress.TimeRemainingColumn(),
        console=shared.console,
    )


def _hours(seconds: float) -> str:
    """``0:01:07``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
