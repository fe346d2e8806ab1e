"""The demo, which starts servers of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from backend.processes import free_port
from tests.support.first_demo import FirstDemo
from tests.support.network_guard import Guard


@pytest.fixture(scope="package")
def first_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstDemo]:
    """The demo on a machine without a way out; its first port is taken, and stays so."""
    guard = Guard(tmp_path_factory.mktemp("first-demo"))
    port = free_port(28080)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        directory = guard.folder / "demo"
        done = guard.run_cli(
            *("demo", "--check", "--directory", str(directory), "--tasks", "24"),
            *("--port", str(port)),
            LS_CLIP_OFFLINE="1",
            LS_CLIP_BLIND_SHARE="0.05",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield FirstDemo(guard, directory, port, done.stdout, done.stderr)
