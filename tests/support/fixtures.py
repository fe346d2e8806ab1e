"""Fixtures around a runtime, a queue and a stand-in Label Studio.

The conftest.py of each folder that needs them imports them from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from backend.demo.servers import LocalValkey
from backend.encoders.offline import OfflineEncoder
from backend.runtime import Runtime
from backend.settings import Settings
from jobs import queue
from tests.support.builders import make_settings, photo
from tests.support.clock import Clock
from tests.support.commands import run_command
from tests.support.processes import free_port
from tests.support.stub_encoder import StubEncoder
from tests.support.stub_label_studio import StubStudio, stub_studio

__all__ = [
    "cli",
    "clock",
    "connection",
    "make_runtime",
    "offline",
    "photos",
    "queue_settings",
    "settings",
    "studio",
    "valkey",
]

MakeRuntime = Callable[..., Runtime]
Cli = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "store")


@pytest.fixture
def make_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRuntime:
    """Makes runtimes around a stub encoder; all share one store unless ``store`` is given."""

    def make(encoder: Any = None, **values: Any) -> Runtime:
        chosen = encoder or StubEncoder(batch_size=values.get("batch_size", 32))
        monkeypatch.setattr("backend.runtime.get_encoder", lambda *_: chosen)
        store = values.pop("store", tmp_path / "store")
        return Runtime(make_settings(store, **values))

    return make


@pytest.fixture
def offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline_encoder: OfflineEncoder
) -> None:
    """For `tests.support.commands.call`: the offline encoder, loaded already, and a new store."""
    monkeypatch.setenv("LS_CLIP_ENCODER", "offline")
    monkeypatch.setenv("LS_CLIP_STORE", str(tmp_path / "store"))
    for module in ("backend.inference.suggest", "backend.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.get_encoder", lambda *_: offline_encoder)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Paths of three images."""
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, name in enumerate(names):
        photo(number).save(name)
    return names


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """A real Valkey."""
    with LocalValkey(tmp_path_factory.mktemp("valkey"), free_port()) as server:
        server.wait()
        yield server


@pytest.fixture
def connection(valkey: LocalValkey, tmp_path: Path) -> Iterator[Redis]:
    """A connection to an empty Valkey, with the keys of the tests' installation."""
    with queue.connect(make_settings(tmp_path / "store", redis_url=valkey.url)) as client:
        client.flushall()
        yield client


@pytest.fixture
def queue_settings(valkey: LocalValkey, connection: Redis, tmp_path: Path) -> Settings:
    """Settings with an empty queue."""
    return make_settings(tmp_path / "store", redis_url=valkey.url)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which lost and failed jobs are enqueued again."""
    clock = Clock()
    monkeypatch.setattr("jobs.reconciler.time", clock)
    return clock


@pytest.fixture
def studio() -> Iterator[StubStudio]:
    """A stand-in for Label Studio, for faults that a real one cannot be made to have."""
    with stub_studio() as stub:
        yield stub


@pytest.fixture
def cli(tmp_path: Path, studio: StubStudio, valkey: Any, connection: Redis) -> Cli:
    """``ls-clip`` on the stub Label Studio; gives the exit code and all that was printed."""
    given = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": "f" * 40,
        "LS_CLIP_STORE": str(tmp_path / "store"),
        "LS_CLIP_ENCODER": "offline",
        "LS_CLIP_REDIS_URL": valkey.url,
    }

    def run(*arguments: str, **changes: str) -> tuple[int, str]:
        done = run_command(*arguments, cwd=tmp_path, **{**given, **changes})
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return run
