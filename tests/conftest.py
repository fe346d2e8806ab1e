"""Fixtures that many tests share. None of them needs a network or a Label Studio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from xdist.scheduler import LoadScopeScheduling

from backend.demo.servers import LocalValkey
from backend.encoders.offline import OfflineEncoder
from backend.encoders.weights import fingerprint
from backend.runtime import Runtime
from backend.settings import Settings
from tests.support.builders import make_settings
from tests.support.clock import Clock
from tests.support.processes import OUR_VARIABLES, free_port
from tests.support.stub_encoder import StubEncoder


class _Halves(LoadScopeScheduling):  # type: ignore[misc]
    """For pytest-xdist: the end-to-end tests share one Label Studio, so one process takes them."""

    def _split_scope(self, nodeid: str) -> str:
        return "e2e" if nodeid.startswith("tests/e2e/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Halves:
    return _Halves(config, log)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor a .env file of whoever runs the tests decides anything."""
    for name in os.environ:
        if name.startswith(OUR_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _fingerprints_of_the_tests_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Checkpoints made by tests stay out of the user's cache."""
    fingerprint.__defaults__ = (tmp_path_factory.mktemp("fingerprints"),)


# Images and tasks


# Encoder and runtime


@pytest.fixture(scope="session")
def offline_encoder() -> OfflineEncoder:
    """The real encoder that needs no download; its weights are read once."""
    return OfflineEncoder()


MakeRuntime = Callable[..., Runtime]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "store")


@pytest.fixture
def make_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRuntime:
    """Makes runtimes around a stub encoder; all share one store unless told otherwise."""

    def make(encoder: Any = None, **values: Any) -> Runtime:
        chosen = encoder or StubEncoder()
        monkeypatch.setattr("backend.runtime.get_encoder", lambda _: chosen)
        store = values.pop("store", tmp_path / "store")
        return Runtime(make_settings(store, **values))

    return make


# Queue


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """A real Valkey."""
    with LocalValkey(tmp_path_factory.mktemp("valkey"), free_port()) as server:
        server.wait()
        yield server


@pytest.fixture
def connection(valkey: LocalValkey) -> Iterator[Redis]:
    """A connection to an empty Valkey."""
    with Redis.from_url(valkey.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def queue_settings(valkey: LocalValkey, connection: Redis, tmp_path: Path) -> Settings:
    """Settings with an empty queue."""
    return make_settings(tmp_path / "store", redis_url=valkey.url)


# Processes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which lost and failed jobs come again."""
    clock = Clock()
    monkeypatch.setattr("jobs.reconciler.time", clock)
    return clock


@pytest.fixture
def studio() -> Iterator[Any]:
    """A stand-in for Label Studio, for faults that a real one cannot be made to have."""
    # That module imports this one.
    from tests.support.stub_label_studio import stub_studio

    with stub_studio() as stub:
        yield stub
