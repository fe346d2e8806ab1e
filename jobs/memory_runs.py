"""Runs of this process, kept in memory: `jobs.run_log.RunLog` without Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from jobs.run import Run, RunState, Scope, Shard, Trigger


class MemoryRuns:
    """Keeps counts, and the tasks that failed; memory does not grow with the tasks that succeed.

    Args:
        report: called with a run after each change of it.
    """

    def __init__(self, report: Callable[[Run], None] = lambda run: None) -> None:
        self._report = report
        self._runs: dict[str, Run] = {}
        self._shards: dict[str, dict[int, Shard]] = {}
        self._failures: dict[str, dict[int, dict[str, str]]] = {}

    def start(self, project: int, scope: Scope, trigger: Trigger, revalidate: bool = False) -> Run:
        """A new run, whose tasks are being listed."""
        now = time.time()
        run = Run.model_validate(
            {
                "id": uuid4().hex[:12],
                "project": project,
                "scope": scope,
                "trigger": trigger,
                "revalidate": revalidate,
                "state": RunState.LISTING,
                "created": now,
                "updated": now,
            }
        )
        self._runs[run.id] = run
        self._shards[run.id] = {}
        self._failures[run.id] = {}
        return run

    def get(self, run_id: str) -> Run | None:
        """The run as it stands now, or None."""
        return self._runs.get(run_id)

    def state(self, run_id: str) -> RunState | None:
        """The run's state; None if there is no such run."""
        run = self.get(run_id)
        return None if run is None else run.state

    def note(self, run_id: str, **fields: Any) -> None:
        """Set fields of `Run`."""
        run = self._runs[run_id].model_copy(update={"updated": time.time(), **fields})
        self._runs[run_id] = run
        self._report(run)

    def add_shard(self, run_id: str, shard: Shard) -> None:
        """A shard that is to be worked on."""
        self._shards[run_id][shard.number] = shard
        shards = self._shards[run_id].values()
        self.note(
            run_id,
            embedded=sum(shard.embedded for shard in shards),
            cached=sum(shard.cached for shard in shards),
            revalidated=sum(shard.revalidated for shard in shards),
            changed=sum(shard.changed for shard in shards),
            shards=len(shards),
            shards_done=sum(shard.done for shard in shards),
        )

    def shards(self, run_id: str) -> list[Shard]:
        """All shards, by number."""
        return [self._shards[run_id][number] for number in sorted(self._shards[run_id])]

    def progress(self, run_id: str, shard: Shard) -> RunState:
        """Record how far a shard is; returns the run's state."""
        self.add_shard(run_id, shard)
        return self._runs[run_id].state

    def record_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Add task id -> why it has no prediction."""
        self._failures[run_id].update({task: dict(why) for task, why in failures.items()})
        self.note(run_id, failed=len(self._failures[run_id]))

    def set_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Replace all that was recorded."""
        self._failures[run_id] = {task: dict(why) for task, why in failures.items()}
        self.note(run_id, failed=len(failures))

    def failures(self, run_id: str) -> dict[int, dict[str, str]]:
        """Task id -> why it has no prediction, by task."""
        return dict(sorted(self._failures[run_id].items()))

    def set_config(self, project: int, config: str) -> None:
        """Nothing to do: only processes with a queue act on changes of a project."""
