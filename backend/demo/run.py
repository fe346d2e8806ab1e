"""The demo: a real Label Studio, the backend, a worker, and a project of photos filled by a run."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from backend.demo.annotator import TEST_TASKS, Measured, measure, simulate, table_of
from backend.demo.photos import LABELS, DemoPhoto, make_photos
from backend.demo.servers import LocalBackend, LocalStudio, LocalValkey, LocalWorker, new_secret
from backend.errors import ClipError, SettingsError, StudioError
from backend.labels.config import parse_config
from backend.labelstudio.client import LabelStudioClient
from backend.processes import LocalProcess, free_port
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings, load_settings

log = logging.getLogger(__name__)

EMAIL = "demo@example.com"
TITLE = "Suggestions demo"
_COCO_MAP = "42.9"

Waiting = Callable[[str, int, int], None]


@dataclass
class _State:
    """What a second start needs to find the first one's data."""

    password: str
    token: str
    webhook_secret: str
    backend_password: str
    project: int | None = None
    tasks: int = 0
    url: str = ""


def run_demo(
    directory: Path, tasks: int, port: int, check: bool, progress_bar: Any, *, reviews: int = 0
) -> int:
    """Run the demo until Ctrl-C, or with ``check`` until everything is verified.

    Args:
        directory: where Label Studio's data, the photos and the embeddings are kept.
        tasks: how many photo tasks to make.
        port: Label Studio's; the next free one is taken.
        check: verify and return instead of waiting.
        progress_bar: context manager that gives a function (what, done, total).
        reviews: tasks that an annotator of ours reviews; then a head is trained and put into use.

    Returns:
        The exit code.

    Raises:
        ClipError: a part does not start, or Label Studio shows something else than it should.
    """
    console = Console(stderr=True)
    if reviews:
        tasks = max(tasks, reviews + TEST_TASKS)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        running = _load_state(directory)
        raise SettingsError(
            f"A demo is running in {directory} already: {running.url or 'it is starting'} "
            f"({EMAIL} / {running.password}).",
            "Stop it, or give another --directory.",
        ) from error
    with lock, _exit_on_signals(), ExitStack() as stack:
        with progress_bar() as progress:
            state = _load_state(directory)
            state.url = ""
            # Label Studio takes password and token only when its data is new: kept first.
            _save_state(directory, state)
            photos = _make_photos(directory, tasks, progress)
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
            queue_port = free_port(16379)
            valkey = stack.enter_context(LocalValkey(directory / "valkey", queue_port))
            settings = _settings(directory, state, label_studio.url, backend_port, valkey.url)
            backend = stack.enter_context(LocalBackend(settings, directory / "backend.log"))
            valkey.wait()
            worker = stack.enter_context(LocalWorker(settings, directory / "worker.log"))
            first = "" if state.project else " (about a minute the first time)"
            label_studio.wait(
                lambda seconds: progress(f"waiting for Label Studio{first}", int(seconds), 60)
            )
            progress(f"waiting for Label Studio{first}", 60, 60)
            backend.wait()
            worker.wait()
            studio = LabelStudioClient(settings)
            project = _project(studio, state, directory / "files" / "images", photos, progress)
            state.url = label_studio.url
            _save_state(directory, state)
            runtime = Runtime(settings)
            report = connect(settings, studio, runtime, project, progress)
            if report.failures:
                task, reason = next(iter(report.failures.items()))
                raise StudioError(
                    f"{len(report.failures)} of {report.tasks} tasks have no prediction; "
                    f"task {task}: {reason}",
                    f"Read {backend.log} and {label_studio.log}.",
                )
            fell = ""
            if reviews:
                before, after, said = simulate(
                    runtime, studio, project, photos, reviews, progress=progress
                )
                rows = {"before": before, "after": after}
                if after.mean_average_precision < before.mean_average_precision:
                    fell = f"mAP fell; the training says {said}"
            else:
                everything = {int(task["id"]) for task in studio.tasks.iterate(project)}
                rows = {"now": measure(runtime, studio, project, photos, everything)}
        _print_table(rows, reviews, report.tasks)
        console.print(
            "Collages are easier than photos: on 1,605 COCO photos with 80 labels the same offline "
            f"encoder reaches mAP {_COCO_MAP}; it is a stand-in for CLIP that needs no download."
        )
        if fell:
            console.print(f"[yellow]Note:[/] {fell}", highlight=False)
        if check:
            console.print("[green]Checked:[/] every task shows exactly one prediction.")
            return 1 if fell else 0
        _print_addresses(console, label_studio.url, project, state)
        servers = {
            "Label Studio": label_studio,
            "The backend": backend,
            "Valkey": valkey,
            "The worker": worker,
        }
        _wait(servers, console)
    return 0


def _make_photos(directory: Path, count: int, progress: Waiting) -> list[DemoPhoto]:
    progress("making photos", 0, count)
    photos = make_photos(directory / "files" / "images", count)
    progress("making photos", count, count)
    return photos


def _settings(
    directory: Path, state: _State, studio_url: str, port: int, redis_url: str
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


def _project(
    studio: LabelStudioClient,
    state: _State,
    folder: Path,
    photos: list[DemoPhoto],
    progress: Waiting,
) -> int:
    """The demo's project; made if it is not there, or was made with another number of tasks."""
    if state.project is not None and state.tasks == len(photos):
        try:
            if studio.projects.get(state.project)["task_number"] == len(photos):
                return state.project
        except StudioError as error:
            log.info("the demo's project is made again: %s", error)
    progress("making the project", 0, 1)
    config = files("plugin_config").joinpath("beside-the-image.xml").read_text()
    choices = "\n".join(f'      <Choice value="{label}"/>' for label in LABELS)
    start, end = config.index("<Choice value="), config.rindex("</Choices>")
    config = config[:start].rstrip() + "\n" + choices + "\n    " + config[end:]
    parse_config(config).require_controls()
    project = studio.projects.create(TITLE, config)
    number = int(project["id"])
    studio.projects.add_local_files(number, str(folder))
    studio.tasks.create(
        number,
        [
            {"data": {"image": f"/data/local-files/?d={folder.name}/{photo.file}"}}
            for photo in photos
        ],
    )
    state.project, state.tasks = number, len(photos)
    progress("making the project", 1, 1)
    return number


def _print_table(rows: dict[str, Measured], reviews: int, tasks: int) -> None:
    version = list(rows.values())[-1].model_version
    title = f"Suggestions of {version}"
    if reviews:
        title = f"Tasks that nobody reviewed, before and after {reviews} reviews; {version}"
    out = Console()
    # Not as the table's own title, which is no wider than the table.
    out.print(f"[bold]{title}[/]", highlight=False)
    out.print(table_of(rows))
    blind = tasks - rows["now"].tasks if "now" in rows else 0
    if blind:
        out.print(
            "Tasks left out, as they show no suggestions on purpose (the blind slice, "
            f"docs/training.md): {blind}."
        )


def _print_addresses(console: Console, url: str, project: int, state: _State) -> None:
    console.print("The least certain tasks come first; sort by score to see the easy ones.")
    console.print(f"[bold]Project:[/] {url}/projects/{project}/data")
    console.print(f"[bold]Label  :[/] {url}/projects/{project}/data?labeling=1")
    console.print(f"[bold]Login  :[/] {EMAIL} / {state.password}")


def _wait(servers: Mapping[str, LocalProcess], console: Console) -> None:
    console.print("Ctrl-C ends all of its servers; the data stays for the next start.")
    while True:
        time.sleep(1)
        for name, process in servers.items():
            if not process.running:
                raise StudioError(
                    f"{name} has ended. Its last words:\n{process.last_lines()}",
                    f"Read {process.log}, and start the demo again.",
                )


def _load_state(directory: Path) -> _State:
    try:
        return _State(**json.loads((directory / "state.json").read_text()))
    except FileNotFoundError:
        return _State(new_secret()[:12], new_secret(), new_secret(), new_secret())
    except (ValueError, TypeError) as error:
        raise ClipError(
            f"{directory / 'state.json'} cannot be read: {error}.",
            f"Delete {directory}; the demo makes it again.",
        ) from error


def _save_state(directory: Path, state: _State) -> None:
    path = directory / "state.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(state)))


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
