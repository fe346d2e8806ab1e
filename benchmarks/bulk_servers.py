"""What benchmarks/bulk.py needs: real servers in a temporary folder, projects, and meters."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.sax.saxutils import quoteattr

import psutil

from backend.demo.servers import VERSION, LocalStudio, LocalValkey, LocalWorker, new_secret
from backend.evaluation.machine import cores, cpu_model, software
from backend.images.fetcher import ImageFetcher
from backend.images.local_files import LocalFiles
from backend.images.validators import FetchedFile, Validators
from backend.labelstudio.client import LabelStudioClient
from backend.processes import LocalProcess, free_port
from backend.settings import Settings, load_settings
from jobs import queue

FOLDER = "images"
GONE_SECONDS = 45.0
"""Wait this long for a stopped worker to leave the queue's list."""


class Servers:
    """A Label Studio, a Valkey and photos below one folder; a context manager.

    Args:
        folder: empty; the caller deletes it.
        photos: files that are copied there and served as local files.
        labels: of the projects that `project` creates.
    """

    def __init__(self, folder: Path, photos: Sequence[Path], labels: Sequence[str]) -> None:
        self.folder = folder
        self.names = [photo.name for photo in photos]
        self.config = _config(labels)
        self._stack = ExitStack()
        images = self.files / FOLDER
        images.mkdir(parents=True)
        for photo in photos:
            shutil.copy(photo, images)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            token = new_secret()
            port = free_port(18800)
            self.label_studio = stack.enter_context(
                LocalStudio(
                    self.folder / "label-studio",
                    port,
                    email="bulk@example.com",
                    password=new_secret(),
                    token=token,
                    photos=self.files,
                )
            )
            self.valkey = stack.enter_context(
                LocalValkey(self.folder / "valkey", free_port(16800, taken=[port]))
            )
            self.settings = load_settings(
                label_studio_url=self.label_studio.url,
                label_studio_api_key=token,
                encoder="offline",
                # bfloat16 would be emulated, and slow, on hardware without it.
                precision="float32",
                store=str(self.folder / "store"),
                redis_url=self.valkey.url,
            )
            self.valkey.wait()
            self.label_studio.wait()
            self.studio = LabelStudioClient(self.settings)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def with_store(self, name: str, **changes: Any) -> Settings:
        """The settings with a store of this name and with other changes."""
        return self.settings.model_copy(update={"store": str(self.folder / name), **changes})

    @contextmanager
    def worker(self, settings: Settings) -> Iterator[LocalWorker]:
        """A worker that has loaded its encoder and listens to the queue."""
        connection = queue.connect(settings)
        log = self.folder / "worker.log"
        with LocalWorker(settings, log, "--queues", queue.PREDICT) as worker:
            worker.wait()
            yield worker
        # The next worker must not be mistaken for this one.
        deadline = time.monotonic() + GONE_SECONDS
        while queue.workers(connection, queue.PREDICT) and time.monotonic() < deadline:
            time.sleep(0.5)

    def project(self, addresses: Sequence[str]) -> tuple[int, list[int]]:
        """Create a project with one task per address: its id, and the ids of its tasks."""
        number = int(self.studio.projects.create("bulk", self.config)["id"])
        self.studio.projects.add_local_files(number, str(self.files / FOLDER))
        tasks = [{"data": {"image": address}} for address in addresses]
        return number, self.studio.tasks.create(number, tasks)

    @property
    def files(self) -> Path:
        """The folder that Label Studio serves local files from."""
        return self.folder / "files"

    def local_files(self) -> LocalFiles:
        """Reads the photos as a process does that shares Label Studio's disk."""
        settings = self.settings.model_copy(update={"local_files_root": str(self.files)})
        return LocalFiles(settings, ImageFetcher(settings, self.studio.headers))

    def read(self, value: str) -> bytes:
        """The bytes of the photo at an `address`, from the disk."""
        name = value.partition("?d=")[2].partition("&")[0]
        return (self.files / name).read_bytes()


class Disk:
    """An `embedder.Source` that reads the same addresses from the disk."""

    def __init__(self, servers: Servers) -> None:
        self._read = servers.read

    def fetch_file(self, value: str, known: Validators) -> FetchedFile:
        """The photo at this address."""
        return FetchedFile(self._read(value))


def address(name: str, copy: int | None = None) -> str:
    """Where Label Studio serves a photo; a copy is another address with the same content."""
    return f"/data/local-files/?d={FOLDER}/{name}" + ("" if copy is None else f"&copy={copy}")


def _config(labels: Sequence[str]) -> str:
    """The labeling config that comes with the plugin and shows probabilities, with these labels."""
    text = files("plugin_config").joinpath("beside-the-image.xml").read_text()
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    return text[: text.index("<Choice value=")] + choices + text[text.rindex("</Choices>") :]


# Meters


def process_of(server: LocalProcess) -> psutil.Process:
    """The process of a server that was started here."""
    return psutil.Process(server._process.pid)


def worker_process(server: LocalProcess) -> psutil.Process:
    """The process below a worker's supervisor that holds the encoder."""
    for child in process_of(server).children(recursive=True):
        if "jobs.worker" in child.cmdline():
            return child
    raise RuntimeError("The worker has no child process.")


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and all its descendants, including those that have ended."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            total += sum(member.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


class Meter:
    """Wall time and CPU seconds of the code in its ``with`` block.

    Attributes:
        seconds: on the wall clock.
        own: CPU seconds of this process.
        cpu: CPU seconds of each server.
        others: mean number of cores that were busy with anything else.

    Args:
        servers: name -> process that we started.
    """

    def __init__(self, **servers: LocalProcess) -> None:
        self._servers = {name: process_of(server) for name, server in servers.items()}

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        wall, own, busy, cpu = self._now()
        self.seconds = wall - self._before[0]
        self.own = own - self._before[1]
        self.cpu = {name: value - self._before[3][name] for name, value in cpu.items()}
        rest = busy - self._before[2] - self.own - sum(self.cpu.values())
        self.others = max(0.0, rest) / self.seconds

    def _now(self) -> tuple[float, float, float, dict[str, float]]:
        times = psutil.cpu_times()
        # Linux counts guests as user time too.
        busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq"))
        busy += getattr(times, "softirq", 0.0) + getattr(times, "steal", 0.0)
        cpu = {name: cpu_of(process) for name, process in self._servers.items()}
        return time.perf_counter(), time.process_time(), busy, cpu


class PeakMemory:
    """The largest resident set of a process during a ``with`` block, by 20 samples a second.

    Attributes:
        start: bytes at the start.
        peaks: phase (see `enter`) -> bytes.

    Args:
        process: to watch.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def peak(self) -> int:
        """Bytes, over all phases."""
        return max(self.start, *self.peaks.values())

    def enter(self, phase: str) -> None:
        """Start a phase of this name."""
        self._phase = phase

    def __enter__(self) -> Self:
        self.start = self._process.memory_info().rss
        self._phase, self.peaks = "", {"": self.start}
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            now = self._process.memory_info().rss
            self.peaks[self._phase] = max(now, self.peaks.get(self._phase, 0))


def machine() -> str:
    """The machine and versions that the figures were measured on, in one line."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{cores()} cores of {cpu_model()}, {memory:.0f} GiB of RAM, {software()}, "
        f"Label Studio {VERSION} on SQLite; {time.strftime('%Y-%m-%d')}"
    )


def ratio(value: float, goal: str = "") -> str:
    """A ratio for a table, with its goal."""
    digits = 0 if value >= 20 else 1 if value >= 5 else 2
    return f"{value:.{digits}f}" + (f" (goal {goal})" if goal else "")
