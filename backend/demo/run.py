"""The demo: a real Label Studio, the backend, a worker, and a project of photos filled by a run."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from rich.console import Console

from backend.demo.annotator import (
    MEASURING,
    TEST_TASKS,
    Measured,
    measure,
    measurement_table,
    simulate,
)
from backend.demo.photos import DemoPhoto, make_photos
from backend.demo.project import make_project
from backend.demo.servers import (
    LocalBackend,
    LocalStudio,
    LocalValkey,
    LocalWorker,
    environment_of,
)
from backend.demo.state import DemoState
from backend.errors import SettingsError, StudioError, counted, with_verb
from backend.labelstudio.client import LabelStudioClient
from backend.logs import Progress
from backend.processes import LocalProcess, free_port
from backend.projects.connect import ConnectReport, connect
from backend.projects.review import blind_sentence, order_sentence, tab_sentence
from backend.runtime import Runtime
from backend.settings import Settings, load_settings
from backend.training.clicks_text import clicks_text
from jobs.training_state import approvals_needed

EMAIL = "demo@example.com"
_COCO_MAP = "42.9"


def run_demo(
    directory: Path,
    tasks: int,
    port: int,
    check: bool,
    progress_bar: Callable[[], AbstractContextManager[Progress]],
    *,
    reviews: int = 0,
) -> int:
    """Run the demo until Ctrl-C, or with ``check`` until everything is verified.

    Args:
        directory: where Label Studio's data, the photos and the embeddings are kept.
        tasks: how many photo tasks to make.
        port: for Label Studio; the next free port is taken.
        check: verify and return instead of waiting.
        progress_bar: gives the function that shows progress.
        reviews: tasks that a simulated annotator reviews; then a head is trained and used.

    Returns:
        The exit code.

    Raises:
        ClipError: a part does not start, or Label Studio shows something else than it should.
    """
    console = Console(stderr=True)
    if reviews:
        tasks = max(tasks, reviews + TEST_TASKS)
    with _locked(directory), _exit_on_signals(), ExitStack() as stack:
        with progress_bar() as progress:
            state = DemoState.load(directory)
            state.url = ""
            # Label Studio takes password and token only when its data is new: saved first.
            state.save(directory)
            photos = _make_photos(directory, tasks, progress)
            servers = _start_servers(stack, directory, state, port, progress)
            studio = LabelStudioClient(servers.settings)
            folder = directory / "files" / "images"
            project = make_project(studio, state, folder, photos, progress)
            state.url = servers.label_studio.url
            state.save(directory)
            progress("loading the encoder", 0, 1)
            runtime = Runtime(servers.settings)
            report = _fill(servers, studio, runtime, project, progress)
            warning = ""
            simulation = simulate(runtime, studio, project, photos, reviews, progress=progress)
            if simulation is not None:
                rows = {"before": simulation.before, "after": simulation.after}
                if simulation.got_worse:
                    warning = f"mAP fell; the training says: {simulation.outcome}"
            else:
                task_ids = {
                    int(task["id"])
                    for task in studio.tasks.iterate(project)
                    if not task["total_annotations"]
                }
                progress(MEASURING, 0, 1)
                rows = {"now": measure(runtime, studio, project, photos, task_ids)}
        _print_measurements(rows, 0 if simulation is None else reviews)
        if report.blind:
            # The table does not count them.
            console.print(blind_sentence(report.blind, report.tasks), highlight=False)
        console.print(
            "Collages are easier than photos: on 1,605 COCO photos with 80 labels the same offline "
            f"encoder reaches mAP {_COCO_MAP} %; it is a stand-in for CLIP that needs no download."
        )
        if warning:
            console.print(f"[yellow]Note:[/] {warning}", highlight=False)
        if check:
            console.print("[green]Checked:[/] every task shows exactly one prediction.")
            return 1 if warning else 0
        console.print(order_sentence(report.order), highlight=False)
        if report.tab:
            console.print(tab_sentence(report.tab), highlight=False)
        _print_addresses(console, project, state, _write_environment(directory, servers.settings))
        _wait_forever(servers, console)
    return 0


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep a second demo out of the directory.

    Raises:
        SettingsError: a demo runs in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        running = DemoState.load(directory)
        raise SettingsError(
            f"A demo is running in {directory} already: {running.url or 'it is starting'} "
            f"({EMAIL} / {running.password}).",
            "Stop it, or give another --directory.",
        ) from error
    with lock:
        yield


@dataclass(frozen=True)
class _Servers:
    """The demo's servers, and the settings that reach them."""

    settings: Settings
    label_studio: LocalStudio
    backend: LocalBackend
    valkey: LocalValkey
    worker: LocalWorker

    @property
    def by_name(self) -> dict[str, LocalProcess]:
        return {
            "Label Studio": self.label_studio,
            "The backend": self.backend,
            "Valkey": self.valkey,
            "The worker": self.worker,
        }


def _start_servers(
    stack: ExitStack, directory: Path, state: DemoState, port: int, progress: Progress
) -> _Servers:
    """Start all servers at once, then wait until each answers; the stack ends them."""
    studio_port = free_port(port)
    backend_port = free_port(9190, taken=[studio_port])
    label_studio = stack.enter_context(
        LocalStudio(
            directory / "label-studio",
            studio_port,
            email=EMAIL,
            password=state.password,
            token=state.token,
            photos=directory / "files",
        )
    )
    valkey = stack.enter_context(LocalValkey(directory / "valkey", free_port(16379)))
    settings = _settings(directory, state, label_studio.url, backend_port, valkey.url)
    backend = stack.enter_context(LocalBackend(settings, directory / "backend.log"))
    valkey.wait()
    worker = stack.enter_context(LocalWorker(settings, directory / "worker.log"))
    step = "waiting for Label Studio"
    if state.project is None:
        step += " (about a minute the first time)"
    # Seconds are no share of the work: they would tell a time that nobody knows.
    progress(step, 0, 1)
    label_studio.wait()
    progress(step, 1, 1)
    backend.wait()
    worker.wait()
    return _Servers(settings, label_studio, backend, valkey, worker)


def _settings(
    directory: Path, state: DemoState, studio_url: str, port: int, redis_url: str
) -> Settings:
    encoder = os.environ.get("LS_CLIP_ENCODER", "offline")
    return load_settings(
        label_studio_url=studio_url,
        label_studio_api_key=state.token,
        encoder=encoder,
        store=str(directory / "store"),
        host="127.0.0.1",
        port=port,
        public_url=f"http://127.0.0.1:{port}",
        basic_auth_user="label-studio",
        basic_auth_pass=state.backend_password,
        webhook_secret=state.webhook_secret,
        redis_url=redis_url,
    )


def _make_photos(directory: Path, count: int, progress: Progress) -> list[DemoPhoto]:
    progress("making photos", 0, count)
    photos = make_photos(directory / "files" / "images", count)
    progress("making photos", count, count)
    return photos


def _fill(
    servers: _Servers,
    studio: LabelStudioClient,
    runtime: Runtime,
    project: int,
    progress: Progress,
) -> ConnectReport:
    """Connect the project, which predicts its tasks.

    Raises:
        StudioError: a task has no prediction.
    """
    report = connect(servers.settings, studio, runtime, project, progress)
    if report.failures:
        task, reason = next(iter(report.failures.items()))
        raise StudioError(
            f"{with_verb(len(report.failures), 'task', 'has', 'have')} no prediction; "
            f"task {task}: {reason}",
            f"Read {servers.backend.log} and {servers.label_studio.log}.",
        )
    return report


def _print_measurements(rows: dict[str, Measured], reviews: int) -> None:
    version = list(rows.values())[-1].model_version
    title = f"Suggestions of {version}"
    if reviews:
        title = (
            f"Tasks that nobody reviewed, before and after {counted(reviews, 'review')}; {version}"
        )
    out = Console()
    # Not as the table's own title, which is no wider than the table.
    out.print(f"[bold]{title}[/]", highlight=False)
    out.print(measurement_table(rows))
    clicks = list(rows.values())[-1].clicks
    out.print(clicks_text(clicks, approvals_needed(reviews)), highlight=False)


def _write_environment(directory: Path, settings: Settings) -> Path:
    """A file for a shell, so that ``ls-clip`` can be called beside the demo."""
    path = directory / "env"
    path.touch(mode=0o600)
    lines = [
        f"export {name}={shlex.quote(value)}" for name, value in environment_of(settings).items()
    ]
    path.write_text("\n".join([*lines, ""]))
    return path


def _print_addresses(console: Console, project: int, state: DemoState, env: Path) -> None:
    address = f"{state.url}/projects/{project}/data"
    console.print(f"[bold]Project:[/] {address}")
    console.print(f"[bold]Label  :[/] {address}?labeling=1")
    console.print(f"[bold]Login  :[/] {EMAIL} / {state.password}")
    console.print(
        f"[bold]Command:[/] (. {env}; ./uvw run ls-clip heads {project})",
        highlight=False,
        soft_wrap=True,
    )


def _wait_forever(servers: _Servers, console: Console) -> None:
    """Wait for Ctrl-C.

    Raises:
        StudioError: a server has ended.
    """
    console.print("Ctrl-C ends all of its servers; the data stays for the next start.")
    while True:
        time.sleep(1)
        for name, process in servers.by_name.items():
            if not process.running:
                raise StudioError(
                    f"{name} has ended. Its last output:\n{process.last_lines()}",
                    f"Read {process.log}, and start the demo again.",
                )


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Turn the signals that end a program into an exit that cleans up."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
