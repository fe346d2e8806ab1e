"""The Valkey that the documentation starts: reached from this machine only, and gone when ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.support.builders import ROOT
from tests.support.processes import free_port
from tests.support.waiting import until


def documented_command() -> str:
    """The lines of docs/workers.md, as they are pasted into a shell."""
    page = (ROOT / "docs" / "workers.md").read_text("utf-8")
    (block,) = [
        found for found in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "valkey" in found
    ]
    return re.sub(r"^ +", "", block, flags=re.MULTILINE)


def answers(url: str) -> bool:
    try:
        with Redis.from_url(url, socket_timeout=2) as connection:
            return bool(connection.ping())
    except RedisError:
        return False


def servers_of(folder: Path) -> list[Path]:
    """Processes that work in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder.resolve():
                found.append(entry)
        except OSError:
            continue
    return found


def test_the_documented_valkey_keeps_its_data_and_leaves_no_server_behind(tmp_path: Path):
    port, folder = free_port(), tmp_path / "valkey"
    command = documented_command().replace("--port 6379", f"--port {port}")
    command = command.replace("~/.cache/label-studio-clip/valkey", str(folder))
    url = f"redis://127.0.0.1:{port}/0"
    environment = {**os.environ, "UV_NO_SYNC": "1"}
    for start in range(2):
        shell = subprocess.Popen(
            ["bash", "-c", command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(lambda: answers(url))
            with Redis.from_url(url) as connection:
                assert connection.config_get("bind") == {"bind": "127.0.0.1"}
                assert connection.incr("starts") == start + 1
            (server,) = servers_of(folder)
            # Ctrl-C in that terminal, or whatever ends what runs there.
            os.kill(int(server.name), signal.SIGTERM)
            shell.wait(20)
            assert servers_of(folder) == [] and not answers(url)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
