"""All services of docker-compose.yml without Docker, and one project that goes all the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backend.demo.servers import find_uv
from backend.errors import ClipError
from jobs import queue
from jobs.training_state import Training, TrainingState, TrainingStore
from tests.support.annotators import Submits, submit_at_once
from tests.support.commands import Done
from tests.support.compose_services import Site
from tests.support.composed import Services, make_project, start_label_studio, start_ours
from tests.support.postgres import INSTALL, ComposedDatabase, programs
from tests.support.skipping import skip_or_fail
from tests.support.waiting import until

PHOTOS = 40
TASKS = 400
PEOPLE = 50
ANNOTATED_SECONDS = 20.0
"""How long they annotate; `benchmarks/submits.py` has them do it for a minute."""
PAUSE = 3.0
"""Seconds that a person looks at a task, in the mean."""
SMALL_SHARDS = {"LS_CLIP_SHARD_SIZE": "64"}
"""So that both workers have something to do."""


@dataclass
class Connected:
    """The project after `ls-clip connect`.

    Attributes:
        number: of the project.
        truth: task -> its labels.
        done: how the command ended.
    """

    number: int
    truth: dict[int, tuple[str, ...]]
    done: Done


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    if programs() is None:
        skip_or_fail(f"PostgreSQL is not installed. Enable these tests with: {INSTALL}")
    try:
        find_uv()
    except ClipError as error:
        skip_or_fail(str(error))
    folder = tmp_path_factory.mktemp("compose")
    return Site(folder, SMALL_SHARDS, LABEL_STUDIO_USERNAME="admin@example.com")


@pytest.fixture(scope="package")
def database(site: Site) -> Iterator[ComposedDatabase]:
    with ComposedDatabase(site) as running:
        running.wait()
        yield running


@pytest.fixture(scope="package")
def services(site: Site, database: ComposedDatabase) -> Iterator[Services]:
    with start_label_studio(site) as label_studio, start_ours(site, label_studio) as running:
        yield running


@pytest.fixture(scope="package")
def connected(services: Services) -> Connected:
    """A project that was connected while one of the two workers was killed."""
    number, truth = make_project(services.studio, services.site.folder / "photos", PHOTOS, TASKS)
    ended = threading.Event()

    def kill_a_worker() -> None:
        while not ended.wait(0.1):
            runs = services.runs.of_project(number)
            if runs and runs[0].embedded:
                services.workers[0].kill()
                return

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        done = services.exec_in_backend("connect", str(number))
    finally:
        ended.set()
        killer.join()
    return Connected(number, truth, done)


@pytest.fixture(scope="package")
def submitted(services: Services, connected: Connected) -> Submits:
    """Fifty people have annotated at once, while one of the two backends was killed."""
    assert connected.done.returncode == 0, connected.done.stderr
    killer = threading.Timer(ANNOTATED_SECONDS / 2, services.backends[0].kill)
    killer.start()
    try:
        return submit_at_once(
            services.label_studio.url,
            services.studio.headers,
            connected.truth,
            PEOPLE,
            ANNOTATED_SECONDS,
            PAUSE,
        )
    finally:
        killer.join()


@pytest.fixture(scope="package")
def trained(services: Services, connected: Connected, submitted: Submits) -> Training:
    """What they approved has trained a head, and the rest was refreshed.

    A second head, made of what the last of them approved, may wait for its refresh.
    """
    trainings = TrainingStore(queue.connect(services.settings))

    def refreshed() -> Training | None:
        now = trainings.get(connected.number)
        return now if now.state == TrainingState.IDLE and now.refreshed else None

    return until(refreshed)
