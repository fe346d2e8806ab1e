"""One real Label Studio and one real backend, shared by all end-to-end tests."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from backend.demo.photos import LABELS, make_photos
from backend.demo.servers import (
    LocalBackend,
    LocalStudio,
    LocalValkey,
    LocalWorker,
    find_uv,
    new_secret,
)
from backend.inference.holdout import is_blind
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.projects import project_key
from backend.projects.connect import connect
from backend.runtime import Runtime
from backend.settings import Settings, load_settings
from jobs import queue
from jobs.training_state import TrainingStore
from tests.support.live import (
    PHOTOS,
    MakeProject,
    Review,
    Servers,
    leaks,
    read_truth,
)
from tests.support.processes import free_port as any_port
from tests.support.skipping import skip_or_fail

EMAIL = "admin@example.com"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The pixels of pictures are compared.
    "--force-color-profile=srgb",
]


@contextmanager
def all_logged(path: Path) -> Iterator[None]:
    """Write what this process logs to a file, at the finest level that our own modules have."""
    handler = logging.FileHandler(path)
    ours, before = logging.getLogger("backend"), logging.getLogger("backend").level
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.setLevel(before)
        logging.getLogger().removeHandler(handler)
        handler.close()


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    try:
        find_uv()
    except Exception as error:
        skip_or_fail(str(error))
    folder = tmp_path_factory.mktemp("servers")
    make_photos(folder / "files" / "images", PHOTOS)
    password, token = new_secret(), new_secret()
    studio_port = any_port()
    backend_port = any_port()
    with LocalStudio(
        folder / "label-studio",
        studio_port,
        email=EMAIL,
        password=password,
        token=token,
        photos=folder / "files",
    ) as label_studio:
        settings = load_settings(
            label_studio_url=label_studio.url,
            label_studio_api_key=token,
            encoder="offline",
            store=str(folder / "store"),
            host="127.0.0.1",
            port=backend_port,
            public_url=f"http://127.0.0.1:{backend_port}",
            basic_auth_user="label-studio",
            basic_auth_pass=new_secret(),
            webhook_secret=new_secret(),
            log_level="DEBUG",
            blind_share=0.0,
        )
        with (
            LocalBackend(settings, folder / "backend.log") as backend,
            all_logged(folder / "tests.log"),
        ):
            label_studio.wait()
            backend.wait()
            yield Servers(
                label_studio.url, password, settings, folder / "files", backend, label_studio
            )
        # The last thing of the end-to-end tests.
        for log in (backend.log, folder / "tests.log"):
            assert leaks(log.read_text(errors="replace"), settings, password) == []


@pytest.fixture(scope="package")
def settings(servers: Servers) -> Settings:
    return servers.settings


@pytest.fixture(scope="package")
def studio(settings: Settings) -> LabelStudioClient:
    return LabelStudioClient(settings)


@pytest.fixture(scope="package")
def runtime(settings: Settings) -> Runtime:
    return Runtime(settings)


@pytest.fixture(scope="package")
def label_config() -> str:
    choices = "".join(f'<Choice value="{label}"/>' for label in LABELS)
    return (
        '<View><Choices name="tags" toName="image" choice="multiple">'
        f"{choices}</Choices>"
        '<TextArea name="clip_evidence" toName="image" editable="false"/>'
        '<Image name="image" value="$image"/></View>'
    )


@pytest.fixture
def make_project(servers: Servers, studio: LabelStudioClient, label_config: str) -> MakeProject:
    """Make a project with the first photos as tasks; returns its number."""

    def make(photos: int = PHOTOS, config: str | None = None, extra: list[Any] = []) -> int:  # noqa: B006
        project = int(studio.projects.create("test", config or label_config)["id"])
        studio.projects.add_local_files(project, str(servers.files / "images"))
        names = sorted(path.name for path in (servers.files / "images").iterdir())[:photos]
        tasks = [{"data": {"image": f"/data/local-files/?d=images/{name}"}} for name in names]
        if tasks or extra:
            studio.tasks.create(project, tasks + extra)
        return project

    return make


@pytest.fixture(scope="package")
def api(settings: Settings) -> Callable[..., Any]:
    """Label Studio's API as anyone may call it."""
    token = settings.label_studio_api_key.get_secret_value()

    def call(method: str, path: str, **arguments: Any) -> Any:
        answer = requests.request(
            method,
            settings.label_studio_url + path,
            headers={"Authorization": f"Token {token}"},
            timeout=120,
            **arguments,
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    return call


@pytest.fixture(scope="package")
def personal_token(api: Callable[..., Any]) -> str:
    """A personal access token; Label Studio gives a user only one at a time."""
    return str(api("POST", "/api/token/")["token"])


# The loop: a queue, a worker, blind tasks

BLIND = 0.2


@pytest.fixture(scope="package")
def loop(
    servers: Servers, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A backend and a worker of their own, with a queue and a fifth of the tasks blind."""
    folder = tmp_path_factory.mktemp("loop")
    with LocalValkey(folder / "valkey", any_port()) as queue:
        queue.wait()
        port = any_port()
        values: dict[str, Any] = {
            **dict(settings),
            "redis_url": queue.url,
            "store": str(folder / "store"),
            "port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "blind_share": BLIND,
            "refresh_every": 0.0,
        }
        mine = Settings(_env_file=None, **values)
        with (
            LocalBackend(mine, folder / "backend.log") as backend,
            LocalWorker(mine, folder / "worker.log") as worker,
        ):
            backend.wait()
            worker.wait()
            yield mine


@pytest.fixture(scope="package")
def loop_runtime(loop: Settings) -> Runtime:
    return Runtime(loop)


@pytest.fixture
def trainings(loop: Settings) -> TrainingStore:
    return TrainingStore(queue.connect(loop))


@pytest.fixture
def connected(
    loop: Settings,
    loop_runtime: Runtime,
    studio: LabelStudioClient,
    make_project: Callable[..., int],
) -> int:
    """A project with zero-shot suggestions, and with blind tasks."""
    number = 0
    while not number or not any(
        is_blind(project_key(studio.projects.get(number)), int(task["id"]), BLIND)
        for task in studio.tasks.iterate(number)
    ):
        # One project in 800 has none, by chance.
        number = make_project()
    report = connect(loop, studio, loop_runtime, number)
    assert not report.failures
    return number


@pytest.fixture
def review(servers: Servers, studio: LabelStudioClient, api: Callable[..., Any]) -> Review:
    """Submit the truth for a project's first tasks, as the label stream does; returns their ids."""
    truth = read_truth(servers)

    def submit(project: int, count: int, start: int = 0) -> list[int]:
        tasks = sorted(studio.tasks.iterate(project), key=lambda task: task["id"])[
            start : start + count
        ]
        parents = {
            prediction["task"]: prediction["id"]
            for prediction in studio.predictions.of_project(project)
        }
        for task in tasks:
            name = task["data"]["image"].rpartition("/")[2]
            item = {"from_name": "tags", "to_name": "image", "type": "choices"}
            result = [{**item, "value": {"choices": truth[name]}}]
            body = {
                "result": result,
                "lead_time": 4.2,
                "parent_prediction": parents.get(task["id"]),
            }
            api("POST", f"/api/tasks/{task['id']}/annotations/", json=body)
        return [task["id"] for task in tasks]

    return submit


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        skip_or_fail("Chromium is not installed. Enable this test with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, servers: Servers) -> Iterator[Any]:
    """A page logged in to Label Studio."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{servers.studio_url}/user/login/")
    page.fill("input[name=email]", EMAIL)
    page.fill("input[name=password]", servers.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)
    yield page
    context.close()
