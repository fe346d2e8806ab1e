"""The command line and the server, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builders import INSTALLATION, ROOT
from tests.support.waiting import until

OUR_VARIABLES = ("LS_CLIP_", "LABEL_STUDIO_", "BASIC_AUTH_", "REDIS_URL")
CLI = (sys.executable, "-c", "from backend.cli.main import main; main()")
"""The ``ls-clip`` command."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_cli(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """``ls-clip`` in a process of its own, with these environment variables."""
    return subprocess.run(
        [*CLI, *arguments],
        cwd=cwd,
        env=child_environment(variables),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def child_environment(variables: dict[str, str]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OUR_VARIABLES)}
    ours = {"PYTHONPATH": str(ROOT), "LS_CLIP_BLIND_SHARE": "0", "NO_COLOR": "1", "COLUMNS": "200"}
    return {**inherited, **ours, "LS_CLIP_INSTALLATION": INSTALLATION, **variables}


def start_cli(
    *arguments: str, cwd: Path, log: Path, variables: dict[str, str]
) -> subprocess.Popen[bytes]:
    """``ls-clip`` in a process of its own that goes on; its output goes to ``log``."""
    with log.open("w") as out:
        return subprocess.Popen(
            [*CLI, *arguments],
            cwd=cwd,
            env=child_environment(variables),
            stdout=out,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def served(cwd: Path, **variables: str) -> Iterator[tuple[str, Path]]:
    """``ls-clip serve`` in a process of its own: (its URL, the file with its log)."""
    with server_process(cwd, **variables) as (url, log, _):
        yield url, log


@contextmanager
def server_process(
    cwd: Path, **variables: str
) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """`served`, with the process: gunicorn's parent, whose only child serves."""
    # Costly to import, and not needed to name our environment variables.
    import requests

    port = free_port()
    log = cwd / f"serve-{port}.log"
    given = {"LS_CLIP_ENCODER": "offline", "LS_CLIP_STORE": str(cwd / "store"), **variables}
    process = start_cli("serve", "--port", str(port), cwd=cwd, log=log, variables=given)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return requests.get(f"{url}/health", timeout=10).ok
        except requests.RequestException:
            return False

    try:
        until(answers)
        yield url, log, process
    finally:
        process.terminate()
        process.wait(60)
