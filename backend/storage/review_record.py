"""What is recorded of how a project's tasks were chosen for review: its order, and its rounds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

SCHEMA = 1
"""Version of the files' format."""


class ReviewOrder(StrEnum):
    """In which order "Label All Tasks" serves a project's tasks; the values stand in the store."""

    RANDOM = "random"
    UNCERTAIN = "uncertain"
    """The tasks with the lowest confidence first."""
    SEQUENTIAL = "sequential"
    """By the Data Manager's order, which is Label Studio's own default."""


@dataclass(frozen=True)
class OrderPeriod:
    """An order, and since when it holds: until the next period of the project begins.

    Attributes:
        order: see there.
        since: unix time in seconds.
    """

    order: ReviewOrder
    since: float


@dataclass(frozen=True)
class FormerRound:
    """A round that is over.

    Attributes:
        tasks: ids of its tasks.
        since: unix time from which they were offered.
        until: unix time at which the next round took its place.
    """

    tasks: tuple[int, ...]
    since: float
    until: float


@dataclass(frozen=True)
class RoundRecord:
    """The round of tasks that a project's tab offers, and those before it.

    Attributes:
        tasks: ids of the tasks of the present round; empty if there is none.
        since: unix time from which they are offered.
        former: the earlier rounds, oldest first.
        tab: id of the Data Manager's tab that shows the round; 0: it is still to be made.
        failure: why the round could not be put into the tab, or chosen, the last time; empty if
            it could.
    """

    tasks: tuple[int, ...] = ()
    since: float = 0.0
    former: tuple[FormerRound, ...] = ()
    tab: int = 0
    failure: str = ""

    def followed_by(self, tasks: Sequence[int], now: float) -> RoundRecord:
        """The record once another round has begun at ``now``, unix time."""
        former = self.former
        if self.tasks:
            former = (*former, FormerRound(self.tasks, self.since, now))
        return replace(self, tasks=tuple(tasks), since=now, former=former)

    def offered(self, task: int, moment: float) -> bool:
        """Whether a task was in the round of that moment, unix time."""
        if self.tasks and moment >= self.since:
            return task in self.tasks
        begun = bisect_right(self.former, moment, key=lambda former: former.since)
        return bool(begun) and (
            moment < self.former[begun - 1].until and task in self.former[begun - 1].tasks
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {"schema": SCHEMA, **asdict(self)}


def order_at(periods: Sequence[OrderPeriod], moment: float) -> ReviewOrder | None:
    """The order that held at a moment, unix time; None before the first that is recorded."""
    held = [period.order for period in periods if period.since <= moment]
    return held[-1] if held else None


def periods_as_dict(periods: Sequence[OrderPeriod]) -> dict[str, Any]:
    """JSON-serialisable."""
    return {"schema": SCHEMA, "periods": [asdict(period) for period in periods]}


PERIODS: TypeAdapter[list[OrderPeriod]] = TypeAdapter(list[OrderPeriod])
"""Reads the periods of `periods_as_dict`, oldest first."""
ROUND: TypeAdapter[RoundRecord] = TypeAdapter(RoundRecord)
"""Reads `RoundRecord.as_dict`."""
