"""As `adapter`, for what only `make_fixtures` needs; the fixtures themselves are never remade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis import Redis

from backend.embedder import Embedder
from backend.errors import ImageError
from backend.labels import parse_config
from backend.memory import Memory
from jobs import due, orders, projects
from jobs.files import RunFiles
from jobs.runs import Runs, Shard
from jobs.trainings import Trainings


class _Photos:
    """Image files from memory, as the embedder wants them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def fetch(self, value: str) -> bytes:
        if value not in self._files:
            raise ImageError("not_found", "There is no such photo.")
        return self._files[value]


def fill_store(runtime: Any, files: Mapping[str, bytes]) -> None:
    """Embed images, given by what stands in the tasks' data."""
    embedder = Embedder(runtime.settings, runtime.encoder, runtime.store, _Photos(files))
    filled = embedder.fill(list(files))
    assert not filled.failures


def finish_store(runtime: Any, xml: str, key: str, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Freeze a project's statistics, and keep snapshots and images of its tasks."""
    config = parse_config(xml)
    assert runtime.predictor.freeze_statistics(config, key, tasks, seconds=0)
    Memory(runtime.store, key).labels_since(config, 1000.0)
    remember(runtime, xml, key, tasks)


def remember(runtime: Any, xml: str, key: str, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Keep snapshots of predictions, and which images belong to the tasks."""
    scorer = runtime.predictor.scorer(parse_config(xml), key)
    made = runtime.predictor.predict(scorer, tasks)
    runtime.snapshots.add(key, made)
    addresses = [(one.task, runtime.embedder.address(i)) for one in made for i in one.images]
    runtime.snapshots.tie(key, addresses)


def serve_head(runtime: Any, key: str, name: str) -> None:
    """Accept a set of heads and let it serve."""
    runtime.predictor.heads.accept(key, name)
    runtime.predictor.heads.serve(key, name)


def set_known_field(runtime: Any, key: str, field: str) -> None:
    """Set the field of labels known beforehand."""
    Memory(runtime.store, key).set_known_field(field)


def save_table(runtime: Any) -> None:
    """Keep a probability table that is a little different from the shipped one."""
    table = runtime.predictor.table()
    runtime.predictor.save_table(replace(table, spread=table.spread * 0.9))


def write_run_files(
    runtime: Any, run_id: str, xml: str, key: str, tasks: Sequence[dict[str, Any]]
) -> None:
    """Keep what a run keeps: config, a shard's tasks, and predictions made ahead."""
    files = RunFiles(runtime.store, run_id)
    files.write_config(xml)
    files.write_tasks(0, tasks)
    scorer = runtime.predictor.scorer(parse_config(xml), key)
    made = runtime.predictor.predict(scorer, tasks)
    files.write_predictions(0, scorer.model_version, made)


def start_run(connection: Redis, project: int, only: str, asked_by: str, head: str = "") -> str:
    """Ask for a run; its id."""
    return orders.start(Runs(connection), project, only, asked_by, head)[0].id


def cancel_run(connection: Redis, run_id: str) -> None:
    """Cancel a run."""
    run = Runs(connection).get(run_id)
    assert run is not None
    orders.cancel(Runs(connection), run)


def begin_embedding(connection: Redis, run_id: str, why: Mapping[int, Mapping[str, str]]) -> None:
    """Bring a run into the middle of its work, by the calls that its jobs make."""
    runs = Runs(connection)
    runs.move(run_id, "listing", waits_for="")
    runs.note(
        run_id,
        config="0123456789abcdef",
        key="7.1795416973",
        encoder="golden-encoder",
        planned_version="golden-z-00000000",
        model_version="golden-z-00000000",
        left_out=3,
    )
    for number in range(3):
        runs.add_shard(run_id, Shard(number, 16))
        runs.note(run_id, listed=16 * (number + 1))
        orders.enqueue_shard(runs, run_id, number)
    runs.move(run_id, "embedding")
    runs.progress(run_id, Shard(0, 16, 10, 5, 1, True))
    runs.progress(run_id, Shard(1, 16, 4, 0, 0))
    runs.record_failures(run_id, why)
    for _ in range(2):
        runs.count_attempt(run_id, orders.shard_id(run_id, 1))
    runs.not_before(run_id, orders.shard_id(run_id, 1), 4102444800.0)
    runs.hold(run_id, 1, "http://photos.test/deadly.jpg")
    runs.deadly(run_id, 1)
    runs.hold(run_id, 2, "http://photos.test/held.jpg")
    runs.note(run_id, waits_for="Label Studio does not answer.", sending=9, sent_to=4)


def fill_trainings(connection: Redis) -> None:
    """A training that has ended, one that is asked for, and what is due."""
    trainings = Trainings(connection)
    trainings.ask(1)
    trainings.queued(1)
    trainings.begin(1)
    told = {"head": "h1", "enough": 25, "candidate": "h1", "run": "", "notes": ("a", "b")}
    trainings.end(1, "accepted", "no worse", **told)
    trainings.note(1, refreshed=1795416999.5, looked="['x'] 36 36")
    trainings.heard(1, 7)
    trainings.heard(8, 4)
    orders.ask_for_training(trainings, 8)
    trainings.count_attempt(8)
    trainings.note(8, not_before=4102444800.0, waits_for="Label Studio does not answer.")
    kinds = (due.TRAIN, due.LATE, due.FORCED, due.PREDICT, due.REFRESH, due.RECONCILE)
    for number, kind in enumerate(kinds):
        due.add(connection, kind, 1, 4102444800.0 + number)
    due.add(connection, due.RECONCILE, 8, 4102444900.0)
    due.known(connection)
    projects.set_config(connection, 7, "0123456789abcdef")
    projects.set_current(connection, 7, "golden-z-00000000")
