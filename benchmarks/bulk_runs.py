"""Whole runs through a worker against the same machine without us; used by benchmarks/bulk.py.

Each function measures both sides in one call and gives the rows of a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import requests

from backend.demo.servers import LocalCommand
from backend.encoders.base import Encoder
from backend.encoders.registry import get_encoder
from backend.evaluation.machine import cores
from backend.images.decode import decode
from backend.inference.embedder import Embedder
from backend.settings import Settings
from backend.storage.installations import open_store
from backend.storage.vectors import Embedding, NewEmbedding, content_key
from benchmarks.bulk_servers import (
    Meter,
    PeakMemory,
    Servers,
    address,
    ratio,
    worker_process,
)
from benchmarks.bulk_stages import SAMPLE, Stages, batches
from jobs import queue
from jobs.enqueue import start_run
from jobs.polling import wait
from jobs.run import Run, RunState, Scope, Trigger
from jobs.run_store import RunStore

Row = dict[str, Any]
OTHER_THRESHOLD = 0.31
"""Any value but the default: the model version changes with it, and no embedding does."""
COPIES = 10
"""Addresses of each photo where there are more tasks than photos."""
LISTING: dict[str, str | int] = {
    "fields": "all",
    "include": "id,data,total_annotations",
    "page_size": 2000,
}
"""The query with which `LabelStudioClient.tasks` lists them."""
NOISE = 0.02
"""Relative noise on made-up embeddings, so that no two are equal."""


def run_through(
    settings: Settings, project: int, progress: Callable[[Run], None] = lambda run: None
) -> Run:
    """A run from its request to visible predictions, by a worker that listens.

    Args:
        settings: of the worker.
        project: id of the project.
        progress: called about twice a second with the state of the run.

    Raises:
        RuntimeError: the run failed, or left tasks out.
    """
    runs = RunStore(queue.connect(settings))
    run, _ = start_run(runs, project, Scope.MISSING, Trigger.CLI)
    return _good(wait(runs, run.id, progress))


def _good(run: Run) -> Run:
    if run.state != RunState.DONE or run.failed:
        raise RuntimeError(f"The run ended as {run.state}, {run.failed} tasks failed: {run.error}")
    return run


def wall(run: Run) -> float:
    """Seconds from the request to visible predictions."""
    return run.ended - run.created


# End to end


def end_to_end(servers: Servers, stages: Stages) -> tuple[list[Row], str]:
    """Runs over all photos, through Label Studio and from the disk, against the stages."""
    fetched = _whole_run(servers, servers.with_store("end-to-end"))
    disk = servers.with_store("end-to-end-disk", local_files_root=str(servers.files))
    read = _whole_run(servers, disk)
    encoder = get_encoder(disk)
    alone, filled = _from_disk(servers, disk, encoder)
    possible = cores() / sum(stage.used.total for stage in (stages.disk, *stages.stages[1:3]))
    rows = [
        *_against(fetched, stages.core_seconds, ""),
        *_against(read, stages.core_seconds_from_disk, ", from the disk"),
        _speed("the encoder alone, in this process", alone, 1.0),
        _speed("the cores allow, reading, decoding and encoding", possible, possible / alone),
        _speed("the same without a worker, in this process", filled, filled / possible, "0.95"),
    ]
    note = (
        f"{len(servers.names)} photos. CPU seconds per image: {fetched.told(stages.core_seconds)}; "
        f"from the disk {read.told(stages.core_seconds_from_disk)}. In the last three rows the "
        f"shares are of the encoder alone, and of what is possible."
    )
    return rows, note


@dataclass(frozen=True)
class _Whole:
    """A whole run, and what was used meanwhile: CPU seconds by process, cores of others."""

    run: Run
    photos: int
    cpu: Mapping[str, float]
    others: float

    def told(self, floor: float) -> str:
        """Its CPU seconds, in words."""
        shares = {name: 1000 * seconds / self.photos for name, seconds in self.cpu.items()}
        return (
            f"{sum(shares.values()):.1f} ms in the run of {wall(self.run):.1f} s (worker "
            f"{shares['worker']:.1f}, Label Studio {shares['studio']:.1f}, Valkey "
            f"{shares['queue']:.1f}), {1000 * floor:.1f} ms by the sum of the stages, while other "
            f"programs took {self.others:.2f} cores"
        )


def _whole_run(servers: Servers, settings: Settings) -> _Whole:
    number, _ = servers.project([address(name) for name in servers.names])
    with (
        servers.worker(settings) as worker,
        Meter(worker=worker, studio=servers.label_studio, queue=servers.valkey) as meter,
    ):
        run = run_through(settings, number)
    cpu = {**meter.cpu, "asking": meter.own}
    return _Whole(run, len(servers.names), cpu, meter.others)


def _against(whole: _Whole, floor: float, way: str) -> list[Row]:
    """The rows of a run beside what the cores allow by the sum of the stages."""
    allowed, free = cores() / floor, (cores() - whole.others) / floor
    speed, embedding = whole.photos / wall(whole.run), whole.run.images_per_second
    return [
        _speed(f"the cores allow by the sum of the stages{way}", allowed, 1.0),
        _speed(f"a run, from asking to showing{way}", speed, speed / allowed, "0.95"),
        _speed(f"the same, of what others left free{way}", speed, speed / free),
        _speed(f"while it embeds{way}", embedding, embedding / allowed),
    ]


def _speed(what: str, speed: float, share: float, goal: str = "") -> Row:
    return {"what": what, "images/s": f"{speed:.1f}", "share": ratio(share, goal)}


def _from_disk(servers: Servers, settings: Settings, encoder: Encoder) -> tuple[float, float]:
    """Images/s of the encoder alone (mean of before and after), and of `Embedder.fill`."""
    names = servers.names[:SAMPLE]
    prepared = [
        encoder.prepare(decode(servers.read(address(name)), settings.max_image_pixels))
        for name in names
    ]
    parts = [*batches(prepared, encoder.batch_size)]
    encoder.encode_prepared(parts[0])

    def alone() -> float:
        with Meter() as meter:
            for part in parts:
                encoder.encode_prepared(part)
        return meter.seconds

    fresh = servers.with_store("disk")
    embedder = Embedder(fresh, encoder, open_store(fresh), servers.local_files())
    before = alone()
    with Meter() as meter:
        filled = embedder.fill([address(name) for name in servers.names])
    if filled.failures:
        raise RuntimeError(f"{len(filled.failures)} photos could not be embedded from the disk.")
    return 2 * len(names) / (before + alone()), len(servers.names) / meter.seconds


# Memory


def memory(servers: Servers, sizes: Sequence[int]) -> tuple[list[Row], str]:
    """Peak memory and CPU seconds of a fresh worker for few and for many tasks.

    Both have `COPIES` addresses of each photo, so that both encode the same share of their tasks.
    """
    rows: list[Row] = []
    peaks, others = [], []
    for size in sizes:
        photos = servers.names[: max(1, size // COPIES)]
        copies = -(-size // len(photos))
        values = [address(name, copy) for copy in range(copies) for name in photos][:size]
        settings = servers.with_store(f"memory-{size}")
        number, _ = servers.project(values)
        with (
            servers.worker(settings) as worker,
            PeakMemory(worker_process(worker)) as seen,
            Meter(worker=worker, studio=servers.label_studio) as meter,
        ):
            run = run_through(settings, number, lambda now: seen.enter(now.state))
        known = open_store(settings).vectors.keys_of(
            settings.label_studio_url + value for value in values
        )
        if len(known) != size or len(set(known.values())) != len(photos):
            raise RuntimeError("Copies were to be other addresses with the same content.")
        peaks.append(seen.peak)
        others.append(meter.others)
        rows.append(
            {
                "tasks": size,
                "photos": len(photos),
                "seconds": f"{wall(run):.0f}",
                "memory before, MB": f"{seen.start / 1e6:.0f}",
                "embedding": f"{seen.peaks.get(RunState.EMBEDDING, 0) / 1e6:.0f}",
                "importing": f"{seen.peaks.get(RunState.IMPORTING, 0) / 1e6:.0f}",
                "peak, MB": f"{seen.peak / 1e6:.0f}",
                "peak / smallest run's": ratio(seen.peak / peaks[0]),
                "worker CPU s per 1,000 tasks": f"{1000 * meter.cpu['worker'] / size:.1f}",
                "Label Studio CPU s per 1,000": f"{1000 * meter.cpu['studio'] / size:.1f}",
            }
        )
    growth = (peaks[-1] - peaks[0]) / 1e6
    per_task = [float(row["worker CPU s per 1,000 tasks"]) for row in rows]
    note = (
        f"The peak grows by {growth:.0f} MB (goal: less than 200) and the worker's CPU seconds by "
        f"task to {per_task[-1] / per_task[0]:.2f} of the smallest run's (goal: no more than 1). "
        f"Each photo has {COPIES} addresses, which Label Studio serves one by one; a photo is "
        f"encoded once. Other programs took {max(others):.2f} cores meanwhile."
    )
    return rows, note


# A large project


def large(servers: Servers, count: int) -> tuple[list[Row], str]:
    """A project whose images are all embedded, against the same listing and import by requests."""
    settings = servers.with_store("large")
    encoder = get_encoder(settings)
    values = [address(servers.names[i % len(servers.names)], i) for i in range(count)]
    _make_up(servers, settings, encoder, values)
    mine, _ = servers.project(values)
    theirs, tasks = servers.project(values)
    rows: list[Row] = []
    notes = []
    for what, threshold in (("first version", None), ("a new version", OTHER_THRESHOLD)):
        changed = settings.model_copy(update={"threshold": threshold})
        with (
            servers.worker(changed) as worker,
            Meter(worker=worker, studio=servers.label_studio, queue=servers.valkey) as meter,
        ):
            run, phases, seconds = _command(servers, changed, mine)
            if run.embedded or run.imported != count:
                raise RuntimeError(f"{run.embedded} encoded, {run.imported} of {count} imported.")
        items = [item for item in servers.studio.predictions.of_project(mine) if _is_of(item, run)]
        order = sorted(items, key=lambda item: item["task"])
        payload = [
            {"task": task, **{name: item[name] for name in ("model_version", "score", "result")}}
            for task, item in zip(tasks, order, strict=True)
        ]
        listing, importing = _directly(servers, theirs, payload)
        direct = listing + importing
        goal = "at most 1.25" if threshold is not None else ""
        rows += [
            {"what": f"{what}: by requests alone", "seconds": f"{direct:.1f}", "ratio": ratio(1.0)},
            {
                "what": f"{what}: ls-clip predict --wait",
                "seconds": f"{seconds:.1f}",
                "ratio": ratio(seconds / direct, goal),
            },
        ]
        notes.append(
            f"{what}: by requests listing {listing:.1f} s and import {importing:.1f} s; the "
            f"command's phases: {phases}; CPU seconds meanwhile: worker {meter.cpu['worker']:.1f}, "
            f"Label Studio {meter.cpu['studio']:.1f}; the command itself and other programs took "
            f"{meter.others:.2f} cores"
        )
    return rows, f"{count} tasks. " + "; ".join(notes) + "."


def _is_of(item: dict[str, Any], run: Run) -> bool:
    return bool(item["model_version"] == run.model_version)


def _make_up(servers: Servers, settings: Settings, encoder: Encoder, values: Sequence[str]) -> None:
    """Store an embedding for each address, all different, in batches as a run stores them."""
    store = open_store(settings)
    photos = servers.names[:64]
    pixels = [decode(servers.read(address(name)), settings.max_image_pixels) for name in photos]
    encoded = encoder.encode_images(pixels)
    chance = np.random.default_rng(0)
    for part in batches([*enumerate(values)], encoder.batch_size):
        rows = []
        for index, value in part:
            at = index % len(photos)
            regions = None if encoded.regions is None else encoded.regions[at]
            embedding = Embedding.of(
                _near(encoded.image[at], chance),
                None if regions is None else _near(regions, chance),
            )
            key = content_key(value.encode())
            rows.append(NewEmbedding(settings.label_studio_url + value, key, embedding))
        store.vectors.add(encoder.id, encoder.dim, rows)


def _near(rows: np.ndarray[Any, Any], chance: np.random.Generator) -> np.ndarray[Any, Any]:
    noisy: np.ndarray[Any, Any] = rows + NOISE * chance.standard_normal(rows.shape) / np.sqrt(
        rows.shape[-1]
    )
    noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
    return noisy


def _command(servers: Servers, settings: Settings, project: int) -> tuple[Run, str, float]:
    """``ls-clip predict --wait``: its run, the time in each state as text, and all seconds."""
    runs = RunStore(queue.connect(settings))
    known = {run.id for run in runs.of_project(project)}
    since: dict[str, float] = {"start": time.perf_counter()}
    log = servers.folder / "predict.log"
    with LocalCommand(settings, log, "predict", str(project), "--wait") as command:
        while command.running:
            for run in islice(runs.of_project(project), 1):
                if run.id not in known:
                    since.setdefault(run.state, time.perf_counter())
            time.sleep(0.05)
    since["end"] = time.perf_counter()
    run = _good(runs.of_project(project)[0])
    names, moments = [*since], [*since.values()]
    phases = zip(names, moments, moments[1:], strict=False)
    durations = ", ".join(f"{name} {until - at:.1f} s" for name, at, until in phases)
    return run, durations, moments[-1] - moments[0]


def _directly(servers: Servers, project: int, payload: Sequence[Row]) -> tuple[float, float]:
    """Seconds that Label Studio takes to list the tasks, and to import these predictions."""
    url = servers.settings.label_studio_url
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(servers.studio.headers())
        started = time.perf_counter()
        page, seen = 1, 0
        while True:
            query = {**LISTING, "project": project, "page": page}
            answer = session.get(f"{url}/api/tasks/", params=query, timeout=600)
            answer.raise_for_status()
            content = answer.json()
            seen += len(content["tasks"])
            if seen >= content["total"]:
                break
            page += 1
        listed = time.perf_counter()
        answer = session.post(
            f"{url}/api/projects/{project}/import/predictions", json=[*payload], timeout=600
        )
        answer.raise_for_status()
        if answer.json()["created"] != len(payload):
            raise RuntimeError("Label Studio dropped predictions that were sent directly.")
    return listed - started, time.perf_counter() - listed
