"""A run: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, Json

from jobs.record import Record


class RunState(StrEnum):
    """Where a run is; the values stand in Redis and in JSON answers."""

    QUEUED = "queued"
    LISTING = "listing"
    EMBEDDING = "embedding"
    IMPORTING = "importing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


class Scope(StrEnum):
    """Which tasks a run is about."""

    MISSING = "missing"
    """Without a prediction of the current version; an annotated task keeps the one it has."""
    UNLABELLED = "unlabelled"
    """Of those, the ones without an annotation."""
    ALL = "all"
    """Every task, also those that failed before."""


class Trigger(StrEnum):
    """What asked for a run."""

    CLI = "cli"
    HTTP = "http"
    PAGE = "page"
    CONNECT = "connect"
    LABEL_STUDIO = "label-studio"
    WEBHOOK = "webhook"
    TRAINING = "training"
    """The run puts an accepted head into use."""


class Shard(Record):
    """Some tasks of a run.

    Attributes:
        number: from 0.
        tasks: how many.
        embedded: images encoded for it.
        cached: images whose embedding was stored already.
        failed: images that could not be embedded.
        done: whether it needs no more work.
        revalidated: stored images whose hosts answered whether they have changed.
        changed: of them, images that were others than the ones that were embedded.
    """

    number: int
    tasks: int
    embedded: int = 0
    cached: int = 0
    failed: int = 0
    done: bool = False
    revalidated: int = 0
    changed: int = 0


class Run(Record):
    """How a run stands.

    Attributes:
        id: letters and digits.
        project: its number in Label Studio.
        scope: which tasks it is about.
        trigger: what asked for it.
        state: where it is.
        created: unix time.
        updated: unix time of the last sign of life.
        ended: unix time; 0 while it goes on.
        model_version: what it gives the tasks, once known.
        listed: tasks that need a prediction.
        embedded: images encoded; like the next ones, the sum over its shards.
        cached: images whose embedding was stored already.
        imported: predictions made in Label Studio.
        failed: tasks without a prediction, or whose stored image could not be asked for again.
        revalidate: whether the hosts of stored images are asked if they have changed.
        revalidated: stored images whose hosts answered; like the next one, the sum over its shards.
        changed: of them, images that were others than the ones that were embedded.
        rewritten: predictions in Label Studio that were made from another image, and now are not.
        shards: how many there are.
        shards_done: of them.
        error: why it failed, in the one shape of all errors.
        notes: what a person should know, one sentence each.
        blocked_on: what it cannot go on without at the moment; empty if it goes on.
        head: the set of heads that it puts into use; empty: the one that serves stays.
        first_image: unix time of the first image that was embedded or found; 0: none yet.
        last_image: unix time of the last one.
        key: the project as Label Studio names it to backends, ``<id>.<unix time of creation>``.
        config: digest of the labeling config that it was cut for.
        encoder: id of the encoder that it was begun with.
        planned_version: the version for which its tasks were listed.
        left_out: tasks that had a prediction of that version.
        sending: predictions that were sent last, if no answer has come to them; else 0.
        sent_to: predictions of the version that Label Studio had before those.
    """

    id: str
    project: int
    scope: Scope = Field(alias="only")
    trigger: Trigger = Field(alias="asked_by")
    state: RunState
    created: float = 0.0
    updated: float = 0.0
    ended: float = 0.0
    model_version: str = ""
    listed: int = 0
    embedded: int = 0
    cached: int = 0
    imported: int = 0
    failed: int = 0
    revalidate: bool = False
    revalidated: int = 0
    changed: int = 0
    rewritten: int = 0
    shards: int = 0
    shards_done: int = 0
    error: Json[Mapping[str, str]] | None = None
    notes: Json[tuple[str, ...]] = ()
    blocked_on: str = Field("", alias="waits_for")
    head: str = ""
    first_image: float = Field(0.0, exclude=True)
    last_image: float = Field(0.0, exclude=True)
    key: str = Field("", exclude=True)
    config: str = Field("", exclude=True)
    encoder: str = Field("", exclude=True)
    planned_version: str = Field("", exclude=True)
    left_out: int = Field(0, exclude=True)
    sending: int = Field(0, exclude=True)
    sent_to: int = Field(0, exclude=True)

    @property
    def working(self) -> float:
        """Seconds from the beginning of its first image to the end of its last one."""
        return max(0.0, self.last_image - self.first_image) if self.first_image else 0.0

    @property
    def images_per_second(self) -> float:
        """Of the images that had to be encoded."""
        return self.embedded / self.working if self.working > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the last image is embedded, at the speed so far; None if that is not known."""
        done = self.embedded + self.cached
        if self.state != RunState.EMBEDDING or not done or self.working <= 0:
            return None
        return max(0, self.listed - done) * self.working / done

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; docs/workers.md describes the fields."""
        left = self.seconds_left
        return {
            **super().as_dict(),
            "images_per_second": round(self.images_per_second, 1),
            "seconds_left": None if left is None else round(left),
        }
