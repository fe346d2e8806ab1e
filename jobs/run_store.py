"""Runs in Redis, read and written by all processes.

A run lists a project's tasks, cuts them into shards, and ends with one import. Each field is
written by one job at a time and may be written again with the same value, so that a job that is
repeated after a timeout or a crash counts nothing twice.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis import Redis

from backend.errors import ClipError, QueueError, RunNotFoundError
from jobs.queue import key, language
from jobs.record import SCHEMA, DamagedRecordError, readable, set_aside
from jobs.run import ENDED, Run, RunState, Scope, Shard, Trigger

if TYPE_CHECKING:
    from redis.client import Pipeline

log = logging.getLogger(__name__)
_readable = readable("run")

KEPT_RUNS = 50
"""Runs of a project that are remembered."""
KEPT_SECONDS = 30 * 24 * 3600
"""How long Redis keeps a run after the last write to it."""

_PARTS = ("", "shards", "failures", "attempts", "later", "held", "deadly")


class RunStore:
    """The runs of all projects.

    Args:
        connection: to Redis.
    """

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self._active = key(connection, "active")

    @_readable
    def start(
        self,
        project: int,
        scope: Scope,
        trigger: Trigger,
        head: str = "",
        revalidate: bool = False,
    ) -> tuple[Run, bool]:
        """A new run, or the one of this project that has not ended.

        Returns:
            The run, and whether it is new.
        """
        new_id = uuid4().hex[:12]
        now = time.time()
        fields = Run.to_wire(
            {
                "project": project,
                "scope": scope,
                "trigger": trigger,
                "head": head,
                "revalidate": revalidate,
                "state": RunState.QUEUED,
                "created": now,
                "updated": now,
            }
        )
        # Before the slot is taken, so that whoever finds it taken finds the run.
        self._set(self._key(new_id), {"schema": SCHEMA, **fields})
        while not self.connection.set(self._project_key(project, "running"), new_id, nx=True):
            current_id = self._text(self.connection.get(self._project_key(project, "running")))
            run = self._intact(current_id) if current_id else None
            if run is not None and self._keep_active(current_id):
                self.connection.delete(self._key(new_id))
                return run, False
            self._release(project, current_id)
        self.connection.sadd(self._active, new_id)
        self.connection.zadd(self._project_key(project, "runs"), {new_id: now})
        self._forget_old(project)
        run = self.get(new_id)
        assert run is not None
        return run, True

    @_readable
    def get(self, run_id: str) -> Run | None:
        """The run as it stands now, or None.

        Raises:
            QueueError: a newer release wrote it, or it cannot be read.
        """
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._key(run_id))
            pipe.hgetall(self._key(run_id, "shards"))
            pipe.hlen(self._key(run_id, "failures"))
            raw, raw_shards, failed = pipe.execute()
        content = {
            key.decode(errors="replace"): value.decode(errors="replace")
            for key, value in raw.items()
        }
        if "project" not in content:
            return None
        shards = _shards(raw_shards)
        return Run.from_wire(
            content,
            id=run_id,
            embedded=sum(shard.embedded for shard in shards),
            cached=sum(shard.cached for shard in shards),
            failed=int(failed),
            revalidated=sum(shard.revalidated for shard in shards),
            changed=sum(shard.changed for shard in shards),
            shards=len(shards),
            shards_done=sum(shard.done for shard in shards),
        )

    @_readable
    def state(self, run_id: str) -> RunState | None:
        """The run's state; None if Redis has forgotten it."""
        state = self._text(self.connection.hget(self._key(run_id), "state"))
        return RunState(state) if state else None

    def require(self, project: int, run_id: str) -> Run:
        """The run of this project with this id, or with the only id that begins like this.

        Raises:
            RunNotFoundError: there is none, or more than one.
        """
        run = self.get(run_id) if run_id.isalnum() else None
        similar: list[Run] = []
        if run is None and run_id:
            similar = [run for run in self.of_project(project) if run.id.startswith(run_id)]
            run = similar[0] if len(similar) == 1 else None
        if run is None or run.project != project:
            raise RunNotFoundError(
                f"Several runs of project {project} begin with {run_id!r}: "
                f"{', '.join(run.id for run in similar[:5])}."
                if similar
                else f"Project {project} has no run {run_id[:40]!r}.",
                f"ls-clip runs {project} lists the recorded ones.",
            )
        return run

    @_readable
    def of_project(self, project: int) -> list[Run]:
        """Its runs, newest first."""
        ids = self.connection.zrevrange(self._project_key(project, "runs"), 0, -1)
        runs = [self._intact(value.decode(errors="replace")) for value in ids]
        return [run for run in runs if run is not None]

    def active_ids(self) -> set[str]:
        """Ids of the runs that have not ended, of all projects, whoever wrote them."""
        return {value.decode(errors="replace") for value in self.connection.smembers(self._active)}

    @_readable
    def active(self) -> list[Run]:
        """Runs that have not ended, of all projects.

        Those that a newer release wrote are left out, and those that are damaged are set aside.
        """
        runs = []
        for member in self.connection.smembers(self._active):
            run_id = member.decode(errors="replace")
            try:
                run = self._intact(run_id)
            except QueueError as error:
                # A newer release takes care of it; the runs of other projects go on.
                log.warning("run %s is left alone: %s", run_id, error)
                continue
            if run is None or run.state in ENDED:
                self.connection.srem(self._active, member)
            else:
                runs.append(run)
        return runs

    def _intact(self, run_id: str) -> Run | None:
        """The run; None if there is none, or if it is damaged, in which case it is set aside.

        Raises:
            QueueError: a newer release wrote it.
        """
        try:
            return self.get(run_id)
        except DamagedRecordError as error:
            self.set_aside(run_id, error)
            return None

    def set_aside(self, run_id: str, error: DamagedRecordError) -> None:
        """Give up a run that cannot be read; it stays in Redis under another key."""
        log.error("run %s is set aside as %s: %s", run_id, self._key(run_id, "damaged"), error)
        set_aside(self.connection, self._key(run_id))
        self.connection.srem(self._active, run_id)

    @_readable
    def _keep_active(self, run_id: str) -> bool:
        """List a run among the active ones, unless it has ended; returns whether it has not."""

        def add(pipe: Pipeline) -> bool:
            state: Any = pipe.hget(self._key(run_id), "state")
            pipe.multi()
            if state is None or state.decode() in ENDED:
                return False
            pipe.sadd(self._active, run_id)
            return True

        kept: bool = self.connection.transaction(add, self._key(run_id), value_from_callable=True)
        return kept

    @_readable
    def move(self, run_id: str, state: RunState, **fields: Any) -> bool:
        """Give a run another state, and other values of `Run`'s fields, unless it has ended.

        Returns:
            Whether it had not.
        """
        written = Run.to_wire({"state": state, "updated": time.time(), **fields})

        def change(pipe: Pipeline) -> bool:
            now: Any = pipe.hget(self._key(run_id), "state")
            pipe.multi()
            if now is None or now.decode() in ENDED:
                return False
            pipe.hset(self._key(run_id), mapping=written)
            pipe.expire(self._key(run_id), KEPT_SECONDS)
            if state in ENDED:
                pipe.srem(self._active, run_id)
            return True

        moved: bool = self.connection.transaction(
            change, self._key(run_id), value_from_callable=True
        )
        return moved

    @_readable
    def end(
        self, run_id: str, state: RunState, error: ClipError | None = None, **fields: Any
    ) -> bool:
        """Close a run with a state of `ENDED`. A run that has ended stays as it is."""
        if error is not None:
            fields["error"] = error.as_dict(language(self.connection))
        run = self.get(run_id)
        if run is None or not self.move(run_id, state, ended=time.time(), blocked_on="", **fields):
            return False
        self._release(run.project, run_id)
        return True

    def note(self, run_id: str, **fields: Any) -> None:
        """Set fields of `Run`, which also shows that it lives; no-op if Redis has forgotten it."""
        if self.connection.exists(self._key(run_id)):
            self._set(self._key(run_id), Run.to_wire({"updated": time.time(), **fields}))

    # Shards

    def add_shard(self, run_id: str, shard: Shard) -> None:
        """A shard that is to be worked on."""
        self._put(run_id, shard)

    @_readable
    def shards(self, run_id: str) -> list[Shard]:
        """All shards, by number."""
        shards = _shards(self.connection.hgetall(self._key(run_id, "shards")))
        return sorted(shards, key=lambda shard: shard.number)

    @_readable
    def progress(self, run_id: str, shard: Shard) -> RunState:
        """Record how far a shard is.

        Returns:
            The run's state, so that a worker learns that it was cancelled.
        """
        state = self.state(run_id)
        if state is None:
            return RunState.CANCELLED
        now = time.time()
        # Also before the first image is done: its time counts.
        self.connection.hsetnx(self._key(run_id), "first_image", now)
        if shard.embedded or shard.cached:
            self.note(run_id, last_image=now)
        else:
            self.note(run_id)
        self._put(run_id, shard)
        return state

    def _put(self, run_id: str, shard: Shard) -> None:
        content = {"schema": SCHEMA, **shard.as_dict()}
        del content["number"]
        self._set(self._key(run_id, "shards"), {str(shard.number): json.dumps(content)})

    # Failures

    def record_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Add task id -> why it has no prediction."""
        if failures:
            content = {str(task): json.dumps(dict(why)) for task, why in failures.items()}
            self._set(self._key(run_id, "failures"), content)

    def set_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Replace all that was recorded."""
        self.connection.delete(self._key(run_id, "failures"))
        self.record_failures(run_id, failures)

    @_readable
    def failures(self, run_id: str) -> dict[int, dict[str, str]]:
        """Task id -> why it has no prediction, by task."""
        raw = self.connection.hgetall(self._key(run_id, "failures"))
        return {int(task): json.loads(raw[task]) for task in sorted(raw, key=int)}

    # Labels

    def set_config(self, project: int, config: str) -> None:
        """Set the digest of the labeling config that predictions are made for."""
        self.connection.set(self._project_key(project, "config"), config)

    def current_config(self, project: int) -> str:
        """The digest of the labeling config that predictions are made for; empty if none is set."""
        return self._text(self.connection.get(self._project_key(project, "config")))

    # Jobs that fail or are lost

    @_readable
    def attempts(self, run_id: str, job: str) -> int:
        """How often this job of the run has failed or was lost."""
        return int(self.connection.hget(self._key(run_id, "attempts"), job) or 0)

    @_readable
    def count_attempt(self, run_id: str, job: str) -> int:
        """One more; returns how many there are."""
        count = int(self.connection.hincrby(self._key(run_id, "attempts"), job, 1))
        self.connection.expire(self._key(run_id, "attempts"), KEPT_SECONDS)
        return count

    @_readable
    def not_before(self, run_id: str, job: str, moment: float | None = None) -> float:
        """The unix time from which a failed job may be retried; sets it if ``moment`` is given."""
        if moment is not None:
            self._set(self._key(run_id, "later"), {job: moment})
            return moment
        return float(self.connection.hget(self._key(run_id, "later"), job) or 0)

    def hold(self, run_id: str, shard: int, address: str | None) -> None:
        """Note which image a worker is about to touch, in case that kills it; None: none."""
        if address is None:
            self.connection.hdel(self._key(run_id, "held"), str(shard))
        else:
            self._set(self._key(run_id, "held"), {str(shard): address})

    @_readable
    def deadly(self, run_id: str, shard: int) -> set[str]:
        """The images during whose processing a worker died."""
        held = self.connection.hget(self._key(run_id, "held"), str(shard))
        if held is not None:
            self.connection.sadd(self._key(run_id, "deadly"), held)
            self.connection.expire(self._key(run_id, "deadly"), KEPT_SECONDS)
            self.hold(run_id, shard, None)
        return {value.decode() for value in self.connection.smembers(self._key(run_id, "deadly"))}

    def _set(self, key: str, fields: Mapping[str, Any]) -> None:
        """Write fields of a hash, which expires `KEPT_SECONDS` after the last write."""
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping=fields)
            pipe.expire(key, KEPT_SECONDS)
            pipe.execute()

    def _release(self, project: int, run_id: str) -> None:
        def free(pipe: Pipeline) -> None:
            now: Any = pipe.get(self._project_key(project, "running"))
            pipe.multi()
            if now is not None and now.decode(errors="replace") == run_id:
                pipe.delete(self._project_key(project, "running"))

        self.connection.transaction(free, self._project_key(project, "running"))

    def _forget_old(self, project: int) -> None:
        for value in self.connection.zrange(self._project_key(project, "runs"), 0, -KEPT_RUNS - 1):
            run_id = value.decode()
            self.connection.delete(*(self._key(run_id, name) for name in _PARTS))
            self.connection.zrem(self._project_key(project, "runs"), run_id)

    def _key(self, run_id: str, part: str = "") -> str:
        return key(self.connection, f"run:{run_id}" + (f":{part}" if part else ""))

    def _project_key(self, project: int, what: str) -> str:
        return key(self.connection, f"project:{project}:{what}")

    @staticmethod
    def _text(value: Any) -> str:
        return value.decode(errors="replace") if value is not None else ""


def _shards(raw: Mapping[bytes, bytes]) -> list[Shard]:
    return [Shard.from_json(value, number=int(number)) for number, value in raw.items()]
