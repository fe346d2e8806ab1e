"""The commands of docker-compose.yml, started on this machine as the file starts them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.support.compose import env_file
from tests.support.compose_services import ComposedQueue, ComposedService, Site, healthy
from tests.support.processes import run_cli
from tests.support.waiting import PATIENCE

# Our commands, as the file starts them


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposedQueue]:
    with ComposedQueue(Site(tmp_path_factory.mktemp("redis"))) as server:
        server.wait()
        yield server


@pytest.fixture
def site(redis: ComposedQueue, tmp_path: Path) -> Site:
    """A store and a backend's port of this test's own, and the queue that all tests share."""
    made = Site(tmp_path)
    made.ports["redis"] = redis.port
    return made


def given_to(service: str, site: Site) -> dict[str, str]:
    """A service's environment; the backend listens where the others look for it."""
    given = site.environment(service)
    return given | ({"LS_CLIP_PORT": str(site.ports[service])} if service == "backend" else {})


@contextmanager
def started(service: str, site: Site) -> Iterator[ComposedService]:
    """A service's command, once it serves or works, and its own health check passes."""
    given = given_to(service, site)
    with ComposedService(service, site, service, **given) as process:
        process.wait()
        assert healthy(service, given, site.folder), process.log.read_text()
        yield process


def end(process: ComposedService) -> None:
    """What ``docker compose stop`` does first."""
    os.kill(process.pid, signal.SIGTERM)
    assert process._process.wait(PATIENCE) == 0, process.log.read_text()


def test_the_queue_takes_its_password_and_writes_to_its_disk(redis: ComposedQueue):
    with Redis(port=redis.port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with Redis(port=redis.port, password=env_file()["REDIS_PASSWORD"]) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_the_backend_becomes_healthy_and_ends_well(site: Site):
    given = given_to("backend", site)
    assert not healthy("backend", given, site.folder)
    with started("backend", site) as process:
        end(process)
    assert not healthy("backend", given, site.folder)


def test_a_predict_worker_becomes_healthy_and_ends_well(site: Site):
    given = given_to("predict-worker", site)
    with started("predict-worker", site) as process:
        # Before the token is there, a run ends at once and says what is missing.
        done = run_cli("predict", "1", "--wait", cwd=site.folder, **given)
        assert done.returncode == 1
        assert "LABEL_STUDIO_API_KEY" in done.stderr
        end(process)


def test_a_train_worker_becomes_healthy_and_ends_well(site: Site):
    given = given_to("train-worker", site)
    assert not healthy("train-worker", given, site.folder)
    with started("train-worker", site) as process:
        # It speaks neither for the worker of another queue nor for one in another container.
        assert not healthy("predict-worker", given, site.folder)
        elsewhere = "import socket; socket.gethostname = lambda: 'elsewhere'\n"
        assert not healthy("train-worker", given, site.folder, elsewhere)
        end(process)
    assert not healthy("train-worker", given, site.folder)


def test_connect_without_the_token_says_where_to_get_it(site: Site):
    done = run_cli("connect", "1", cwd=site.folder, **given_to("backend", site))
    assert done.returncode == 1
    assert "No Label Studio token is set" in done.stderr
    assert "LABEL_STUDIO_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
