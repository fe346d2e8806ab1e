"""Fixtures that many tests share. None of them needs a network or a Label Studio."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis
from xdist.scheduler import LoadScopeScheduling

from backend.encoders.base import ImageEmbeddings, normalise
from backend.encoders.offline import OfflineEncoder
from backend.encoders.weights import fingerprint
from backend.local_servers import LocalValkey
from backend.runtime import Runtime
from backend.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = Path(__file__).parent / "contract"
OUR_VARIABLES = ("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_", "REDIS_URL")
LABELS = ("cat", "dog", "outdoor")


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


def photo(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """An image of its own for each seed: smooth noise, so that encoders see a difference."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def png_bytes(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def data_uri(seed: int) -> str:
    """An image that needs no server."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(photo(seed))).decode()


def task(number: int, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it, with an image unless ``data`` says otherwise."""
    return {"id": number, "data": data or {"image": data_uri(number)}}


def choices_config(*labels: str, attributes: str = 'choice="multiple"', extra: str = "") -> str:
    """A labeling config with one Choices control."""
    choices = "".join(f'<Choice value="{label}"/>' for label in labels or LABELS)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="tags" toName="image" {attributes}>{choices}</Choices>{extra}</View>'
    )


EVIDENCE = '<TextArea name="clip_evidence" toName="image"/>'


def contract(name: str) -> dict[str, Any]:
    """A request that Label Studio 1.23.2 was seen to send."""
    sample: dict[str, Any] = json.loads((CONTRACT / f"{name}.json").read_text())
    return sample


# Encoder and runtime


class StubEncoder:
    """Follows the encoder protocol at no cost: pixels and words through fixed random numbers."""

    short = "stub"
    dim = 32
    regions = "cells"
    templates = ("a photo of {}.",)
    multilingual = False
    logit_scale = 10.0
    logit_bias: float | None = None

    def __init__(self, encoder_id: str = "stub-1") -> None:
        self.id = encoder_id
        self.images = 0
        self.batches = 0
        self.before: Callable[[], None] = lambda: None
        self._pixels = np.random.default_rng(7).normal(size=(8 * 8 * 3, self.dim))

    def load(self) -> None:
        """Nothing to read."""

    def prepare(self, image: Image.Image) -> Image.Image:
        return image

    def encode_images(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        return self.encode_prepared(images)

    def encode_prepared(self, images: Sequence[Image.Image]) -> ImageEmbeddings:
        self.before()
        self.images += len(images)
        self.batches += 1
        whole = [self._embed(image) for image in images]
        cells = [[self._embed(image.rotate(10 * step)) for step in range(9)] for image in images]
        return ImageEmbeddings(
            normalise(np.array(whole, np.float32).reshape(-1, self.dim)),
            normalise(np.array(cells, np.float32).reshape(-1, 9, self.dim)),
        )

    def _embed(self, image: Image.Image) -> np.ndarray[Any, Any]:
        small = np.asarray(image.convert("RGB").resize((8, 8)), np.float64).ravel() / 255 - 0.5
        return small @ self._pixels

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        rows = [
            np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).normal(
                size=self.dim
            )
            for text in texts
        ]
        return normalise(np.array(rows, np.float32).reshape(-1, self.dim))


@pytest.fixture(scope="session")
def offline_encoder() -> OfflineEncoder:
    """The real encoder that needs no download; its weights are read once."""
    return OfflineEncoder()


MakeRuntime = Callable[..., Runtime]


def make_settings(store: Path, **values: Any) -> Settings:
    """Settings for a test: the offline encoder, no blind tasks, a store of its own."""
    given = {"encoder": "offline", "store": str(store), "blind_share": 0.0, **values}
    return Settings(_env_file=None, **given)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_cli(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """``ls-clip`` in a process of its own, with these environment variables."""
    return subprocess.run(
        [sys.executable, "-c", "from backend.cli import main; main()", *arguments],
        cwd=cwd,
        env=child_environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def child_environment(variables: dict[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OUR_VARIABLES)}
    ours = {"PYTHONPATH": str(ROOT), "LS_CLIP_BLIND_SHARE": "0", "NO_COLOR": "1", "COLUMNS": "200"}
    return {**inherited, **ours, **variables}


@contextmanager
def served(cwd: Path, **variables: str) -> Iterator[tuple[str, Path]]:
    """``ls-clip serve`` in a process of its own: (its URL, the file with its log)."""
    port = free_port()
    log = cwd / f"serve-{port}.log"
    given = {"LS_CLIP_ENCODER": "offline", "LS_CLIP_STORE": str(cwd / "store"), **variables}
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from backend.cli import main; main()"),
                *("serve", "--port", str(port)),
            ],
            cwd=cwd,
            env=child_environment(given),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{url}/health", timeout=1)
                break
            except requests.RequestException:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield url, log
    finally:
        process.terminate()
        process.wait(30)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which lost and failed jobs come again."""
    clock = Clock()
    monkeypatch.setattr("jobs.tend.time", clock)
    return clock


@pytest.fixture
def studio() -> Iterator[Any]:
    """A stand-in for Label Studio, for faults that a real one cannot be made to have."""
    # That module imports this one.
    from tests.stub_studio import stub_studio

    with stub_studio() as stub:
        yield stub
