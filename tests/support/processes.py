"""The command line and the server, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.builders import ROOT

OUR_VARIABLES = ("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_", "REDIS_URL")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_cli(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """``ls-clip`` in a process of its own, with these environment variables."""
    return subprocess.run(
        [sys.executable, "-c", "from backend.cli.main import main; main()", *arguments],
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
                *(sys.executable, "-c", "from backend.cli.main import main; main()"),
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
