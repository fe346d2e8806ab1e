"""What is written in the compose file."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml
from pydantic import AliasChoices

from backend.cli.main import app
from backend.settings import DEFAULT_ENCODER, Settings
from jobs.queue import QUEUES
from tests.support.builders import ROOT
from tests.support.compose import (
    FILE,
    FROM_ENV_FILE,
    OURS,
    SERVICES,
    TEXT,
    VARIABLE,
    WORKERS,
    env_file,
    environment,
    filled,
    networks,
    strings,
)

SECRET = re.compile("PASS|SECRET|KEY|TOKEN")

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


# What docker-compose.direct.yml adds

DIRECT: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.direct.yml").read_text())


def test_images_are_read_from_where_they_are_mounted_and_never_written():
    assert set(DIRECT["services"]) == {"label-studio", *OURS}
    for name in OURS:
        service = DIRECT["services"][name]
        assert set(service) == {"environment", "volumes"}
        given = service["environment"]
        settings = Settings(
            _env_file=None,
            **{
                variable.removeprefix("LS_CLIP_").lower(): value
                for variable, value in given.items()
            },
        )
        mounted = {one["target"] for one in service["volumes"]}
        assert mounted == {settings.uploads_root, settings.local_files_root}
        assert all(one["read_only"] for one in service["volumes"])


def test_what_is_mounted_is_what_label_studio_serves():
    theirs = DIRECT["services"]["label-studio"]
    uploads, local = DIRECT["services"]["backend"]["volumes"]
    assert theirs["volumes"] == [local]
    assert theirs["environment"]["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] == local["target"]
    (volume,) = (one for one in SERVICES["label-studio"]["volumes"] if uploads["source"] in one)
    data = volume.partition(":")[2]
    assert uploads["target"] == f"{data}/{uploads['volume']['subpath']}"
    assert uploads["volume"]["subpath"] == "media/upload"


def test_the_page_names_what_the_other_file_needs():
    page = (ROOT / "docs" / "compose.md").read_text()
    assert "docker-compose.direct.yml" in page
    found = {match[1] for text in strings(DIRECT) for match in VARIABLE.finditer(text) if match[1]}
    assert found == {"LOCAL_FILES"} and "LOCAL_FILES=" in page
