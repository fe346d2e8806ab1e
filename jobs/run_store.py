"""Runs: what was asked for, how far it is, and what came of it. Kept in Redis, read by everyone.

A run lists a project's tasks, cuts them into shards, and ends with one import. Each field here is
written by one job at a time and may be written again with the same value, so that a job that is
repeated after a time-out or a death counts nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis import Redis

from backend.errors import ClipError, RunNotFoundError
from jobs.queue import PREFIX
from jobs.run import CANCELLED, ENDED, QUEUED, Run, Shard

if TYPE_CHECKING:
    from redis.client import Pipeline

KEPT_RUNS = 50
"""Runs of a project that are remembered."""
KEPT_SECONDS = 30 * 24 * 3600
"""How long Redis keeps what was written last."""
FAILURES_SHOWN = 1000


_PARTS = ("", "shards", "failures", "attempts", "later", "held", "deadly")
_ACTIVE = f"{PREFIX}active"


class RunStore:
    """The runs of all projects.

    Args:
        connection: to Redis.
    """

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def start(self, project: int, only: str, asked_by: str, head: str = "") -> tuple[Run, bool]:
        """A new run, or the one that this project has going.

        Returns:
            The run, and whether it is new.
        """
        mine = uuid4().hex[:12]
        now = time.time()
        fields = {
            "project": project,
            "only": only,
            "asked_by": asked_by,
            "head": head,
            "state": QUEUED,
            "created": now,
            "updated": now,
        }
        # Before the slot is taken, so that whoever finds it taken finds the run.
        self._set(_key(mine), fields)
        while not self.connection.set(_slot(project), mine, nx=True):
            going = self._text(self.connection.get(_slot(project)))
            run = self.get(going) if going else None
            if run is not None and run.state not in ENDED:
                self.connection.delete(_key(mine))
                self.connection.sadd(_ACTIVE, going)
                return run, False
            self._release(project, going)
        self.connection.sadd(_ACTIVE, mine)
        self.connection.zadd(_list(project), {mine: now})
        self._forget_old(project)
        run = self.get(mine)
        assert run is not None
        return run, True

    def get(self, run_id: str) -> Run | None:
        """The run as it stands now, or None."""
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.hgetall(_key(run_id))
            pipe.hgetall(_key(run_id, "shards"))
            pipe.hlen(_key(run_id, "failures"))
            raw, shards, failed = pipe.execute()
        content = {key.decode(): value.decode() for key, value in raw.items()}
        if "project" not in content:
            return None
        parts = [json.loads(value) for value in shards.values()]
        number = {name: float(content.get(name, 0)) for name in ("created", "updated", "ended")}
        first, last = float(content.get("first_image", 0)), float(content.get("last_image", 0))
        return Run(
            run_id,
            int(content["project"]),
            content["only"],
            content["asked_by"],
            content["state"],
            number["created"],
            number["updated"],
            number["ended"],
            content.get("model_version", ""),
            int(content.get("listed", 0)),
            sum(part["embedded"] for part in parts),
            sum(part["cached"] for part in parts),
            int(content.get("imported", 0)),
            int(failed),
            len(parts),
            sum(part["done"] for part in parts),
            json.loads(content["error"]) if "error" in content else None,
            tuple(json.loads(content.get("notes", "[]"))),
            content.get("waits_for", ""),
            max(0.0, last - first) if first else 0.0,
            content.get("key", ""),
            content.get("config", ""),
            content.get("encoder", ""),
            content.get("planned_version", ""),
            int(content.get("left_out", 0)),
            int(content.get("sending", 0)),
            int(content.get("sent_to", 0)),
            content.get("head", ""),
        )

    def state(self, run_id: str) -> str:
        """The run's state; empty if Redis has forgotten it."""
        return self._text(self.connection.hget(_key(run_id), "state"))

    def require(self, project: int, run_id: str) -> Run:
        """The run of this project with this id, or with the only id that begins like this.

        Raises:
            RunNotFoundError: there is none, or more than one.
        """
        run = self.get(run_id) if run_id.isalnum() else None
        alike: list[Run] = []
        if run is None and run_id:
            alike = [one for one in self.of_project(project) if one.id.startswith(run_id)]
            run = alike[0] if len(alike) == 1 else None
        if run is None or run.project != project:
            raise RunNotFoundError(
                f"Several runs of project {project} begin with {run_id!r}: "
                f"{', '.join(one.id for one in alike[:5])}."
                if alike
                else f"Project {project} has no run {run_id[:40]!r}.",
                f"ls-clip runs {project} lists those that are remembered.",
            )
        return run

    def of_project(self, project: int) -> list[Run]:
        """Its runs, newest first."""
        ids = [value.decode() for value in self.connection.zrevrange(_list(project), 0, -1)]
        return [run for run in map(self.get, ids) if run is not None]

    def active(self) -> list[Run]:
        """Runs that have not ended, of all projects."""
        found = []
        for value in self.connection.smembers(_ACTIVE):
            run = self.get(value.decode())
            if run is None:
                self.connection.srem(_ACTIVE, value)
            else:
                found.append(run)
        return found

    def move(self, run_id: str, state: str, **fields: Any) -> bool:
        """Give a run another state, unless it has ended.

        Returns:
            Whether it had not.
        """

        def change(pipe: Pipeline) -> bool:
            now: Any = pipe.hget(_key(run_id), "state")
            pipe.multi()
            if now is None or now.decode() in ENDED:
                return False
            pipe.hset(_key(run_id), mapping={"state": state, "updated": time.time(), **fields})
            pipe.expire(_key(run_id), KEPT_SECONDS)
            return True

        moved: bool = self.connection.transaction(change, _key(run_id), value_from_callable=True)
        return moved

    def end(self, run_id: str, state: str, error: ClipError | None = None, **fields: Any) -> bool:
        """Close a run: ``done``, ``failed`` or ``cancelled``. What has ended stays as it is."""
        if error is not None:
            fields["error"] = json.dumps(error.as_dict())
        run = self.get(run_id)
        if run is None or not self.move(run_id, state, ended=time.time(), waits_for="", **fields):
            return False
        self._release(run.project, run_id)
        self.connection.srem(_ACTIVE, run_id)
        return True

    def note(self, run_id: str, **fields: Any) -> None:
        """Set fields of a run, which also shows that it lives; no-op if Redis has forgotten it."""
        if self.connection.exists(_key(run_id)):
            self._set(_key(run_id), {"updated": time.time(), **fields})

    # Shards

    def add_shard(self, run_id: str, shard: Shard) -> None:
        """A shard that is to be worked on."""
        self._put(run_id, shard)

    def shards(self, run_id: str) -> list[Shard]:
        """All shards, by number."""
        raw = self.connection.hgetall(_key(run_id, "shards"))
        found = [Shard(int(number), **json.loads(value)) for number, value in raw.items()]
        return sorted(found, key=lambda shard: shard.number)

    def progress(self, run_id: str, shard: Shard) -> str:
        """Say how far a shard is.

        Returns:
            The run's state, so that a worker learns that it was cancelled.
        """
        state = self.state(run_id)
        if not state:
            return CANCELLED
        now = time.time()
        if shard.embedded or shard.cached:
            self.connection.hsetnx(_key(run_id), "first_image", now)
            self.note(run_id, last_image=now)
        else:
            self.note(run_id)
        self._put(run_id, shard)
        return state

    def _put(self, run_id: str, shard: Shard) -> None:
        content = {name: value for name, value in vars(shard).items() if name != "number"}
        self._set(_key(run_id, "shards"), {str(shard.number): json.dumps(content)})

    # Failures

    def record_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Task id -> why it has no prediction."""
        if failures:
            content = {str(task): json.dumps(dict(why)) for task, why in failures.items()}
            self._set(_key(run_id, "failures"), content)

    def set_failures(self, run_id: str, failures: Mapping[int, Mapping[str, str]]) -> None:
        """Replace all that was recorded."""
        self.connection.delete(_key(run_id, "failures"))
        self.record_failures(run_id, failures)

    def failures(self, run_id: str) -> dict[int, dict[str, str]]:
        """Task id -> why it has no prediction, by task."""
        raw = self.connection.hgetall(_key(run_id, "failures"))
        return {int(task): json.loads(raw[task]) for task in sorted(raw, key=int)}

    # What happens to jobs

    def attempts(self, run_id: str, job: str) -> int:
        """How often this job of the run has failed or was lost."""
        return int(self.connection.hget(_key(run_id, "attempts"), job) or 0)

    def count_attempt(self, run_id: str, job: str) -> int:
        """One more; returns how many there are."""
        count = int(self.connection.hincrby(_key(run_id, "attempts"), job, 1))
        self.connection.expire(_key(run_id, "attempts"), KEPT_SECONDS)
        return count

    def not_before(self, run_id: str, job: str, moment: float | None = None) -> float:
        """The unix time from which a failed job may be tried again; sets it where given."""
        if moment is not None:
            self._set(_key(run_id, "later"), {job: moment})
            return moment
        return float(self.connection.hget(_key(run_id, "later"), job) or 0)

    def hold(self, run_id: str, shard: int, address: str | None) -> None:
        """Note which image a worker is about to touch, in case that kills it; None: none."""
        if address is None:
            self.connection.hdel(_key(run_id, "held"), str(shard))
        else:
            self._set(_key(run_id, "held"), {str(shard): address})

    def deadly(self, run_id: str, shard: int) -> set[str]:
        """The images that a worker touched and never came back from."""
        held = self.connection.hget(_key(run_id, "held"), str(shard))
        if held is not None:
            self.connection.sadd(_key(run_id, "deadly"), held)
            self.connection.expire(_key(run_id, "deadly"), KEPT_SECONDS)
            self.hold(run_id, shard, None)
        return {value.decode() for value in self.connection.smembers(_key(run_id, "deadly"))}

    def _set(self, key: str, fields: Mapping[str, Any]) -> None:
        """Write fields of a hash; it is forgotten so long after the last of them."""
        with self.connection.pipeline(transaction=False) as pipe:
            pipe.hset(key, mapping=fields)
            pipe.expire(key, KEPT_SECONDS)
            pipe.execute()

    def _release(self, project: int, run_id: str) -> None:
        def free(pipe: Pipeline) -> None:
            now: Any = pipe.get(_slot(project))
            pipe.multi()
            if now is not None and now.decode() == run_id:
                pipe.delete(_slot(project))

        self.connection.transaction(free, _slot(project))

    def _forget_old(self, project: int) -> None:
        for value in self.connection.zrange(_list(project), 0, -KEPT_RUNS - 1):
            run_id = value.decode()
            self.connection.delete(*(_key(run_id, name) for name in _PARTS))
            self.connection.zrem(_list(project), run_id)

    @staticmethod
    def _text(value: Any) -> str:
        return value.decode() if value is not None else ""


def _key(run_id: str, part: str = "") -> str:
    return f"{PREFIX}run:{run_id}" + (f":{part}" if part else "")


def _list(project: int) -> str:
    return f"{PREFIX}project:{project}:runs"


def _slot(project: int) -> str:
    return f"{PREFIX}project:{project}:running"
