"""What the steps of a run read and write about it, whether Redis or this process keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from jobs.run import Run, RunState, Shard


class RunLog(Protocol):
    """The part of `jobs.run_store.RunStore` that does not depend on a queue."""

    def get(self, run_id: str) -> Run | None:
        """The run as it stands now, or None."""

    def state(self, run_id: str) -> RunState | None:
        """The run's state; None if there is no such run."""

    def note(self, run_id: str, **fields: Any) -> None:
        """Set fields of `Run`."""

    def add_shard(self, run_id: str, shard: Shard) -> None:
        """A shard that is to be worked on."""

    def shards(self, run_id: str) -> list[Shard]:
        """All shards, by number."""

    def progress(self, run_id: str, shard: Shard) -> RunState:
        """Record how far a shard is; returns the run's state."""

    def record_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Add task id -> why it has no prediction."""

    def set_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Replace all that was recorded."""

    def failures(self, run_id: str) -> dict[int, dict[str, str]]:
        """Task id -> why it has no prediction, by task."""

    def set_config(self, project: int, config: str) -> None:
        """Set the digest of the labeling config that predictions are made for."""
