"""All that the golden tests know of the project's modules: after a refactor only this changes.

Every function takes and gives plain values (or objects that the tests only pass on), so that the
other files of this folder name no module, class or function of the project.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from redis import Redis
from rq.serializers import JSONSerializer

from backend.cli import main as cli
from backend.demo.photos import LABELS, make_photos
from backend.demo.servers import LocalValkey
from backend.errors import LabelConfigError
from backend.inference.predictor import Predictor
from backend.labels.config import parse_config
from backend.labels.controls import content_of
from backend.runtime import Runtime
from backend.server import settings_comparison
from backend.server.app import create_app
from backend.settings import Settings
from backend.storage.head_registry import HeadRegistry
from backend.storage.installations import open_store
from backend.storage.project_state import ProjectState
from backend.training.approvals import Approval
from backend.training.head_trainer import HeadTrainer
from backend.training.pulling import Pulled
from backend.vlpl.decisions import NEGATIVE, POSITIVE, UNKNOWN, Provenance
from jobs import enqueue, queue, schedule
from jobs.run_files import RunFiles
from jobs.run_store import RunStore
from jobs.schedule import Kind
from jobs.training_state import TrainingStore
from jobs.worker import ClipWorker
from tests.support.commands import run_command

DEMO_LABELS: tuple[str, ...] = tuple(LABELS)
OUR_VARIABLES = ("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_", "REDIS_URL")


# Labeling configs


def parsed_config(xml: str) -> dict[str, Any]:
    """Everything that is read from a labeling config, or the error."""
    try:
        config = parse_config(xml)
    except LabelConfigError as error:
        return {"error": error.as_dict()}
    found: dict[str, Any] = {
        "controls": [_control(control) for control in config.controls],
        "evidence": None if config.evidence is None else list(config.evidence),
        "skipped": list(config.skipped),
        "digest": config.digest,
        "refused": None,
    }
    try:
        config.require_controls()
    except LabelConfigError as error:
        found["refused"] = error.as_dict()
    return found


def controls_for_task(xml: str, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The controls of a config with the labels that a task's data brings along."""
    config = parse_config(xml)
    return [_control(control.for_task(data)) for control in config.controls]


def _control(control: Any) -> dict[str, Any]:
    found = content_of(control)
    for label, content in zip(control.labels, found["labels"], strict=True):
        content["key"] = label.key
        content["stored"] = control.result_value([label])
    return found


# Store, scores, heads


INSTALLATION = "golden"


def make_settings(store: Path, **values: Any) -> Any:
    """Settings of a test: offline encoder, no network, no blind tasks unless asked for."""
    given = {"encoder": "offline", "offline": True, "store": str(store), "blind_share": 0.0}
    given |= {"label_studio_url": "http://studio.test:8080", "installation": INSTALLATION}
    return Settings(_env_file=None, **{**given, **values})


def make_runtime(store: Path, **values: Any) -> Any:
    """What predicts, with the store in this folder."""
    return Runtime(make_settings(store, **values))


def copy_store(source: Path, target: Path) -> Path:
    """A copy of a store, which may be written to."""
    shutil.copytree(source, target)
    return target


def predict(
    runtime: Any, xml: str, key: str, tasks: Sequence[Mapping[str, Any]], head: str | None = None
) -> list[dict[str, Any]]:
    """Predictions of tasks, with all that is known about each."""
    version = runtime.versions.get(parse_config(xml), key, head)
    return [
        {
            "task": one.task,
            "item": one.as_item(),
            "import": one.as_import(),
            "probabilities": one.probabilities,
            "images": list(one.images),
            "blind": one.blind,
            "failure": None if one.failure is None else [one.failure.reason, one.failure.as_dict()],
        }
        for one in Predictor(version, runtime.embedder).predict(tasks)
    ]


def version(runtime: Any, xml: str, key: str) -> str:
    """The model version that predicts."""
    name: str = runtime.versions.get(parse_config(xml), key).name
    return name


def heads(store: Path, key: str) -> dict[str, Any]:
    """A project's sets of heads and which of them serves."""
    kept = HeadRegistry(open_store(make_settings(store)))
    found = [kept.get(key, name) for name in kept.names(key)]
    return {
        "names": kept.names(key),
        "next": kept.next_name(key),
        "serving": kept.serving(key),
        "history": kept.history(key),
        "accepted": kept.candidate(key),
        "is_back": kept.rolled_back(key),
        "sets": [one.summary() for one in found],
        "digests": [{name: c.digest for name, c in one.controls.items()} for one in found],
        "cards": [{n: asdict(c.head.card) for n, c in one.controls.items()} for one in found],
        "thresholds": [{n: list(c.thresholds) for n, c in one.controls.items()} for one in found],
    }


def snapshots(runtime: Any, key: str, tasks: Sequence[int]) -> list[dict[str, Any]]:
    """What tasks were shown, by task and version."""
    found = runtime.prediction_log.of_tasks(key, tasks)
    rows = [asdict(found[one]) for one in sorted(found)]
    return [{name: value for name, value in row.items() if name != "shown_at"} for row in rows]


def keeps(runtime: Any, key: str, tasks: Sequence[int]) -> bool:
    """Whether anything is kept of these tasks."""
    answer: bool = runtime.prediction_log.has(key, tasks)
    return answer


def memory(store: Path, key: str, xml: str) -> dict[str, Any]:
    """What is remembered about a project besides its heads."""
    of = ProjectState(open_store(make_settings(store)), key)
    tasks, made_from = of.trained_on()
    return {
        "known_field": of.known_field(),
        "trained_on": {str(task): what for task, what in sorted(tasks.items())},
        "made_from": made_from,
        "labels_since": of.labels_since(parse_config(xml).label_keys(), 5e9),
    }


def stored(runtime: Any, values: Sequence[str]) -> dict[str, Any]:
    """Whether the store has these images, and the encoder and the table for it."""
    return {
        "encoder": runtime.encoder.id,
        "there": {value: runtime.embedder.needs_nothing([value]) for value in values},
        "addresses": {value: runtime.embedder.address(value) for value in values},
        "table": runtime.versions.table().as_dict(),
    }


def run_files(store: Path, run_id: str, shard: int, model_version: str) -> dict[str, Any]:
    """What a run keeps in the store: its config, and a shard's tasks and predictions."""
    files = RunFiles(open_store(make_settings(store)).artifacts, run_id)
    made = files.predictions(shard, model_version)
    return {
        "digest": files.config().digest,
        "tasks": files.tasks(shard),
        "predictions": {str(task): one.as_import() for task, one in made.items()},
        "blind": {str(task): one.blind for task, one in made.items()},
    }


def train(
    runtime: Any, xml: str, key: str, truth: Mapping[int, Mapping[str, Any]], provenance: str
) -> dict[str, Any]:
    """Train heads of the config's first control on simulated approvals.

    Args:
        runtime: from `make_runtime`.
        xml: the labeling config.
        key: the project.
        truth: task id -> its data, with the true labels as ``labels``.
        provenance: how people reviewed; ``imported`` leaves what is not named unknown.
    """
    config = parse_config(xml)
    control = config.controls[0]
    absent = UNKNOWN if provenance == "imported" else NEGATIVE
    approvals = [
        Approval(
            task,
            tuple(POSITIVE if one.key in data["labels"] else absent for one in control.labels),
            Provenance(provenance),
            1.0,
        )
        for task, data in truth.items()
    ]
    pulled = Pulled(key, config, {control.name: approvals}, dict(truth))
    trainer = HeadTrainer(runtime.settings, mock.Mock(), runtime.versions, runtime.embedder)
    made = trainer.train(pulled)
    if made.made is not None:
        ProjectState(runtime.store, key).set_trained_on(pulled.reviewed, trainer.made_from(pulled))
    told = None if made.made is None else made.made.summary()
    return {"made": told, "reason": made.reason, "notes": list(made.notes)}


def demo_photos(folder: Path, count: int) -> list[tuple[Path, tuple[str, ...]]]:
    """Write the demo's photos; (file, its labels)."""
    return [(folder / one.file, one.labels) for one in make_photos(folder, count)]


# HTTP


def create_client(runtime: Any) -> Any:
    """A client of the web application."""
    return create_app(runtime).test_client()


def digests(settings: Any, salt: str) -> dict[str, str]:
    """What /compare is asked with."""
    return settings_comparison.digests(settings, salt)


# Queue


@contextmanager
def valkey(folder: Path, port: int) -> Iterator[str]:
    """A real Valkey; its URL."""
    with LocalValkey(folder, port) as server:
        server.wait()
        yield server.url


def all_runs(connection: Redis, project: int) -> list[dict[str, Any]]:
    """A project's runs, newest first, with all that is kept of each."""
    runs = RunStore(connection)
    return [
        {
            "fields": {**_fields(one, {"first_image", "last_image"}), "working": one.working},
            "told": one.as_dict(),
            "shards": [vars(shard) for shard in runs.shards(one.id)],
            "failures": {str(task): why for task, why in runs.failures(one.id).items()},
            "attempts": {
                job: runs.attempts(one.id, job)
                for job in (
                    enqueue.plan_id(one.id),
                    enqueue.shard_id(one.id, 1),
                    enqueue.finish_id(one.id),
                )
            },
            "not_before": runs.not_before(one.id, enqueue.shard_id(one.id, 1)),
            "found_by_prefix": runs.require(project, one.id[:9]).id == one.id,
        }
        for one in runs.of_project(project)
    ]


def active_runs(connection: Redis) -> list[str]:
    """Ids of the runs that have not ended."""
    return sorted(run.id for run in RunStore(connection).active())


def deadly(connection: Redis, run_id: str, shard: int) -> list[str]:
    """The images that killed workers."""
    return sorted(RunStore(connection).deadly(run_id, shard))


def training(connection: Redis, project: int) -> dict[str, Any]:
    """How a project's training stands."""
    now = TrainingStore(connection).get(project)
    return {"fields": _fields(now, {"answers", "taken"}), "told": now.as_dict()}


def _fields(record: Any, ignored: set[str]) -> dict[str, Any]:
    """Name in Redis -> value of all that is read from a record."""
    names = {name: field.alias or name for name, field in type(record).model_fields.items()}
    found = {names[name]: value for name, value in vars(record).items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if name not in ignored
    }


def active_trainings(connection: Redis) -> list[int]:
    """Projects whose training is queued or going on."""
    return TrainingStore(connection).active()


def due_moments(connection: Redis, project: int) -> dict[str, float]:
    """Kind -> when it is due, of a project."""
    found = {kind: schedule.moment(connection, kind, project) for kind in Kind}
    return {kind: moment for kind, moment in found.items() if moment is not None}


def due_is_known(connection: Redis) -> bool:
    """Whether Redis still has what is due."""
    return schedule.is_known(connection)


def current_config(connection: Redis, project: int) -> str:
    """Digest of the config that a project is predicted for."""
    return RunStore(connection).current_config(project)


def connect(url: str) -> Redis:
    """A connection with the keys of the recordings' installation."""
    return queue.connect(make_settings(Path("store"), redis_url=url))


def waiting_jobs(connection: Redis) -> dict[str, list[str]]:
    """Queue -> ids of the jobs that wait."""
    return {
        name: list(queue.queue(connection, name).get_job_ids())
        for name in (queue.PREDICT, queue.TRAIN)
    }


def runnable() -> list[str]:
    """Names of jobs, as they stand in the queue, that a worker runs."""
    return sorted(enqueue.FUNCTIONS)


def waiting_functions(connection: Redis) -> list[str]:
    """Names of the functions that waiting jobs call."""
    found = set()
    for name in (queue.PREDICT, queue.TRAIN):
        found |= {job.func_name for job in queue.queue(connection, name).get_jobs()}
    return sorted(found)


def work(runtime: Any, connection: Redis, *names: str) -> None:
    """Do all jobs that wait in these queues, in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        for module in ("jobs.predict_job", "jobs.train_job"):
            stack.enter_context(mock.patch(f"{module}.process_runtime", lambda: runtime))
        waiting = [queue.queue(connection, name) for name in names]
        worker = ClipWorker(waiting, connection=connection, serializer=JSONSerializer)
        worker.work(burst=True, logging_level="WARNING")
    for number, handler in before.items():
        signal.signal(number, handler)


# Commands


def commands() -> list[str]:
    """Names of all commands."""
    group: Any = typer.main.get_command(cli.app)
    return sorted(group.commands)


def command(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run ``ls-clip`` in this process: exit code, standard output, standard error.

    Args:
        folder: working directory; locks are kept there too.
        arguments: of the command line.
        variables: environment variables; others of ours are not seen.
    """
    given = {"COLUMNS": "100", "LINES": "50", "TERM": "dumb", **variables}
    with mock.patch("backend.projects.connect.WORKER_SECONDS", 0.0):
        return run_command(*arguments, cwd=folder, **given)
