"""docker-compose.yml as Compose reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.support.builders import ROOT

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
