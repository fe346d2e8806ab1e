"""A run: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUEUED, LISTING, EMBEDDING, IMPORTING = "queued", "listing", "embedding", "importing"

DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

ENDED = frozenset({DONE, FAILED, CANCELLED})

BY_TRAINING = "training"
"""Who asks for the runs that put accepted heads into use."""

ONLY = ("missing", "unlabelled", "all")


@dataclass(frozen=True)
class Shard:
    """Some tasks of a run.

    Attributes:
        number: from 0.
        tasks: how many.
        embedded: images encoded for it.
        cached: images whose embedding was there.
        failed: images that could not be had.
        done: whether it needs no more work.
    """

    number: int
    tasks: int
    embedded: int = 0
    cached: int = 0
    failed: int = 0
    done: bool = False


@dataclass(frozen=True)
class Run:
    """How a run stands.

    Attributes:
        id: letters and digits.
        project: its number in Label Studio.
        only: one of `ONLY`.
        asked_by: ``cli``, ``http``, ``connect``, ``label-studio``, ``webhook`` or ``training``.
        state: ``queued``, ``listing``, ``embedding``, ``importing``; ``done``, ``failed`` or
            ``cancelled``.
        created: unix time.
        updated: unix time of the last sign of life.
        ended: unix time; 0 while it goes on.
        model_version: what it gives the tasks, once known.
        listed: tasks that need a prediction.
        embedded: images encoded.
        cached: images whose embedding was there.
        imported: predictions made in Label Studio.
        failed: tasks without a prediction.
        shards: how many there are.
        shards_done: of them.
        error: why it failed, in the one shape of all errors.
        notes: what a person should know, one sentence each.
        waits_for: what it cannot go on without at the moment; empty if it goes on.
        working: seconds since its first image.
        key: the project as Label Studio names it to backends, ``<id>.<unix time of creation>``.
        config: digest of the labeling config that it was cut for.
        encoder: id of the encoder that it was begun with.
        planned_version: the version for which its tasks were listed.
        left_out: tasks that had a prediction of that version.
        sending: predictions that were sent last, if no answer has come to them; else 0.
        sent_to: predictions of the version that Label Studio had before those.
        head: the set of heads that it puts into use; empty: the one that serves stays.
    """

    id: str
    project: int
    only: str
    asked_by: str
    state: str
    created: float
    updated: float
    ended: float = 0.0
    model_version: str = ""
    listed: int = 0
    embedded: int = 0
    cached: int = 0
    imported: int = 0
    failed: int = 0
    shards: int = 0
    shards_done: int = 0
    error: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    waits_for: str = ""
    working: float = 0.0
    key: str = ""
    config: str = ""
    encoder: str = ""
    planned_version: str = ""
    left_out: int = 0
    sending: int = 0
    sent_to: int = 0
    head: str = ""

    @property
    def images_per_second(self) -> float:
        """Of the images that had to be encoded."""
        return self.embedded / self.working if self.working > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the last image is embedded, at the speed so far; None if nothing tells."""
        looked_at = self.embedded + self.cached
        if self.state != EMBEDDING or not looked_at or self.working <= 0:
            return None
        return max(0, self.listed - looked_at) * self.working / looked_at

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; docs/workers.md describes the fields."""
        left = self.seconds_left
        inner = {"working", "key", "config", "encoder", "planned_version", "left_out"}
        inner |= {"sending", "sent_to"}
        return {
            **{name: value for name, value in vars(self).items() if name not in inner},
            "notes": list(self.notes),
            "images_per_second": round(self.images_per_second, 1),
            "seconds_left": None if left is None else round(left),
        }
